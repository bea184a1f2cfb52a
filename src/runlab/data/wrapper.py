"""What stands in for a user's loader, as the wrappers in `loaders` share it."""

import sys
from collections.abc import Callable
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from runlab.data.fetching import name_of
from runlab.data.kept_state import KeptState
from runlab.data.seeding import derive_seed

# Gives the number of the epoch, how many of its batches the Trainer has begun, and the loader's number among several.
# It is asked when the first batch is: a resumed Trainer makes its iterators before it has settled on the epoch.
Progress = Callable[[Any], tuple[int, int, int]]


class LoaderWrapper:
    """Stands in for a user's loader: it is iterated in its place, and has its attributes."""

    def __init__(self, loader: Any, seed: int, progress: Progress, *, training: bool) -> None:
        self._user_loader, self._seed, self._progress, self._training = loader, seed, progress, training
        self._iterated = loader  # a DataLoader here may have workers
        self._finished: dict[str, Any] = {}  # the position of the last pass over the data that has come to its end
        self._reported: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # how to copy the user's loader, say, is no answer to how to copy this
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._user_loader, name)

    @property
    def _iterator(self) -> Any:
        return self._iterated._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:  # Lightning ends a DataLoader's workers so
        self._iterated._iterator = value

    def _next_pass(self) -> tuple[int, dict[str, Any]]:
        """The loader's seed, and the start of this epoch, or of a repetition in it of a loader shorter than others."""
        epoch, begun, number = self._progress(self)
        is_repeated = begun > 0 and self._finished.get("epoch") == epoch
        repetition = self._finished["repetition"] + 1 if is_repeated else 0
        seed = derive_seed(self._seed, number) if number else self._seed  # loaders side by side draw different orders
        return seed, {"epoch": epoch, "repetition": repetition, "batches": 0}

    def _report_lost(self, kept: KeptState) -> None:
        for name in kept.lost():
            self._report_unequal(f"`{name}` lasts from epoch to epoch and cannot be saved")

    def _report_unequal(self, reason: str) -> None:
        if self._training:
            report_unequal(name_of(self._user_loader), reason, self._reported)


def report_unequal(name: str, reason: str, reported: set[str]) -> None:
    """Say in a line, once, why a resumed run will not equal this one; `reported` are the reasons said before."""
    if reason not in reported:
        reported.add(reason)
        text = f"training data ({name}): {reason}, so a resumed run will come out differently"
        rank_zero_only(print)(text, file=sys.stderr)


def report_outgrown(name: str, kept: KeptState, reported: set[str]) -> None:
    """The same of what has changed and cannot be saved."""
    for value in kept.outgrown():
        report_unequal(name, f"`{value}` has changed and is too large to be saved", reported)
