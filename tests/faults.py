"""Callbacks that fail, for tests of what happens then."""

import os
import signal
import time
from typing import Any

from lightning import Callback, Trainer


class Fault(Callback):
    """At optimizer step `step` of rank `rank` an exception is `raised`, or the process is `killed`."""

    def __init__(self, how: str, rank: int, step: int) -> None:
        self.how, self.rank, self.step = how, rank, step

    def on_train_batch_end(self, trainer: Trainer, *batch: Any) -> None:  # noqa: ARG002
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(f"a fault of rank {self.rank}")
