"""How a run reports its progress, and ends on a signal."""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from runlab.config.processes import in_sweep


class StopOnSignal(Callback):
    """Ctrl-C and SIGTERM end a run after the batch at hand, with `last.ckpt` saved; one a second later ends it at once.

    The exit status is 128 + the signal's number: 130 for Ctrl-C, 143 for SIGTERM. Under SLURM a signal only saves: it
    will end the run itself, and queues again what has not ended by then. Submitit's SIGUSR2, at which a job asks to be
    queued again, is answered after the saving. A rank that fails ends the others.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir, self.signum, self.since = Path(run_dir), 0, 0.0
        self.queue_again: Any = signal.getsignal(signal.SIGUSR2)
        self.slurm = "SLURM_JOB_ID" in os.environ

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        # In place of Lightning's own, which would end the process with status 0 or, under SLURM, save a checkpoint that
        # a later test would load in place of the best one. It restores what was there before.
        signums = [signal.SIGINT, signal.SIGTERM, *[signal.SIGUSR1] * self.slurm]
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            for signum in [*signums, *[signal.SIGUSR2] * callable(self.queue_again)]:
                signal.signal(signum, self._note)

    on_train_start = on_test_start = on_sanity_check_start

    def _note(self, signum: int, frame: object) -> None:  # noqa: ARG002
        # One Ctrl-C or SIGTERM may come twice: from the terminal or SLURM to all processes, and from a process above.
        if self.signum and time.monotonic() - self.since > 1:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        elif not self.signum:
            self.signum, self.since = signum, time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:  # noqa: ARG002
        # Not after an epoch's last batch, to which its validation belongs. Several ranks agree now and then.
        agree = trainer.world_size > 1 and trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        alone = self.signum and trainer.world_size == 1
        if (alone or agree) and not trainer.is_last_batch:
            self._stop_if_asked(trainer, save=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._stop_if_asked(trainer, save=False)  # last.ckpt is the end of the epoch before

    on_train_end = on_test_end = on_train_epoch_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        if trainer.strategy.launcher:  # its processes would wait for this one
            trainer.strategy.launcher.kill(signal.SIGKILL)

    def _stop_if_asked(self, trainer: Trainer, save: bool) -> None:
        if not trainer.strategy.reduce_boolean_decision(bool(self.signum), all=False):
            return
        if save:
            trainer.save_checkpoint(self.run_dir / "checkpoints/last.ckpt")
        if self.slurm and self.signum != signal.SIGINT:
            signum, self.signum = self.signum, 0
            if signum == signal.SIGUSR2:
                self.queue_again(signum, None)
            return
        if trainer.is_global_zero:
            where = f"stopped at epoch {trainer.current_epoch}, optimizer step {trainer.global_step}"
            command = f"python train.py resume={os.path.relpath(self.run_dir)}"
            if in_sweep():
                command = f"the same command and hydra.sweep.dir={os.path.relpath(self.run_dir.parent)}"
            print(where + f"; resume with: {command}" * (self.run_dir / "checkpoints").exists(), file=sys.stderr)
        raise SystemExit(128 + (self.signum or signal.SIGTERM))


class LearningRate(Callback):
    """Logs `train/lr`, the rate of the first parameter group, where `train/loss` is logged."""

    def on_train_batch_start(self, trainer: Trainer, *batch: Any) -> None:  # noqa: ARG002
        step = trainer.global_step
        if (step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            for logger in trainer.loggers:
                logger.log_metrics({"train/lr": trainer.optimizers[0].param_groups[0]["lr"]}, step)


class EpochLines(TQDMProgressBar):
    """A line an epoch instead of a bar: `epoch 1/5  train/loss 0.3120  val/loss 0.3541`."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if trainer.is_global_zero:
            metrics = (f"{name} {value:.4f}" for name, value in trainer.callback_metrics.items() if "/" in name)
            print("  ".join([f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", *metrics]), flush=True)


def bar(refresh_rate: int) -> TQDMProgressBar:
    """A bar on a terminal, updated every `refresh_rate` batches; a line an epoch elsewhere; in a sweep nothing."""
    if in_sweep():
        return TQDMProgressBar(refresh_rate=0)
    return TQDMProgressBar(refresh_rate=refresh_rate) if sys.stdout.isatty() else EpochLines(refresh_rate=0)


def filter_warnings() -> None:
    """Keep out of the output what the libraries say at each run and a user can do nothing about."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # devices found, and its own shop
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # that processes find each other
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)  # that it makes an experiment
    for message in (
        ".*isinstance.treespec, LeafSpec",  # Lightning 2.6 calls torch in a way that torch 2.15 deprecates
        ".*does not have many workers",  # 0 is the fastest for data in memory; who reads files sees it in the progress
        "Checkpoint directory .* exists and is not empty",  # a resumed run's own
        "The dirpath has changed",  # ckpt_path may come from another run
        ".*your dataloader is not resumable",  # it is, without a state of its own
        "Total length of .* across ranks is zero",  # data.val_size=0 is a choice
        "The `srun` command is available on your system but is not used",  # where SLURM is, not every run is its job
        "It is recommended to use `self.log.*sync_dist=True",  # the example's counts are added up over all devices
    ):
        warnings.filterwarnings("ignore", message)
