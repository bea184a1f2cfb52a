"""What was typed and does not count, in a line: a value that is typed again, a choice whose value another file sets."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from runlab.config.messages import UserError
from runlab.config.processes import rank_zero
from runlab.config.resolvers import GROUPS, as_typed

_said: set[str] = set()


def say_overruled(cfg: DictConfig) -> None:
    """Print what is overruled in this command, a line each, once in a process."""
    if HydraConfig.initialized() and rank_zero():
        for line in dict.fromkeys(overruled(cfg, as_typed(HydraConfig.get().overrides.task))):
            if line not in _said:
                print(line, file=sys.stderr)
            _said.add(line)


def overruled(cfg: DictConfig, words: list[str]) -> Iterator[str]:
    """A line for each typed word that is overruled in `cfg`, an unresolved config.

    `UserError` where a task has data of its own and the default's are left in place.
    """
    typed: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if (before := typed.get(key := key.lstrip("+"))) not in (None, value):
            yield f"{key}={before}: overruled by {word}, which is typed later"
        typed[key] = value
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    for group, choice in typed.items():
        if group not in GROUPS:
            continue
        for key, own in _own_values(group, choice):
            final = raw
            for part in key.split("."):
                final = final.get(part, ...) if isinstance(final, dict) else ...
            by_hand = any(f"{key}.".startswith(f"{word}.") for word in typed if word != group)
            if own is not None and final not in (own, ...) and not by_hand:
                if key == "data._target_":  # a mixture of both would be made
                    raise UserError(f"{group}={choice}: has data of its own, {own}; add data=null, or it gets {final}")
                file = next((f"{name}={typed[name]}" for name in ("experiment", "sweep", "task") if name in typed), "")
                yield f"{group}={choice}: its {key}={own} is overruled by {file or 'another file'}, {final}; or type it"


def _own_values(group: str, choice: str) -> Iterator[tuple[str, Any]]:
    """The keys and values that a choice's own file sets."""
    for source in HydraConfig.get().runtime.config_sources:
        path = Path(source.path, group, f"{choice}.yaml")
        if source.schema == "file" and path.is_file():
            text = path.read_text()
            package = [] if re.search(r"^# @package _global_", text, re.MULTILINE) else [group]
            yield from _leaves(OmegaConf.to_container(OmegaConf.create(text), resolve=False), package)
            return


def _leaves(value: Any, path: list[str]) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield ".".join(path), value
        return
    for key, item in value.items():
        if key != "defaults":
            yield from _leaves(item, [*path, str(key)])
