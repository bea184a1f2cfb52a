"""What a config describes, built: the data module, the task's module, the Trainer."""

import copy
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hydra.errors import InstantiationException
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, OmegaConf

from runlab.config.instantiate import build
from runlab.config.messages import UserError, one_line, own_place
from runlab.config.processes import launched_processes
from runlab.config.secrets import masked_values
from runlab.config.signatures import check_signatures
from runlab.data.connector import use_resumable_loaders
from runlab.training.checkpointing import check_last
from runlab.training.checks import CheckRun
from runlab.training.epoch_state import EpochState
from runlab.training.fit_loop import use_engine_loops
from runlab.training.refusals import check_callbacks, check_trainer
from runlab.training.remade import SameWeights
from runlab.training.run_state import RunState
from runlab.training.schedulers import OF_LIGHTNING


def build_task(cfg: DictConfig) -> tuple[LightningDataModule | None, LightningModule]:
    """The data module, None where the module has loaders of its own, and the module to train.

    `UserError` where a config names another kind of object, or where nobody has training data.
    """
    check_signatures(cfg, "data", "task", "model", "optimizer", "scheduler", scheduler=OF_LIGHTNING)
    cfg = copy.deepcopy(cfg)  # Hydra writes resolved values into what `${model}` refers to
    with _named_as_typed(cfg.task):
        data, task = cfg.data and build(cfg.data), build(cfg.task)
    for group, built, kind in (("data", data, LightningDataModule), ("task", task, LightningModule)):
        if not isinstance(built, kind) and cfg[group] is not None:
            raise UserError(f"{group}._target_={cfg[group].get('_target_')}: not a {kind.__name__}")
        if hasattr(built, "_hparams_initial"):  # of save_hyperparameters: what Lightning gives to the loggers
            vars(built)["_hparams_initial"] = masked_values(built.hparams_initial)
    has_loader = is_overridden("train_dataloader", task)
    if data is None and not has_loader and cfg.fit:
        raise UserError(f"data=null: {type(task).__name__} has no train_dataloader; choose data=..., or give it one")
    if data is not None and has_loader:
        text = f"data: the loaders are those of {type(data).__name__}; for those of {type(task).__name__} add data=null"
        rank_zero_only(print)(text, file=sys.stderr)
    if str(cfg.trainer.precision) in ("64", "64-true"):
        task.double()  # before weights are restored, which would be cut to 32 bits
    return data, task


@contextmanager
def _named_as_typed(task: DictConfig) -> Iterator[None]:
    """Around the building of a task: an error in `task.network: ${model}` is one in `model`."""
    try:
        yield
    except InstantiationException as error:
        key, _, text = one_line(error).partition(": ")
        raw: Any = OmegaConf.to_container(task, resolve=False)
        origin = {f"task.{name}": str(value) for name, value in raw.items()}
        named = re.fullmatch(r"\$\{([\w.]+)\}", origin.get(key, ""))
        raise UserError(f"{named[1] if named else key}: {text}{own_place(error)}") from error


def build_trainer(cfg: DictConfig, loggers: list[Any], task: LightningModule | None = None) -> Any:
    """The Trainer with its callbacks, for any task or for this one.

    `UserError` for a setting that breaks a promise, for more CPU processes than there are cores, or other processes
    than those that SLURM or torchrun has started.
    """
    check_signatures(cfg, "trainer", "callbacks")
    callbacks: dict[str, Any] = build(cfg.callbacks)
    check_last(callbacks)
    check_callbacks(cfg, callbacks, loggers)
    trainer: Trainer = build(cfg.trainer, callbacks=[*callbacks.values(), *_engine(cfg, callbacks)], logger=loggers)
    check_trainer(trainer, cfg, task)
    use_engine_loops(trainer, cfg.seed, cfg.fast_loop)
    use_resumable_loaders(trainer, cfg.seed)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # else deterministic mode writes every new tensor twice
    wanted, cores = trainer.num_devices, os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and wanted > cores:
        raise UserError(f"trainer.devices={wanted}: this machine has {cores} CPU cores; take at most {cores}")
    asked, started = wanted * trainer.num_nodes, launched_processes()
    slurm = isinstance(getattr(trainer.strategy, "cluster_environment", None), SLURMEnvironment)
    if asked != started and (started > 1 or slurm or trainer.world_size != asked):  # else Lightning starts them
        text = f"trainer.devices={wanted} trainer.num_nodes={trainer.num_nodes}: that is {asked} processes"
        raise UserError(f"{text}, but {started} started; give srun or torchrun the same numbers, or leave it out")
    return trainer


def _engine(cfg: DictConfig, callbacks: dict[str, Any]) -> list[Callback]:
    """The callbacks that keep the engine's promises for any task."""
    arguments: Any = OmegaConf.to_container(cfg.callbacks, resolve=True)
    configured = {name: (callback, arguments[name]) for name, callback in callbacks.items()}
    options: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    limits = {key: options.get(key) for key in ("max_time", "min_epochs", "min_steps")}
    hint = "lower optimizer.lr?" if cfg.optimizer else "lower the learning rate?"
    return [
        CheckRun(cfg.monitor, hint),
        EpochState(),
        RunState(configured, limits, hint),
        SameWeights(fit=bool(cfg.fit and cfg.ckpt_path)),
    ]
