"""Ctrl-C and SIGTERM: a run ends after the batch at hand, with its work saved."""

import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from runlab.config.processes import POSIX, SIGKILL, in_sweep
from runlab.config.resolvers import path_as_typed
from runlab.data.connector import unresumable
from runlab.runs.files import CHECKPOINTS, LAST


class StopOnSignal(Callback):
    """Ctrl-C and SIGTERM end a run after the batch at hand, with `last.ckpt` saved; one a second later ends it at once.

    The exit status is 128 + the signal's number: 130 for Ctrl-C, 143 for SIGTERM. Under SLURM a signal only saves: it
    will end the run itself, and queues again what has not ended by then. Submitit's SIGUSR2, at which a job asks to be
    queued again, is answered after the saving. A rank that fails ends the others.

    Where the training data cannot be resumed within an epoch nothing is saved in the middle of one: the run resumes at
    the end of the epoch before. A line says so when training begins.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir, self.signum, self.since = Path(run_dir), 0, 0.0
        self.requeue: Any = signal.getsignal(signal.SIGUSR2) if POSIX else None
        self.slurm = POSIX and "SLURM_JOB_ID" in os.environ

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        if stage == "fit":
            trainer.fit_loop.epoch_loop.after_batch.append(partial(self._after_batch, trainer))

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        # In place of Lightning's own, which would end the process with status 0 or, under SLURM, save a checkpoint that
        # a later test would load in place of the best one. It restores what was there before.
        signums = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if self.slurm else [])]
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            for signum in [*signums, *([signal.SIGUSR2] if callable(self.requeue) else [])]:
                signal.signal(signum, self._note)

    on_test_start = on_sanity_check_start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_sanity_check_start(trainer, pl_module)
        if trainer.is_global_zero and (loaders := unresumable(trainer)):
            names = ", ".join(loaders)
            print(
                f"training data ({names}): cannot be resumed within an epoch, a stopped run resumes at the end of the"
                " epoch before; a loader with state_dict and load_state_dict can be",
                file=sys.stderr,
            )

    def _note(self, signum: int, frame: object) -> None:  # noqa: ARG002
        # One Ctrl-C or SIGTERM may come twice: from the terminal or SLURM to all processes, and from a parent process.
        if self.signum and time.monotonic() - self.since > 1:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        elif not self.signum:
            self.signum, self.since = signum, time.monotonic()

    def _after_batch(self, trainer: Trainer, ends: bool) -> None:
        # Not called after an epoch's last batch. Several ranks agree now and then.
        if ends:
            return
        if trainer.world_size == 1:
            if self.signum:
                self._stop_if_asked(trainer, inside_epoch=True)
        elif (trainer.fit_loop.total_batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._stop_if_asked(trainer, inside_epoch=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._stop_if_asked(trainer, inside_epoch=False)  # last.ckpt is the end of the epoch before

    on_train_end = on_test_end = on_train_epoch_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        if trainer.strategy.launcher:  # its processes would wait for this one
            trainer.strategy.launcher.kill(SIGKILL)

    def _stop_if_asked(self, trainer: Trainer, inside_epoch: bool) -> None:
        if not trainer.strategy.reduce_boolean_decision(bool(self.signum), all=False):
            return
        if inside_epoch and not unresumable(trainer):
            trainer.save_checkpoint(self.run_dir / LAST)
        if self.slurm and self.signum != signal.SIGINT:
            signum, self.signum = self.signum, 0
            if signum == signal.SIGUSR2:
                self.requeue(signum, None)
            return
        if trainer.is_global_zero:
            where = f"stopped at epoch {trainer.current_epoch}, optimizer step {trainer.global_step}"
            command = f"python train.py resume={path_as_typed(self.run_dir)}"
            if in_sweep():
                command = f"the same command and hydra.sweep.dir={path_as_typed(self.run_dir.parent)}"
            print(where + f"; resume with: {command}" * (self.run_dir / CHECKPOINTS).exists(), file=sys.stderr)
        raise SystemExit(128 + (self.signum or signal.SIGTERM))
