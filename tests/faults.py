"""Callbacks that fail, for tests of what happens then."""

import os
import signal
from typing import Any

from lightning import Callback, Trainer


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


def fault(how: str, rank: int = 0, step: int = 3, seed: int = 0) -> str:
    """The override that adds it to a run."""
    values = f"how: {how}, rank: {rank}, step: {step}, seed: {seed}"
    return f"+callbacks.fault={{_target_: faults.Fault, {values}, of: '${{seed}}'}}"
