"""Batches from memory, in an order that can be repeated and gone on with."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from runlab.config.messages import UserError

Batch = tuple[Tensor, Tensor]


class InMemoryDataset(Dataset[Batch]):
    """Inputs `(N, ...)` and targets `(N,)` in memory, handed out a whole batch at a time.

    `indices` int64 says which of them; two parts of one set share its inputs.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> None:
        self.inputs, self.targets, self.indices = inputs, targets, indices

    @classmethod
    def in_memory(cls, inputs: Tensor, targets: Tensor, wanted: bool | str, device: torch.device) -> "InMemoryDataset":
        """All of them, on `device` if `wanted`; if "auto", where they take at most half of a GPU's free memory."""
        if wanted == "auto":
            wanted = device.type == "cuda" and 2 * inputs.nbytes <= torch.cuda.mem_get_info(device)[0]
        place = device if wanted else torch.device("cpu")
        return cls(inputs.to(place), targets.to(place), torch.arange(len(targets), device=place))

    def subset(self, indices: Tensor) -> "InMemoryDataset":
        return InMemoryDataset(self.inputs, self.targets, self.indices[indices.to(self.indices.device)])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        return self.inputs[self.indices[index]], self.targets[self.indices[index]]

    def __getitems__(self, batch: Sequence[int] | Tensor) -> Batch:
        index = self.indices.index_select(0, torch.as_tensor(batch, device=self.indices.device))
        return self.inputs.index_select(0, index), self.targets.index_select(0, index)


def split(size: int, seed: int, val_size: int, folds: int | None, fold: int | None) -> tuple[Tensor, Tensor]:
    """The indices for training and for validation, int64, each in order; both from `seed` alone.

    For validation are `val_size` of the `size` samples, or one of `folds` disjoint parts that are equal to within a
    sample and make up the whole. `UserError` where there are too few samples.
    """
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    if folds is None or fold is None:
        if val_size >= size:
            raise UserError(f"data.val_size={val_size}: the training set has only {size} samples")
        start, stop = 0, val_size
    else:
        if folds > size:
            raise UserError(f"data.folds={folds}: the training set has only {size} samples")
        start, stop = fold * size // folds, (fold + 1) * size // folds
    return torch.cat([order[:start], order[stop:]]).sort().values, order[start:stop].sort().values


class EpochSampler(Sampler[Tensor]):
    """Batches of indices in an order that depends on (seed, epoch) alone: a resumed run sees those it would have seen.

    Each of `world` ranks gets every world-th index. When shuffling, all ranks get equally many (up to world - 1
    samples of an epoch are left out); in order, they share all of them, so that a test set is counted exactly.
    """

    def __init__(
        self, indices: Tensor, batch_size: int, drop_last: bool, shuffle: bool, seed: int, rank: int, world: int
    ) -> None:
        self.size, self.device = len(indices), indices.device
        self.batch_size, self.drop_last, self.shuffle = batch_size, drop_last, shuffle
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch, self.sampler = 0, self  # as a batch sampler's `sampler` it is found by Lightning's set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each training epoch."""
        self.epoch = epoch

    @property
    def samples(self) -> int:
        """How many samples of an epoch this rank gets."""
        share = self.size // self.world if self.shuffle else len(range(self.rank, self.size, self.world))
        return share - share % self.batch_size if self.drop_last else share

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        if self.shuffle:
            seed = self.seed * 1_000_003 + self.epoch  # each pair's own, for 10^6 epochs
            order = torch.randperm(self.size, generator=torch.Generator().manual_seed(seed))
        else:
            order = torch.arange(self.size)
        # Tensors, no Python number a sample: those would cost more than the copying. To a GPU they go once an epoch.
        mine = order[self.rank :: self.world][: self.samples].to(self.device)
        yield from mine.split(self.batch_size) if len(mine) else ()


class EpochLoader(DataLoader[Batch]):
    """A `DataLoader` that can begin in the middle of an epoch."""

    begin: Callable[[], int] | None = None  # called at its start, gives the batches that a resumed run has seen already

    def __init__(self, dataset: InMemoryDataset, num_workers: int, **batches: Any) -> None:
        workers: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
        # A batch comes whole: there is nothing to collate. A generator of its own leaves torch's to the samplers.
        super().__init__(dataset, collate_fn=tuple, generator=torch.Generator(), **workers, **batches)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # DataLoader promises its own iterator class
        # A generator, so that workers fetch nothing before the first batch is asked for: set_epoch comes in between.
        done = self.begin() if self.begin else 0
        if self.num_workers:
            yield from islice(super().__iter__(), done, None)
        else:  # DataLoader's own iterator costs twice as much as a batch of 16
            yield from map(self.dataset.__getitems__, islice(self.batch_sampler, done, None))  # type: ignore[attr-defined, arg-type]


def reseed(seed: int) -> None:
    """Seed the CPU's and the GPU's generator. `torch.manual_seed` is far slower where CUDA is not in use."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
