"""What a config describes, built: the data module, the task's module, the Trainer."""

import copy
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hydra.errors import InstantiationException
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.accelerators import CPUAccelerator
from omegaconf import DictConfig, OmegaConf

from runlab.config.instantiate import build
from runlab.config.messages import UserError, one_line
from runlab.config.processes import launched_processes
from runlab.training.overhead import without_idle_hooks


def build_task(cfg: DictConfig) -> tuple[LightningDataModule, LightningModule]:
    """The data module and the module to train; `UserError` where a config names another kind of object."""
    cfg = copy.deepcopy(cfg)  # Hydra writes resolved values into what `${model}` refers to
    with _named_as_typed(cfg.task):
        data, task = build(cfg.data), build(cfg.task)
    for group, built, kind in (("data", data, LightningDataModule), ("task", task, LightningModule)):
        if not isinstance(built, kind):
            raise UserError(f"{group}._target_={cfg[group].get('_target_')}: not a {kind.__name__}")
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
        raise UserError(f"{named[1] if named else key}: {text}") from error


def build_trainer(cfg: DictConfig, loggers: list[Any], data: Any) -> Any:
    """The Trainer with its callbacks.

    `UserError` for more CPU processes than there are cores, other processes than those that SLURM or torchrun has
    started, or samplers that cannot be shared among devices.
    """
    callbacks = [without_idle_hooks(callback) for callback in build(cfg.callbacks).values()]
    trainer: Trainer = build(cfg.trainer, callbacks=callbacks, logger=loggers)
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
    if trainer.world_size > 1 and (getattr(data, "sampler", None) or getattr(data, "batch_sampler", None)):
        raise UserError(f"trainer.devices={wanted}: data.sampler and data.batch_sampler work on one device alone")
    return trainer
