"""Data loaders whose batches depend on (seed, epoch) alone, and which can begin in the middle of an epoch."""

import weakref
from collections.abc import Iterator
from itertools import count, repeat
from typing import Any

from lightning.pytorch.overrides.distributed import _IndexBatchSamplerWrapper
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from runlab.data.batch_order import BatchOrder
from runlab.data.fetching import RequestQueue, SeededFetcher, is_deterministic, request_loader
from runlab.data.generators import derive_seed
from runlab.data.seeding import seed_all
from runlab.data.wrapper import LoaderWrapper, Position, Progress, has_torch_iterator


class SeededLoader(LoaderWrapper):
    """A `DataLoader` whose order and random draws depend on (seed, epoch, number of the batch) alone.

    So they are the same for any number of workers. `rank` and `world` say which share of the data this process gets,
    see `BatchOrder`. For evaluation: before each batch is handed out the generators are seeded for the step as well.
    """

    _is_training = False

    def __init__(self, loader: DataLoader[Any], seed: int, progress: Progress, rank: int = 0, world: int = 1) -> None:
        super().__init__(loader, seed, progress)
        self._rank, self._world = rank, world
        self._order = BatchOrder(loader, rank, world, equal=self._is_training)
        self._fetcher = SeededFetcher(loader.dataset, loader.collate_fn, whole=loader.batch_sampler is None)
        self._draws = not is_deterministic(loader.dataset, loader.collate_fn)
        # Without workers DataLoader's own iterator is left out: it costs more than fetching a small batch.
        self._is_direct = not loader.num_workers and not loader.pin_memory
        dataset: Any = loader.dataset
        self._device = dataset.device if getattr(dataset, "takes_index_tensors", False) else None
        self._queue = RequestQueue()
        self._worker_loader: DataLoader[Any] | None = None  # kept, so that persistent workers live on
        self._live: list[Position] = []  # of the iterators that have begun and not ended

    def __len__(self) -> int:
        """How many batches this process gets in an epoch."""
        return len(self._order)

    def __iter__(self) -> Iterator[Any]:
        return self._iterate(None)

    def _iterate(self, resumed: Position | None) -> Iterator[Any]:
        # A generator: nothing is drawn or fetched before the first batch is asked for.
        position = self._start(resumed)
        seed = self._own_seed()
        batches = self._order.draw(seed, position.epoch, position.repetition, self._device if self._is_direct else None)
        if isinstance(recorder := self._user_loader.batch_sampler, _IndexBatchSamplerWrapper):
            # Where Lightning looks up which samples a prediction is of.
            recorder.seen_batch_indices = [b.tolist() if isinstance(b, Tensor) else list(b) for b in batches]
        seed = derive_seed(seed, position.epoch, position.repetition)
        self._live.append(position)
        try:
            for batch in self._fetch(batches[position.batches :], seed, position.batches):
                if not self._is_training:
                    seed_all(derive_seed(seed, position.batches * self._world + self._rank, 1))
                position.batches += 1
                yield batch
            self._finished = position
        finally:
            self._live.remove(position)

    def _start(self, resumed: Position | None) -> Position:  # noqa: ARG002
        return self._next_pass()

    def _fetch(self, batches: Any, seed: int, done: int) -> Iterator[Any]:
        if self._is_direct and not self._draws:
            return map(self._fetcher.unseeded, batches)
        numbers = count(done * self._world + self._rank, self._world)  # each process has numbers of its own
        seeds = (derive_seed(seed, number, 0) for number in numbers) if self._draws else repeat(None)
        requests = zip(seeds, batches, strict=False)
        if self._is_direct:
            return map(self._fetcher.__getitems__, requests)
        self._queue.requests = requests
        if self._worker_loader is None:
            self._worker_loader = request_loader(self._user_loader, self._fetcher, self._queue)
        if self._worker_loader.generator:
            self._worker_loader.generator.manual_seed(seed)  # gives workers their first seeds
        return iter(self._worker_loader)

    @property
    def _iterator(self) -> Any:
        return None if self._worker_loader is None else self._worker_loader._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:  # Lightning ends a DataLoader's workers so
        if self._worker_loader is not None:
            self._worker_loader._iterator = value

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_live": [], "_queue": RequestQueue(), "_worker_loader": None}


class ResumableLoader(SeededLoader):
    """A `SeededLoader` for training: it can go on after the batches that were seen, without reading these again.

    Lightning keeps its state in checkpoints.
    """

    _is_training = True

    def __init__(self, loader: DataLoader[Any], seed: int, progress: Progress, rank: int = 0, world: int = 1) -> None:
        super().__init__(loader, seed, progress, rank, world)
        self._loaded: Position | None = None  # until the iterator that resumes there has begun
        self._claim: weakref.ref[Position] | None = None  # the position's copy that this iterator holds

    def state_dict(self) -> dict[str, int]:
        """Where the iteration stands; empty between two passes."""
        epoch = self._progress()[0]
        # Of several, the first to begin in this epoch is the Trainer's: others are a callback's, in the midst of it.
        live = sorted(self._live, key=lambda position: position.epoch != epoch)
        position = live[0] if live else self._loaded
        return dict(vars(position)) if position else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Have the next iterator resume where the state says, if it begins in the same epoch."""
        self._loaded, self._claim = Position(**state) if state else None, None

    def __iter__(self) -> Iterator[Any]:
        resumed = None
        # The next one to be made, not to begin: a callback may go through the data before the Trainer does. But if that
        # one was thrown away, it is free again.
        if self._loaded and not (self._claim and self._claim()):
            resumed = Position(**vars(self._loaded))
            self._claim = weakref.ref(resumed)
        return self._iterate(resumed)

    def _start(self, resumed: Position | None) -> Position:
        if resumed is None:
            return self._next_pass()
        self._loaded = self._claim = None
        return resumed if resumed.epoch == self._progress()[0] else self._next_pass()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_claim": None}


def is_ordinary(loader: Any) -> bool:
    """Whether the batches of a loader are known by their indices, so that it can be shared and resumed."""
    if not has_torch_iterator(loader) or isinstance(loader.dataset, IterableDataset):
        return False
    try:
        len(loader)
    except (TypeError, NotImplementedError):
        return False
    return True
