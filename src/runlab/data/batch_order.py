"""The order in which a data loader's batches come, as a function of seed and epoch, shared among processes."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from lightning.pytorch.overrides.distributed import _IndexBatchSamplerWrapper
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from runlab.data.seeding import derive_seed, generators_of, seed_all


class BatchOrder:
    """The batches of indices that one of `world` processes gets in an epoch; they depend on (seed, epoch) alone.

    Process `rank` gets every world-th index (every world-th batch where the loader has a batch sampler of its own).
    If `equal`, as for training, all get equally many and up to world - 1 are left out of an epoch; otherwise they share
    all of them and none comes twice. A sampler that knows of processes itself (`num_replicas`) has shared out already.
    """

    def __init__(self, loader: DataLoader[Any], rank: int, world: int, equal: bool) -> None:
        batches: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        if isinstance(batches, _IndexBatchSamplerWrapper):  # Lightning's, for prediction
            batches = batches._batch_sampler
        self.samplers = [batches, batches.sampler] if hasattr(batches, "sampler") else [batches]
        # The sampler's indices are shared out and then put into batches, unless the user's class makes the batches.
        self.makes_batches = loader.batch_sampler is not None and type(batches) is BatchSampler
        self.source: Any = self.samplers[-1] if self.makes_batches else batches
        self.batch_size: int = batches.batch_size if self.makes_batches else 1
        self.drop_last: bool = self.makes_batches and batches.drop_last
        if any(hasattr(sampler, "num_replicas") for sampler in self.samplers):
            rank, world = 0, 1
        self.generator, self.rank, self.world, self.equal = loader.generator, rank, world, equal

    def __len__(self) -> int:
        """How many batches this process gets in an epoch."""
        return -(-self._share(len(self.source)) // self.batch_size)

    def _share(self, size: int) -> int:
        """How many of `size` indices this process gets."""
        share = size // self.world if self.equal else len(range(self.rank, size, self.world))
        return share - share % self.batch_size if self.drop_last else share

    def draw(self, seed: int, epoch: int, repetition: int, device: torch.device | None) -> Sequence[Any]:
        """Draw the batches of an epoch, or of a repetition in it.

        They are int64 tensors on `device`, if that is given and the order is a plain one, else lists of int, or
        whatever the user's batch sampler gives.
        """
        order = self._order(seed, epoch, repetition)
        share = self._share(len(order))
        mine = order[self.rank :: self.world][:share]
        if not self.makes_batches:
            return mine
        if isinstance(mine, Tensor):
            if device is not None:  # no Python number a sample, and to a GPU once an epoch
                return mine.to(device).split(self.batch_size) if share else ()
            mine = mine.tolist()
        return [mine[start : start + self.batch_size] for start in range(0, share, self.batch_size)]

    def _order(self, seed: int, epoch: int, repetition: int) -> Any:
        """What all processes share: a tensor, or a list of what the user's sampler gives."""
        source, size = self.source, len(self.source)
        drawn = derive_seed(seed, epoch, repetition)
        if self.makes_batches and type(source) is SequentialSampler:
            return torch.arange(size)
        is_shuffle = type(source) is RandomSampler and not source.replacement and size == len(source.data_source)
        if self.makes_batches and is_shuffle:  # of a whole dataset, each index once
            if repetition == 0:
                drawn = (seed * 1_000_003 + epoch) % 2**63  # each pair's own, for 10^6 epochs
            return torch.randperm(size, generator=torch.Generator().manual_seed(drawn))
        for sampler in self.samplers:
            # Lightning does this too, but not yet where it begins to iterate early, and not for batch samplers.
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)
        with isolate_rng(include_cuda=torch.cuda.is_initialized()):
            seed_all(drawn, generators_of(self, *self.samplers))
            iterator = iter(source)
            order = list(islice(iterator, size))  # the whole order at once: nobody else draws in between
            next(iterator, None)  # what the sampler does after its last index; one without an end is asked once more
            return order
