"""Batches from memory, in an order that can be repeated and gone on with."""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

Batch = tuple[Tensor, Tensor]


class ImageDataset(Dataset[Batch]):
    """Images `(N, 1, 28, 28)` uint8 and labels `(N,)` int64, held in memory, handed out a whole batch at a time."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        index = torch.as_tensor(indices)
        return self.images.index_select(0, index), self.labels.index_select(0, index)


class EpochSampler(Sampler[int]):
    """Indices in an order that depends on (seed, epoch) alone: a resumed run sees the batches it would have seen.

    Each of `world` ranks gets every world-th index. When shuffling, all ranks get equally many (up to world - 1
    samples of an epoch are left out); in order, they share all of them, so that a test set is counted exactly.
    """

    def __init__(self, indices: range, shuffle: bool, seed: int, rank: int, world: int) -> None:
        self.size, self.shuffle, self.seed, self.rank, self.world = len(indices), shuffle, seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each training epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.world if self.shuffle else len(range(self.rank, self.size, self.world))

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(self.rank, self.size, self.world))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)  # a pair's own, for 10^6 epochs
        order = torch.randperm(self.size, generator=generator)
        return iter(order[self.rank :: self.world][: len(self)].tolist())


class EpochLoader(DataLoader[Batch]):
    """A `DataLoader` that can begin in the middle of an epoch."""

    begin: Callable[[], int] | None = None  # called at its start, gives the batches that a resumed run has seen already

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # DataLoader promises its own iterator class
        # A generator, so that workers fetch nothing before the first batch is asked for: set_epoch comes in between.
        yield from islice(super().__iter__(), self.begin() if self.begin else 0, None)


def reseed(seed: int) -> None:
    """Seed the CPU's and the GPU's generator. `torch.manual_seed` is far slower where CUDA is not in use."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
