"""What stands in for a user's data loader, and the kind that takes any iterable."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from torch.utils.data import DataLoader

from runlab.data.generators import derive_seed, generators_of, seed_generator
from runlab.data.seeding import seed_all

# Gives the number of the epoch, how many of its batches the Trainer has begun, and the loader's number among several.
# It is asked when the first batch is: a resumed Trainer makes its iterators before it has settled on the epoch.
Progress = Callable[[], tuple[int, int, int]]


class Position:
    """How many batches of which pass over the data have been handed out; a pass is an epoch, or a repetition in one."""

    def __init__(self, epoch: int, repetition: int, batches: int) -> None:
        self.epoch, self.repetition, self.batches = epoch, repetition, batches


class LoaderWrapper:
    """What stands in for a user's loader: it is iterated in its place, and has its attributes."""

    def __init__(self, loader: Any, seed: int, progress: Progress) -> None:
        self._user_loader, self._seed, self._progress = loader, seed, progress
        self._finished: Position | None = None  # the last pass that has come to its end

    def __getattr__(self, name: str) -> Any:
        # A copy asks before it has attributes; and how to copy the user's loader is no answer to how to copy this.
        if name.startswith("__") or "_user_loader" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._user_loader, name)

    def _own_seed(self) -> int:
        """The seed of this loader: loaders side by side must not all draw the same order."""
        number = self._progress()[2]
        return derive_seed(self._seed, number) if number else self._seed

    def _next_pass(self) -> Position:
        """The start of this epoch, or of a repetition in it, where a short loader is repeated beside a long one."""
        epoch, begun, _ = self._progress()
        last = self._finished
        repeated = last is not None and last.epoch == epoch and begun > 0
        return Position(epoch, last.repetition + 1 if last and repeated else 0, 0)


class SeededIterable(LoaderWrapper):
    """Any iterable, with the random generators seeded before each batch: an epoch that is begun anew draws the same.

    What it gives is up to the user's code: it is not shared among processes, and not resumed within an epoch. All
    processes are seeded alike, as by Lightning: user's code that shuffles first and then takes its share relies on it.
    """

    def __len__(self) -> int:
        return len(self._user_loader)

    def __iter__(self) -> Iterator[Any]:
        position, loader = self._next_pass(), self._user_loader
        seed = derive_seed(self._own_seed(), position.epoch, position.repetition)
        seed_all(seed)  # workers are seeded from torch's generator
        for generator in generators_of(loader):
            seed_generator(generator, seed)
        # Workers that live on would go on with the generators of the epoch before.
        is_persistent = has_torch_iterator(loader) and loader.persistent_workers
        iterator = loader._get_iterator() if is_persistent else iter(loader)
        for number in count():
            seed_all(derive_seed(seed, number))
            try:
                batch = next(iterator)
            except StopIteration:
                self._finished = position
                return
            yield batch

    @property
    def _iterator(self) -> Any:
        return self._user_loader._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:  # Lightning ends a DataLoader's workers so
        self._user_loader._iterator = value


def has_torch_iterator(loader: Any) -> bool:
    """Whether it is a `DataLoader`, or of a subclass that leaves iterating to it."""
    methods = ("__iter__", "__len__", "_get_iterator")
    return isinstance(loader, DataLoader) and all(
        getattr(type(loader), name) is getattr(DataLoader, name) for name in methods
    )
