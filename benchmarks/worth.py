"""Section g: what each part of the lean step is worth, taken out alone."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import steps
import torch
from lightning import Trainer
from lightning.pytorch import loggers
from measure import Row, compared

from digits import data
from runlab.tracking.loggers import TensorBoardLogger
from runlab.training import build
from runlab.training.fit_loop import use_engine_loops

N = 7
SIZE = 16  # samples in a batch: the smaller it is, the more of a step is overhead
Out = Callable[[], AbstractContextManager[Any]]


@contextmanager
def filled() -> Iterator[None]:
    """Deterministic mode writes each new tensor: what the project has switched off is on again for the run."""
    deterministic: Any = torch.utils.deterministic
    train = Trainer.fit

    def fit(*args: Any, **kwargs: Any) -> None:
        deterministic.fill_uninitialized_memory = True
        train(*args, **kwargs)

    with patch.object(Trainer, "fit", fit):
        yield


OUT: dict[str, Out] = {
    "the transform's two steps as one": lambda: patch.object(data, "fused", lambda transform: transform),
    "the lean loop in place of Lightning's": lambda: patch.object(
        build, "use_engine_loops", lambda trainer, seed, _: use_engine_loops(trainer, seed, fast=False)
    ),
    "TensorBoard's writer left to itself": lambda: patch.object(
        TensorBoardLogger, "save", loggers.TensorBoardLogger.save
    ),
    "new tensors left unfilled": filled,
}


def rows(device: str) -> list[Row]:
    times: dict[str, list[float]] = {name: [] for name in ("", *OUT)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(N):
            for name in times:
                with OUT[name]() if name else ExitStack():
                    clock = steps.Clock(steps.WARM, steps.STEPS[SIZE], device)
                    steps.ours(SIZE, clock)
                times[name].append(clock.microseconds)
    return [compared(f"optimizer step, batch {SIZE}, without: {name}", times[name], times[""], "µs") for name in OUT]
