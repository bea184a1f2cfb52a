"""Wrappers of a user's data loader, which repeat an epoch exactly and, where they can, resume in the middle of one."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from lightning.pytorch.overrides.distributed import _IndexBatchSamplerWrapper
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from runlab.data.batch_order import BatchOrder
from runlab.data.fetching import RequestQueue, SeededFetcher, is_deterministic, request_loader
from runlab.data.in_memory import InMemoryDataset
from runlab.data.seeding import derive_seed, generators_of, seed_all

# Gives the number of the epoch, how many of its batches the Trainer has begun, and the loader's number among several.
# It is asked when the first batch is: a resumed Trainer makes its iterators before it has settled on the epoch.
Progress = Callable[[Any], tuple[int, int, int]]


class LoaderWrapper:
    """Stands in for a user's loader: it is iterated in its place, and has its attributes."""

    def __init__(self, loader: Any, seed: int, progress: Progress) -> None:
        self._user_loader, self._seed, self._progress = loader, seed, progress
        self._iterated = loader  # a DataLoader here may have workers
        self._finished: dict[str, int] = {}  # the position of the last pass over the data that has come to its end

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

    def _next_pass(self) -> tuple[int, dict[str, int]]:
        """The loader's seed, and the start of this epoch, or of a repetition in it of a loader shorter than others."""
        epoch, begun, number = self._progress(self)
        is_repeated = begun > 0 and self._finished.get("epoch") == epoch
        repetition = self._finished["repetition"] + 1 if is_repeated else 0
        seed = derive_seed(self._seed, number) if number else self._seed  # loaders side by side draw different orders
        return seed, {"epoch": epoch, "repetition": repetition, "batches": 0}


class SeededIterable(LoaderWrapper):
    """Any iterable, with the random generators seeded before each batch: an epoch that is begun anew draws the same.

    What it gives is up to the user's code: it is not shared among processes, and not resumed within an epoch. All
    processes are seeded alike, as by Lightning: user's code that shuffles first and then takes its share relies on it.
    """

    def __len__(self) -> int:
        return len(self._user_loader)

    def __iter__(self) -> Iterator[Any]:
        loader, (seed, position) = self._user_loader, self._next_pass()
        seed = derive_seed(seed, position["epoch"], position["repetition"])
        seed_all(seed, generators_of(loader))  # workers are seeded from torch's generator
        if isinstance(loader, DataLoader):
            loader._iterator = None  # workers that live on would go on with the generators of the epoch before
        iterator = iter(loader)
        for number in count():
            seed_all(derive_seed(seed, number))
            try:
                batch = next(iterator)
            except StopIteration:
                self._finished = position
                return
            yield batch


class ResumableLoader(LoaderWrapper):
    """A `DataLoader` whose order and random draws depend on (seed, epoch, number of the batch) alone.

    So they are the same for any number of workers, and a training can go on after the batches that were seen, without
    reading these again: Lightning keeps this loader's state in checkpoints. `rank` and `world` say which share of the
    data this process gets, see `BatchOrder`. For evaluation the generators are seeded before each batch is handed out,
    for the step as well.
    """

    def __init__(
        self, loader: DataLoader[Any], seed: int, progress: Progress, rank: int = 0, world: int = 1, *, training: bool
    ) -> None:
        super().__init__(loader, seed, progress)
        self._rank, self._world, self._training = rank, world, training
        self._order = BatchOrder(loader, rank, world, equal=training)
        self._fetcher = SeededFetcher(loader)
        self._draws = not is_deterministic(loader.dataset, loader.collate_fn)
        # Without workers DataLoader's own iterator is left out: it costs more than fetching a small batch.
        self._is_direct = not loader.num_workers and not loader.pin_memory
        self._device = loader.dataset.device if isinstance(loader.dataset, InMemoryDataset) else None
        self._requests = RequestQueue()
        self._iterated = request_loader(loader, self._fetcher, self._requests)
        self._position: dict[str, int] = {}  # where the Trainer's iterator stands
        self._resumed: dict[str, int] = {}  # where the next iterator begins

    def __len__(self) -> int:
        """How many batches this process gets in an epoch."""
        return len(self._order)

    def state_dict(self) -> dict[str, int]:
        """How many batches of which pass over the data the Trainer has got; empty if it has begun none."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Have the iterator that is made next resume where the state says, if it begins in the same epoch."""
        self._position = self._resumed = dict(state)

    def __iter__(self) -> Iterator[Any]:
        # The next one to be made, not to begin: a callback may go through the data before the Trainer does.
        resumed, self._resumed = self._resumed, {}
        return self._iterate(resumed)

    def _iterate(self, position: dict[str, int]) -> Iterator[Any]:
        # A generator: nothing is drawn or fetched before the first batch is asked for.
        seed, start = self._next_pass()
        if position.get("epoch") != start["epoch"]:
            position = start
        if self._position is self._finished or self._position.get("epoch") != start["epoch"]:
            self._position = position  # else another has begun: this one is a callback's, in its midst
        order = position["epoch"], position["repetition"]
        batches = self._order.draw(seed, *order, self._device if self._is_direct else None)
        if isinstance(recorder := self._user_loader.batch_sampler, _IndexBatchSamplerWrapper):
            # Where Lightning looks up which samples a prediction is of.
            recorder.seen_batch_indices = [b.tolist() if isinstance(b, Tensor) else list(b) for b in batches]
        seed = derive_seed(seed, *order)
        try:
            for batch in self._fetch(batches[position["batches"] :], seed, position["batches"]):
                if not self._training:
                    seed_all(derive_seed(seed, position["batches"] * self._world + self._rank, 1))
                position["batches"] += 1
                yield batch
            if self._position is position:
                self._finished = position
        finally:
            if self._position is position and self._finished is not position:  # thrown away
                self._position = {}

    def _fetch(self, batches: Any, seed: int, done: int) -> Iterator[Any]:
        if self._is_direct and not self._draws:
            return map(self._fetcher.fetch, batches)
        numbers = count(done * self._world + self._rank, self._world)  # each process has numbers of its own
        requests = ((derive_seed(seed, number, 0), batch) for number, batch in zip(numbers, batches, strict=False))
        if self._is_direct:
            return map(self._fetcher.__getitems__, requests)
        self._requests.requests = requests
        self._iterated.generator.manual_seed(seed)  # gives workers their first seeds
        return iter(self._iterated)


def is_ordinary(loader: Any) -> bool:
    """Whether the batches of a loader are known by their indices, so that it can be shared and resumed."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return False
    if any(
        getattr(type(loader), name) is not getattr(DataLoader, name)
        for name in ("__iter__", "__len__", "_get_iterator")
    ):
        return False
    try:
        len(loader)
    except (TypeError, NotImplementedError):
        return False
    return True
