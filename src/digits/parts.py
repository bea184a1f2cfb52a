"""What a config describes, built: data module, network, Trainer."""

import os
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import instantiate
from lightning import Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.accelerators import CPUAccelerator
from omegaconf import DictConfig, OmegaConf

from digits import checkpoints
from digits.errors import UserError
from digits.folder import RECORD, processes
from digits.model import ImageClassifier
from digits.overhead import without_idle_hooks

FREE = {"root", "num_workers", "eval_batch_size", "device_resident"}  # data.*: what a resumed run may change
build = partial(instantiate, _convert_="all")  # plain lists and dicts: what a checkpoint may hold


def build_parts(cfg: DictConfig) -> tuple[Any, ImageClassifier]:
    """The data module and the module to train that a config describes."""
    factories = build(cfg.model), build(cfg.optimizer), build(cfg.scheduler) or None
    return build(cfg.data), ImageClassifier(*factories, cfg.data.num_classes)


def last_checkpoint(run_dir: Path, cfg: DictConfig) -> Path | None:
    """The checkpoint to go on from; `UserError` if `cfg` changes what it fixes (network, optimizer, data)."""
    if (last := checkpoints.newest_sound(run_dir / "checkpoints")) is None:
        return None
    if (epoch := checkpoints.load(last)["epoch"]) >= cfg.trainer.max_epochs:
        raise UserError(f"trainer.max_epochs={cfg.trainer.max_epochs}: the run to go on with has done {epoch + 1}")
    record = OmegaConf.merge(OmegaConf.load(run_dir / RECORD), {"run_dir": cfg.run_dir})
    old, new = (cast("dict[str, Any]", OmegaConf.to_container(part, resolve=True)) for part in (record, cfg))
    for group in ("data", "model", "optimizer", "scheduler"):
        for key in sorted((old[group].keys() | new[group].keys()) - FREE):
            if old[group].get(key) != new[group].get(key):
                text = f"{group}.{key}={new[group].get(key)}: the run to go on with has {old[group].get(key)}"
                raise UserError(f"{text}; to begin a new one with its weights, say ckpt_path=.../checkpoints/best.ckpt")
    return last


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
    asked, started = wanted * trainer.num_nodes, processes()
    slurm = isinstance(getattr(trainer.strategy, "cluster_environment", None), SLURMEnvironment)
    if asked != started and (started > 1 or slurm or trainer.world_size != asked):  # else Lightning starts them
        text = f"trainer.devices={wanted} trainer.num_nodes={trainer.num_nodes}: that is {asked} processes"
        raise UserError(f"{text}, but {started} started; give srun or torchrun the same numbers, or leave it out")
    if trainer.world_size > 1 and (getattr(data, "sampler", None) or getattr(data, "batch_sampler", None)):
        raise UserError(f"trainer.devices={wanted}: data.sampler and data.batch_sampler work on one device alone")
    return trainer
