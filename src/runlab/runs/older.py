"""A record of an older version of the project, brought up to date: names that have changed, keys that it lacks."""

import inspect
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from runlab.config.resolvers import PROJECT

CONF = PROJECT / "conf"
_said: set[str] = set()  # what was said, once


def up_to_date(config: DictConfig, path: Path) -> DictConfig:
    """The config that `path` holds, with new names for old ones, and what it lacks as conf/ has it.

    `conf/renamed.yaml` has the names of packages, modules and classes that were changed. What is taken from conf/ is
    printed.
    """
    names = yaml.safe_load((CONF / "renamed.yaml").read_text()) if (CONF / "renamed.yaml").exists() else {}
    record = _renamed(OmegaConf.to_container(config, resolve=False), names or {})
    added: list[str] = []
    _fill(record, _composed(path), "", added)
    if added and (text := f"{path}: lacks {', '.join(added)}; taken from conf/") not in _said:
        _said.add(text)
        print(text, file=sys.stderr)
    return OmegaConf.create(record)


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """A config with each `_target_` as it is called now; of several old names that fit, the longest counts."""
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _renamed(item, names) for key, item in value.items()}
    target = str(value.get("_target_"))
    for _ in names:  # a new name may have become an old one
        old = max((name for name in names if f"{target}.".startswith(f"{name}.")), key=len, default=None)
        if old:
            value["_target_"] = target = names[old] + target[len(old) :]
    return value


def _composed(path: Path) -> Any:
    """The config that the run's overrides give today; the default one where they no longer fit."""
    with suppress(Exception):
        return _compose(list(yaml.safe_load(path.with_stem("overrides").read_text())))
    with suppress(Exception):  # the run may have left out callbacks and loggers
        return {key: value for key, value in _compose([]).items() if key not in ("callbacks", "logger")}
    return {}  # where the engine is installed alone, there is no conf/


def _compose(words: list[str]) -> Any:
    if GlobalHydra.instance().is_initialized():
        name = HydraConfig.get().job.config_name if HydraConfig.initialized() else "train"
        return OmegaConf.to_container(compose(name, words))
    with initialize_config_dir(str(CONF), version_base=None):
        return OmegaConf.to_container(compose("train", words))


def _is_implied(target: Any, name: str, value: Any) -> bool:
    """Whether an object without an argument is one with this value: by its default, or as it must have it today."""
    if target is None:
        return True
    with suppress(Exception):
        default = inspect.signature(get_object(target)).parameters[name].default
        return default is inspect.Parameter.empty or default == value
    return False


def _fill(record: Any, today: Any, key: str, added: list[str]) -> None:
    """Add what `record` lacks of `today`, but nothing to an object of another class, nor what would change it."""
    if not (isinstance(record, dict) and isinstance(today, dict)) or record.get("_target_") != today.get("_target_"):
        return
    for name, value in today.items():
        if name in record:
            _fill(record[name], value, f"{key}{name}.", added)
        elif _is_implied(record.get("_target_"), name, value):
            record[name] = value
            added.append(f"{key}{name}={'{...}' if isinstance(value, dict) else 'null' if value is None else value}")
