"""What a run prints of its progress, and which remarks of the libraries are kept out of it."""

import logging
import sys
import warnings
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from runlab.config.processes import in_sweep
from runlab.config.resolvers import score
from runlab.training.logged_values import epoch_metrics, logs_this_batch


class LearningRate(Callback):
    """Logs `train/lr`, the rate of the first optimizer's first parameter group, where training values are logged."""

    def on_train_batch_start(self, trainer: Trainer, *batch: Any) -> None:  # noqa: ARG002
        if not logs_this_batch(trainer):
            return
        groups = trainer.optimizers[0].param_groups if trainer.optimizers else []  # none, where the task trains nothing
        if groups:
            rate = groups[0]["lr"]
            step = trainer.fit_loop.epoch_loop._batches_that_stepped  # the x axis of what Lightning logs
            for logger in trainer.loggers:
                logger.log_metrics({"train/lr": rate}, step)


class EpochLines(TQDMProgressBar):
    """A line an epoch instead of a bar: `epoch 1/5  train/loss 0.3120  val/loss 0.3541`."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        metrics = epoch_metrics(trainer)
        if trainer.is_global_zero:
            scores = (f"{name} {score(float(value))}" for name, value in metrics.items())
            total = f"/{trainer.max_epochs}" if trainer.max_epochs != -1 else ""
            print("  ".join([f"epoch {trainer.current_epoch + 1}{total}", *scores]), flush=True)


def bar(refresh_rate: int) -> TQDMProgressBar:
    """A bar on a terminal, updated every `refresh_rate` batches; a line an epoch elsewhere; in a sweep nothing."""
    if in_sweep():
        return TQDMProgressBar(refresh_rate=0)
    return TQDMProgressBar(refresh_rate=refresh_rate) if sys.stdout.isatty() else EpochLines(refresh_rate=0)


def filter_warnings() -> None:
    """Keep out of the output what the libraries say at each run and what the engine sees to."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # devices found, and advertisements
    for name in ("callbacks.model_summary", "profilers.profiler"):  # what these print was asked for
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.INFO)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # that processes find each other
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)  # that it makes an experiment
    for message in (
        ".*isinstance.treespec, LeafSpec",  # Lightning 2.6 calls torch in a way that torch 2.15 deprecates
        "GPU available but not used",  # trainer.accelerator=cpu is a choice
        ".*does not have many workers",  # for data in memory 0 is the fastest
        "Checkpoint directory .* exists and is not empty",  # a resumed run's own
        "Total length of .* across ranks is zero",  # no validation data is a choice
        "The `srun` command is available on your system but is not used",  # where SLURM is, not every run is its job
        "The number of training batches .* is smaller than the logging interval",  # ResumableFitLoop lowers that
        "Be aware that when using `ckpt_path`",  # dropping one is a choice; RunState sees to the others
        "It is recommended to use `self.log.*sync_dist=True",  # LoggedValues averages over processes
    ):
        warnings.filterwarnings("ignore", message)
