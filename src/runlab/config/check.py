"""What a composed config must be before anything heavy is imported."""

import copy
import importlib
import re
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from runlab.config.messages import UserError
from runlab.config.overruled import say_overruled
from runlab.config.resolvers import GROUPS, as_typed, shown, typed_path
from runlab.config.secrets import written_value
from runlab.config.startup import fast_imports

_OF_A_TASK = ("model", "optimizer", "scheduler")  # a task may take them, or make its own, as it may its data; null then


def check(cfg: DictConfig, *modules: str) -> DictConfig:
    """The composed config, without groups that its task has no use for.

    `modules` are the names of those that hold the example's models. `UserError` with a line for each value that is not
    what a model, or the signature of a `_target_` without one, says it must be. What is typed and does not count is
    printed. Paths are absolute afterwards.
    """
    for group in GROUPS:  # `model=x` sets a group to a word where it has no such choice to check
        value = cfg.get(group)
        if not isinstance(value, DictConfig) and not (value is None and group in (*_OF_A_TASK, "data")):
            text = f"{group}={shown(value)}: no such choice here"
            raise UserError(f"{text}; values are set one by one, as in {group}.KEY=VALUE")
    _check_used(cfg)
    cfg = without_unused(cfg)
    with fast_imports():  # here, so that --help, --cfg and a misspelt key are answered without pydantic
        for module in modules:
            importlib.import_module(module)
        from runlab.config.signatures import refuse
        from runlab.config.validate import modelled, relative_paths, wrong_values

        found = [*modelled(cfg)]
        wrong = wrong_values(cfg, found)
    refuse(cfg, wrong)
    if OmegaConf.is_interpolation(cfg, "name") and (name := written_value(cfg, "name")) != cfg.name:
        raise UserError(f"name={name}: comes from the environment, and folders have it in their names; type it out")
    say_overruled(cfg)
    for key, path in relative_paths(found):
        OmegaConf.update(cfg, key, str(typed_path(path)))
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
                f"{override}: task {cfg.task.get('_target_')} has no ${{{group}}}, so it would change nothing;"
                f" change task.*, or write {group}: ${{{group}}} into the task's file"
            )
