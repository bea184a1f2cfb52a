"""The arguments of a `_target_` that has no model, checked against its signature."""

import importlib.util
import inspect
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from runlab.config.messages import UserError, suggest
from runlab.config.resolvers import shown
from runlab.config.secrets import written_value

OF_HYDRA = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
_PLAIN = (int, float, bool, str, NoneType)


def parts(raw: Any, values: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each mapping that has a `_target_`, where it stands itself: its key, what is in it before and after resolving."""
    if isinstance(raw, dict) and isinstance(values, dict):
        if isinstance(values.get("_target_"), str):
            yield key, raw, values
        for name in raw:
            yield from parts(raw[name], values[name], f"{key}.{name}" if key else str(name))
    elif isinstance(raw, list) and isinstance(values, list):
        for number, (item, value) in enumerate(zip(raw, values, strict=True)):
            yield from parts(item, value, f"{key}.{number}")


def check_signatures(cfg: DictConfig, *groups: str, **known: Collection[str]) -> None:
    """`UserError` for arguments that a `_target_` in these groups does not take; its module is imported for that.

    `known` are arguments of a group that go elsewhere.
    """
    wrong: dict[str, str] = {}
    for group in groups:
        if isinstance(cfg.get(group), DictConfig):
            raw, values = (OmegaConf.to_container(cfg[group], resolve=resolve) for resolve in (False, True))
            for key, _, part in parts(raw, values, group):
                wrong |= wrong_arguments(key, part, known.get(key, ()))
    refuse(cfg, wrong)


def refuse(cfg: DictConfig, wrong: dict[str, str]) -> None:
    """`UserError` with a line for each key and what is wrong with it; the environment's values stay as typed."""
    if wrong:
        values = {key: written_value(cfg, key, {}) for key in wrong}
        typed = {key: key if isinstance(value, dict) else f"{key}={shown(value)}" for key, value in values.items()}
        raise UserError("\n".join(f"{typed[key]}: {text}" for key, text in wrong.items()))


def wrong_arguments(
    key: str, part: dict[str, Any], known: Collection[str], light: bool = False
) -> Iterator[tuple[str, str]]:
    """The key of each argument that is unknown, missing, or not of its annotated type, and what is wrong with it.

    With `light` only where its module costs nothing to import.
    """
    target = part["_target_"]
    try:
        if light and not _is_light(target):
            return
        takes = inspect.signature(get_object(target), eval_str=True).parameters
    except Exception:  # building it says what is wrong
        return
    given = {name: value for name, value in part.items() if name not in (*OF_HYDRA, *known)}
    open_ended = any(taken.kind is taken.VAR_KEYWORD for taken in takes.values())
    for name, value in given.items():
        if name not in takes and not open_ended:
            yield f"{key}.{name}", f"no such argument of {target}.{suggest(name, takes)}"
        elif name in takes and value != takes[name].default and not _fits(value, takes[name].annotation):
            yield f"{key}.{name}", f"{target} takes {inspect.formatannotation(takes[name].annotation)}"
    if not part.get("_partial_") and not part.get("_args_"):
        for name, taken in takes.items():
            named = taken.kind in (taken.POSITIONAL_OR_KEYWORD, taken.KEYWORD_ONLY)
            if named and taken.default is taken.empty and name not in given:
                yield f"{key}.{name}", f"missing, {target} needs it; add +{key}.{name}=..."


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value is of a plain annotation; True for any other of either."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if isinstance(value, dict | list) or not all(kind in _PLAIN or get_origin(kind) is Literal for kind in kinds):
        return True
    choices = [choice for kind in kinds if kind not in _PLAIN for choice in get_args(kind)]
    same = any(type(value) is type(choice) and value == choice for choice in choices)
    return same or type(value) in kinds or (type(value) is int and float in kinds)


def _is_light(target: str) -> bool:
    """Whether all that the module of a target imports is imported already, or in the standard library."""
    name = target.rpartition(".")[0]
    if _is_there(name):
        return True
    package = name.rpartition(".")[0]
    if package and not _is_light(f"{package}._"):
        return False
    spec = importlib.util.find_spec(name)
    source = Path(str(spec.origin)).read_text() if spec else ""
    return all(map(_is_there, re.findall(r"^(?:from|import) ([\w.]+)", source, re.MULTILINE)))


def _is_there(module: str) -> bool:
    return module in sys.modules or module.split(".")[0] in sys.stdlib_module_names
