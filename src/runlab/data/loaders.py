"""Wrappers of a user's data loader, which repeat an epoch exactly and, where they can, resume in the middle of one."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from lightning.pytorch.overrides.distributed import _IndexBatchSamplerWrapper
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from runlab.config.messages import UserError
from runlab.data.batch_order import BatchOrder
from runlab.data.fetching import RequestQueue, SeededFetcher, is_deterministic, name_of, request_loader
from runlab.data.in_memory import InMemoryDataset
from runlab.data.kept_state import KeptState
from runlab.data.seeding import derive_seed, generators_of, seed_all
from runlab.data.workers import started
from runlab.data.wrapper import LoaderWrapper, Progress, report_outgrown


class SeededIterable(LoaderWrapper):
    """Any iterable, with the random generators seeded before each batch: an epoch that is begun anew draws the same.

    What it gives is up to the user's code: it is not shared among processes, and not resumed within an epoch. All
    processes are seeded alike, as by Lightning: user's code that shuffles first and then takes its share relies on it.
    What it keeps from one epoch to the next is saved, as far as it is plain.
    """

    def __init__(self, loader: Any, seed: int, progress: Progress, *, training: bool = True) -> None:
        super().__init__(loader, seed, progress, training=training)
        is_loader = isinstance(loader, DataLoader)
        owners = [loader.dataset, loader.batch_sampler, loader.sampler] if is_loader else [loader]
        self._kept = KeptState(*owners)

    def __len__(self) -> int:
        return len(self._user_loader)

    def state_dict(self) -> dict[str, Any]:
        return self._kept.changes()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kept.restore(state)

    def __iter__(self) -> Iterator[Any]:
        loader, (seed, position) = self._user_loader, self._next_pass()
        seed = derive_seed(seed, position["epoch"], position["repetition"])
        seed_all(seed, generators_of(loader))  # workers are seeded from torch's generator
        if isinstance(loader, DataLoader):
            loader._iterator = None  # workers that live on would go on with the generators of the epoch before
        iterator = started(loader, loader) if isinstance(loader, DataLoader) else iter(loader)
        for number in count():
            seed_all(derive_seed(seed, number))
            try:
                batch = next(iterator)
            except StopIteration:
                if number == 0 and self._training:
                    text = f"training data ({name_of(loader)}): no batch came in epoch {position['epoch'] + 1}"
                    raise UserError(f"{text}; an empty source, or one that can be read only once?") from None
                self._finished = position
                self._report_lost(self._kept)
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
        super().__init__(loader, seed, progress, training=training)
        self._rank, self._world = rank, world
        self._order = BatchOrder(loader, rank, world, equal=training)
        self._fetcher = SeededFetcher(loader)
        self._draws = not is_deterministic(loader.dataset, loader.collate_fn)
        # Without workers DataLoader's own iterator is left out: it costs more than fetching a small batch.
        self._is_direct = not loader.num_workers and not loader.pin_memory
        self._device = loader.dataset.device if isinstance(loader.dataset, InMemoryDataset) else None
        samplers = [s for s in self._order.samplers if training and type(s) not in (RandomSampler, SequentialSampler)]
        self._kept = KeptState(*samplers, skip=(loader.dataset,))
        is_ours = type(loader.dataset) is InMemoryDataset
        self._kept_by_data = KeptState(*[loader.dataset] * (training and not is_ours), limit=100)
        self._requests = RequestQueue()
        self._iterated = request_loader(loader, self._fetcher, self._requests)
        self._position: dict[str, Any] = {}  # where the Trainer's iterator stands
        self._resumed: dict[str, Any] = {}  # where the next iterator begins

    def __len__(self) -> int:
        """How many batches this process gets in an epoch."""
        return len(self._order)

    def state_dict(self) -> dict[str, Any]:
        """Which pass over the data this is, and how many of its batches the Trainer has got; empty before the first.

        And what the user's samplers and data set keep: `kept` now, and `before`, when the order of the pass was drawn.
        """
        kept = [self._kept.changes(), self._kept_by_data.changes()]
        return self._position | ({"kept": kept} if any(kept) else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have the iterator that is made next resume where the state says, if it begins in the same epoch."""
        self._position = self._resumed = dict(state)
        if kept := self._position.pop("kept", None):
            self._kept.restore(kept[0])
            self._kept_by_data.restore(kept[1])

    def __iter__(self) -> Iterator[Any]:
        # The next one to be made, not to begin: a callback may go through the data before the Trainer does.
        resumed, self._resumed = self._resumed, {}
        return self._iterate(resumed)

    def _iterate(self, position: dict[str, Any]) -> Iterator[Any]:
        # A generator: nothing is drawn or fetched before the first batch is asked for.
        seed, start = self._next_pass()
        if position.get("epoch") != start["epoch"]:
            position = start
        if self._position is self._finished or self._position.get("epoch") != start["epoch"]:
            self._position = position  # else another has begun: this one is a callback's, in its midst
        order = position["epoch"], position["repetition"]
        batches = self._draw(seed, position)
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

    def _draw(self, seed: int, position: dict[str, Any]) -> Sequence[Any]:
        """Draw the order of a pass, for one that is resumed from what the samplers kept before it."""
        kept = self._kept.changes()
        if position["batches"]:
            self._kept.restore(position.get("before", {}))
        elif kept:
            position["before"] = kept
        device = self._device if self._is_direct else None
        batches = self._order.draw(seed, position["epoch"], position["repetition"], device)
        if position["batches"]:
            self._kept.restore(kept)
        self._report_lost(self._kept)
        report_outgrown(name_of(self._user_loader), self._kept_by_data, self._reported)
        return batches

    def _fetch(self, batches: Any, seed: int, done: int) -> Iterator[Any]:
        if self._is_direct and not self._draws:
            return map(self._fetcher.fetch, batches)
        numbers = count(done * self._world + self._rank, self._world)  # each process has numbers of its own
        requests = ((derive_seed(seed, number, 0), batch) for number, batch in zip(numbers, batches, strict=False))
        if self._is_direct:
            return map(self._checked, map(self._fetcher.__getitems__, requests))
        self._requests.requests = requests
        self._iterated.generator.manual_seed(seed)  # gives workers their first seeds
        return map(self._checked, started(self._iterated, self._user_loader))

    def _checked(self, fetched: tuple[bool, Any]) -> Any:
        if fetched[0]:
            self._report_unequal("a sample depends on those that were read before it")
        return fetched[1]
