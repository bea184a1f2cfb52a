"""Settings of Lightning's Trainer and callbacks that cannot keep the engine's promises, refused in a line."""

import os
from typing import Any

from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    BatchSizeFinder,
    Checkpoint,
    DeviceStatsMonitor,
    LearningRateFinder,
    LearningRateMonitor,
    ModelPruning,
    OnExceptionCheckpoint,
    ProgressBar,
    SpikeDetection,
    StochasticWeightAveraging,
    ThroughputMonitor,
)
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from omegaconf import DictConfig
from torch import nn
from torch.optim import lr_scheduler

from runlab.config.messages import UserError
from runlab.config.processes import launched_processes
from runlab.runs.checkpoints import AtomicCheckpointIO

# Callbacks that no run may have, each with the reason and what to do instead.
CALLBACKS = {
    StochasticWeightAveraging: "makes its average after the last checkpoint, so that it would neither be kept nor"
    " tested; take WeightAveraging or EMAWeightAveraging",
    LearningRateFinder: "trains with another learning rate than the record says; search for one by a sweep, as in"
    " -m optimizer.lr=0.01,0.1,1",
    BatchSizeFinder: "trains with another batch size than the record and the schedule say; search for one by a sweep,"
    " as in -m data.batch_size=64,128,256",
    ModelPruning: "prunes after the validation, so that best.ckpt would hold other weights than its metrics are of;"
    " prune the finished network, as load_run gives it",
    OnExceptionCheckpoint: "has a new run begin with what any earlier one has left in its folder; leave it out, a run"
    " is resumed from the end of its last epoch",
    SpikeDetection: "forgets its mean loss on a resume, and would then end the run elsewhere; leave it out, a loss that"
    " is not finite ends a run anyway",
}

# Schedulers of torch's that go on when BaseFinetuning gives the optimizer another group of parameters.
NAMES = "StepLR MultiStepLR ExponentialLR ConstantLR LinearLR PolynomialLR ReduceLROnPlateau"
TAKE_GROUPS = tuple(getattr(lr_scheduler, name) for name in NAMES.split())


def check_callbacks(cfg: DictConfig, callbacks: dict[str, Any], loggers: list[Any]) -> None:
    """`UserError` for a callback that would break a promise, or that does what the Trainer is told not to do."""
    for name, callback in callbacks.items():
        kind = type(callback).__name__
        for refused, reason in CALLBACKS.items():
            if isinstance(callback, refused):
                raise UserError(f"callbacks.{name}: {kind} {reason}")
        if not loggers and isinstance(callback, DeviceStatsMonitor | LearningRateMonitor | ThroughputMonitor):
            raise UserError(f"callbacks.{name}: {kind} needs a logger; add logger=csv or tensorboard, or leave it out")
    for argument, base in (("enable_checkpointing", Checkpoint), ("enable_progress_bar", ProgressBar)):
        names = [f"'~callbacks.{name}'" for name, callback in callbacks.items() if isinstance(callback, base)]
        if names and cfg.trainer.get(argument) is False:
            raise UserError(f"trainer.{argument}=false: leave out what does it as well, add {' '.join(names)}")
        if len(names) > 1 and base is ProgressBar:
            raise UserError(f"callbacks: there can be one progress bar; leave out one, as in {names[0]}")


def check_trainer(trainer: Trainer, cfg: DictConfig, task: nn.Module | None) -> None:
    """`UserError` for a strategy or plugin that a run folder cannot be kept with, or a callback not for this task."""
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        strategy = cfg.trainer.strategy
        name = strategy if isinstance(strategy, str) else strategy._target_.rpartition(".")[2]
        text = f"trainer.strategy={name}: starts its processes in a way that loses what they have done"
        raise UserError(f"{text}; take trainer=ddp")
    if not isinstance(io := trainer.strategy.checkpoint_io, AtomicCheckpointIO):
        text = f"trainer.plugins: {type(io).__name__} can leave half a checkpoint behind; keep"
        raise UserError(f"{text} runlab.runs.checkpoints.AtomicCheckpointIO among them")
    if cfg.trainer.get("sync_batchnorm") and trainer.world_size > 1 and isinstance(trainer.accelerator, CPUAccelerator):
        raise UserError("trainer.sync_batchnorm=true: torch shares the statistics of GPUs alone; leave it out on CPUs")
    if trainer.num_nodes > 1 and launched_processes() == 1 and "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}: start a process on each machine by srun or torchrun,"
            " or set MASTER_ADDR and NODE_RANK on each"
        )
    thaws = any(isinstance(callback, BackboneFinetuning) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if thaws and task and not isinstance(getattr(task, "backbone", None), nn.Module):
        raise UserError(f"callbacks: BackboneFinetuning wants a `backbone`, which {type(task).__name__} does not have")


def check_schedules(trainer: Trainer) -> None:
    """`UserError` for a scheduler that cannot be saved, or not go on with a callback that adds parameters."""
    finetuning = [callback for callback in trainer.callbacks if isinstance(callback, BaseFinetuning)]  # type: ignore[attr-defined]
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        kind = type(scheduler).__name__
        try:
            scheduler.state_dict()
        except AttributeError as error:
            raise UserError(f"scheduler: {kind} cannot be saved ({error}); give it a function of Python's") from error
        of_torch = type(scheduler).__module__ == lr_scheduler.__name__
        if finetuning and of_torch and not isinstance(scheduler, TAKE_GROUPS):
            name = type(finetuning[0]).__name__
            text = f"scheduler: {kind} does not take in the parameters that {name} adds to the optimizer"
            raise UserError(f"{text}; take scheduler=none, step or plateau")
