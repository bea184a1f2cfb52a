"""What a config describes, built: the data module, the task's module, the Trainer."""

import copy
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hydra.errors import InstantiationException
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.accelerators import CPUAccelerator
from omegaconf import DictConfig, OmegaConf

from runlab.config.instantiate import build
from runlab.config.messages import UserError, one_line, own_place
from runlab.config.processes import launched_processes
from runlab.config.secrets import masked_values
from runlab.data.connector import use_resumable_loaders
from runlab.training.checkpointing import RunState
from runlab.training.checks import CheckRun
from runlab.training.epoch_state import EpochState
from runlab.training.fit_loop import use_engine_loops


def build_task(cfg: DictConfig) -> tuple[LightningDataModule, LightningModule]:
    """The data module and the module to train; `UserError` where a config names another kind of object."""
    cfg = copy.deepcopy(cfg)  # Hydra writes resolved values into what `${model}` refers to
    with _named_as_typed(cfg.task):
        data, task = build(cfg.data), build(cfg.task)
    for group, built, kind in (("data", data, LightningDataModule), ("task", task, LightningModule)):
        if not isinstance(built, kind):
            raise UserError(f"{group}._target_={cfg[group].get('_target_')}: not a {kind.__name__}")
        if "_hparams_initial" in vars(built):  # of save_hyperparameters: what Lightning gives to the loggers
            vars(built)["_hparams_initial"] = masked_values(built.hparams_initial)
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


def build_trainer(cfg: DictConfig, loggers: list[Any]) -> Any:
    """The Trainer with its callbacks.

    `UserError` for more CPU processes than there are cores, or other processes than those that SLURM or torchrun has
    started.
    """
    callbacks: dict[str, Any] = build(cfg.callbacks)
    trainer: Trainer = build(cfg.trainer, callbacks=[*callbacks.values(), *_engine(cfg, callbacks)], logger=loggers)
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
    configured = [(callback, arguments[name]) for name, callback in callbacks.items()]
    limits = {key: cfg.trainer.get(key) for key in ("max_time", "min_epochs", "min_steps")}
    hint = "lower optimizer.lr?" if cfg.optimizer else "lower the learning rate?"
    return [
        CheckRun(cfg.monitor, hint),
        EpochState(),
        RunState(configured, f"{OmegaConf.to_yaml(cfg.callbacks)}{limits}", hint),
    ]
