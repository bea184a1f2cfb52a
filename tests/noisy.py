"""A callback of a user's own that logs and warns, with two libraries beside it that do."""

import logging
import warnings
from typing import Any

from lightning import Callback, Trainer
from mine import Teacher

log = logging.getLogger(__name__)


class Noisy(Callback):
    """Says something in each way at the start of the training; `fails` after it."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def on_train_start(self, trainer: Trainer, *unused: Any) -> None:  # noqa: ARG002
        log.debug("a detail")
        log.info("seen %d samples", 7)
        log.warning("a remark")
        warnings.warn("a doubt", UserWarning, stacklevel=1)
        # As a library logs: from a file of its own, which hands nothing on.
        library = logging.getLogger("library")
        library.propagate = False
        for level, text in ((logging.INFO, "library chat"), (logging.WARNING, "library worry")):
            library.handle(library.makeRecord("library", level, logging.__file__, 1, text, (), None))
        if self.fails:
            raise RuntimeError("it broke")


class Keeper(Teacher):
    """Keeps its arguments by `save_hyperparameters`, logs one of them and `fails` with it."""

    def __init__(self, lr: float, token: str, fails: bool) -> None:
        super().__init__(lr)
        self.save_hyperparameters()
        log.info("the token is %s", token)
        if fails:
            raise ValueError(f"no such token: {token}")
