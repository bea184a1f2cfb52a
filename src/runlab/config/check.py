"""The values of a composed config, checked against `conf/rules.yaml` before anything heavy is imported."""

import re
from collections.abc import Callable
from math import isfinite
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from runlab.config.messages import UserError

# Groups whose values are set one by one: `model=x` sets the group to a word where it has no such choice to check.
_GROUPS = ("data", "model", "optimizer", "scheduler", "trainer", "callbacks", "logger")
_TYPES: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "share": (float,)}
_BOUNDS: dict[str, Callable[[Any, float], bool]] = {">": gt, ">=": ge, "<": lt, "<=": le}


def check(cfg: DictConfig, rules: Path) -> None:
    """`UserError` for a value in a composed config that is not what `rules`, a YAML file, says it must be."""
    for group in _GROUPS:
        if not isinstance(value := cfg.get(group), DictConfig):
            raise UserError(f"{group}={value}: no such choice here; values are set one by one, as in {group}.KEY=VALUE")
    table: Any = OmegaConf.to_container(OmegaConf.load(rules))
    for key, rule in table.items():
        value = OmegaConf.select(cfg, key, default=...)
        if isinstance(value, DictConfig) and "_target_" in value:
            continue  # it is made when the run begins
        if value is not ... and not any(_holds(value, part.split()) for part in rule.split(" or ")):
            raise UserError(f"{key}={_shown(value)}: must be {rule}")
    if not cfg.fit and cfg.ckpt_path is None:
        raise UserError("fit=false: nothing to evaluate; add resume=runs/..., or ckpt_path=...")
    data = cfg.data
    if "batch_sampler" not in data:  # a data module of another kind
        return
    folds, fold = data.get("folds"), data.get("fold")
    if fold is not None and (folds is None or fold >= folds):
        choices = f"must be 0 to {folds - 1}, as data.folds={folds}" if folds else "there are none; add data.folds=5"
        raise UserError(f"data.fold={fold}: {choices}")
    if folds is not None and fold is None:
        every = f"-m 'data.fold=range({folds})'"
        raise UserError(f"data.folds={folds}: say on which to validate, as in data.fold=0, or on each in turn, {every}")
    if data.batch_sampler and (data.batch_size is not None or data.shuffle or data.sampler or data.drop_last):
        free = "data.batch_size=null data.shuffle=false data.sampler=null data.drop_last=false"
        raise UserError(f"data.batch_sampler makes the batches alone: add {free}")
    if data.sampler and data.shuffle:
        raise UserError("data.sampler and data.shuffle=true exclude each other: add data.shuffle=false")
    if not data.batch_sampler and data.batch_size is None:
        raise UserError("data.batch_size=null: give a number of samples, or a data.batch_sampler")


def _holds(value: Any, rule: list[str]) -> bool:
    """Whether a value is what one alternative of a rule says: a type with bounds, a pattern, or the word itself."""
    kind, *bounds = rule
    if kind == "matching":
        return type(value) is str and re.fullmatch(bounds[0], value) is not None
    if kind in _TYPES:
        pairs = zip(bounds[::2], bounds[1::2], strict=True)
        return type(value) in _TYPES[kind] and isfinite(value) and all(_BOUNDS[b](value, float(x)) for b, x in pairs)
    return kind == ("list" if isinstance(value, ListConfig) else _shown(value))


def _shown(value: Any) -> str:
    """A value as it is typed."""
    return "null" if value is None else str(value).lower() if type(value) is bool else str(value)
