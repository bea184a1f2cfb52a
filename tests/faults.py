"""Callbacks that fail or wait, for tests of what happens then."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from runlab.training.stop import StopOnSignal


class Fault(Callback):
    """After optimizer step `step` of rank `rank`, in a run with seed `of`: `raised`, or a signal's name."""

    def __init__(self, how: str, rank: int, step: int, seed: int, of: int) -> None:
        self.how, self.rank, self.step, self.wanted = how, rank, step, seed == of

    def on_train_batch_end(self, trainer: Trainer, *batch: Any) -> None:  # noqa: ARG002
        if not self.wanted or (trainer.global_rank, trainer.global_step) != (self.rank, self.step):
            return
        if self.how == "raised":
            raise RuntimeError(f"a fault of rank {self.rank}")
        os.kill(os.getpid(), getattr(signal, self.how))


class InterruptAt(Callback):
    """Sends this process a signal, Ctrl-C's if none is named, at the start of training batch `batch`, from 1."""

    def __init__(self, batch: int, signum: int = signal.SIGINT) -> None:
        self.batch, self.signum = batch, signum

    def on_train_batch_start(self, trainer: Trainer, *batch: Any) -> None:  # noqa: ARG002
        if trainer.fit_loop.total_batch_idx + 1 == self.batch:
            os.kill(os.getpid(), self.signum)


class Slow(Callback):
    """Makes each training batch take 20 milliseconds longer, so that a kill meets the middle of an epoch."""

    def on_train_batch_end(self, *batch: Any) -> None:  # noqa: ARG002
        time.sleep(0.02)


class Held(Callback):
    """In a run that has not been resumed, each batch from optimizer step `step` on waits a minute for a signal."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        provenance = json.loads(Path(trainer.default_root_dir, "provenance.json").read_text())
        self.over = time.monotonic() + 60 * ("resumed" not in provenance)
        [self.stop] = [callback for callback in trainer.callbacks if isinstance(callback, StopOnSignal)]  # type: ignore[attr-defined]

    def on_train_batch_end(self, trainer: Trainer, *batch: Any) -> None:  # noqa: ARG002
        while trainer.global_step >= self.step and not self.stop.signum and time.monotonic() < self.over:
            time.sleep(0.02)


def fault(how: str, rank: int = 0, step: int = 3, seed: int = 0) -> str:
    """The override that adds it to a run."""
    values = f"how: {how}, rank: {rank}, step: {step}, seed: {seed}"
    return f"+callbacks.fault={{_target_: faults.Fault, {values}, of: '${{seed}}'}}"
