"""The values of a composed config, checked against `conf/rules.yaml` before anything heavy is imported."""

import copy
import re
from collections.abc import Callable
from math import isfinite
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from runlab.config.messages import UserError
from runlab.config.resolvers import GROUPS, as_typed
from runlab.config.secrets import written_value

_OF_A_TASK = ("model", "optimizer", "scheduler")  # a task may take them, or make its own, as it may its data; null then
_TYPES: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "share": (float,)}
_BOUNDS: dict[str, Callable[[Any, float], bool]] = {">": gt, ">=": ge, "<": lt, "<=": le}


def check(cfg: DictConfig, rules: Path) -> DictConfig:
    """The composed config, without groups that its task has no use for.

    `UserError` for a value that is not what `rules`, a YAML file, says it must be.
    """
    for group in GROUPS:  # `model=x` sets a group to a word where it has no such choice to check
        value = cfg.get(group)
        if not isinstance(value, DictConfig) and not (value is None and group in (*_OF_A_TASK, "data")):
            raise UserError(f"{group}={value}: no such choice here; values are set one by one, as in {group}.KEY=VALUE")
    table: Any = OmegaConf.to_container(OmegaConf.load(rules))
    for key, rule in table.items():
        value = OmegaConf.select(cfg, key, default=...)
        if isinstance(value, DictConfig) and "_target_" in value:
            continue  # it is made when the run begins
        if value is not ... and not any(_holds(value, part.split()) for part in rule.split(" or ")):
            raise UserError(f"{key}={shown(written_value(cfg, key))}: must be {rule}")
    if OmegaConf.is_interpolation(cfg, "name") and (name := written_value(cfg, "name")) != cfg.name:
        raise UserError(f"name={name}: comes from the environment, and folders have it in their names; type it out")
    _check_used(cfg)
    cfg = without_unused(cfg)
    trainer = cfg.trainer
    if trainer.max_epochs == -1 and trainer.max_steps == -1 and trainer.get("max_time") is None:
        raise UserError("trainer.max_epochs=-1: has no end; add trainer.max_steps=... or +trainer.max_time=...")
    if not cfg.fit and cfg.ckpt_path is None:
        raise UserError("fit=false: nothing to evaluate; add resume=runs/..., or ckpt_path=...")
    data = cfg.data
    if data is None or "batch_sampler" not in data:  # a data module of another kind
        return cfg
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
    return cfg


def unused_groups(cfg: DictConfig) -> set[str]:
    """Which of model, optimizer and scheduler nothing refers to, as the task makes its own."""
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    text = str([value for key, value in raw.items() if key not in (*_OF_A_TASK, "hyperparameters")])
    unused = set(_OF_A_TASK)
    while found := {group for group in unused if f"${{{group}." in text or f"${{{group}}}" in text}:
        unused -= found
        text = str([raw.get(group) for group in found])
    return unused


def without_unused(cfg: DictConfig) -> DictConfig:
    """A copy of a config in which the groups that nothing refers to, or that were left out, are null."""
    cfg = copy.deepcopy(cfg)
    for group in unused_groups(cfg) | {group for group in (*_OF_A_TASK, "data") if cfg.get(group) is None}:
        OmegaConf.update(cfg, group, None, force_add=True)
    return cfg


def _check_used(cfg: DictConfig) -> None:
    """`UserError` for an override of a group that the task has no use for, or for a null group that it takes."""
    for group in {"model", "optimizer"} - unused_groups(cfg):
        if cfg.get(group) is None:
            raise UserError(
                f"{group}=null: task {cfg.task.get('_target_')} takes ${{{group}}}; choose one, {group}=..."
            )
    overrides = as_typed(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    for override in overrides:
        group = re.split(r"[.=@]", override.lstrip("+"))[0]
        if group in unused_groups(cfg):
            raise UserError(
                f"{override}: task {cfg.task.get('_target_')} has no ${{{group}}}, so it would change nothing"
            )


def _holds(value: Any, rule: list[str]) -> bool:
    """Whether a value is what one alternative of a rule says: a type with bounds, a pattern, or the word itself."""
    kind, *bounds = rule
    if kind == "matching":
        return type(value) is str and re.fullmatch(bounds[0], value) is not None
    if kind in _TYPES:
        pairs = zip(bounds[::2], bounds[1::2], strict=True)
        return type(value) in _TYPES[kind] and isfinite(value) and all(_BOUNDS[b](value, float(x)) for b, x in pairs)
    return kind == ("list" if isinstance(value, ListConfig) else shown(value))


def shown(value: Any) -> str:
    """A value as it is typed."""
    return "null" if value is None else str(value).lower() if type(value) is bool else str(value)
