"""The order in which a data loader's batches come, as a function of seed and epoch, shared among processes."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from lightning.pytorch.overrides.distributed import _IndexBatchSamplerWrapper
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from runlab.data.generators import derive_seed, generators_of, seed_generator
from runlab.data.seeding import preserved_random_states, seed_all


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
        inner = getattr(batches, "sampler", None)
        # The sampler's indices are shared out and then put into batches, unless the user's class makes the batches.
        self.makes_batches = loader.batch_sampler is not None and type(batches) is BatchSampler
        self.source: Any = inner if self.makes_batches else batches
        self.batch_size: int = batches.batch_size if self.makes_batches else 1
        self.drop_last: bool = self.makes_batches and batches.drop_last
        self.generator, self.samplers = loader.generator, [batches] if inner is None else [batches, inner]
        shared = any(hasattr(sampler, "num_replicas") for sampler in self.samplers)
        self.rank, self.world = (0, 1) if shared else (rank, world)
        self.equal = equal

    def __len__(self) -> int:
        """How many batches this process gets in an epoch."""
        share = self._share(len(self.source))
        return share // self.batch_size if self.drop_last else -(-share // self.batch_size)

    def draw(self, seed: int, epoch: int, repetition: int, device: torch.device | None) -> Sequence[Any]:
        """Draw the batches of an epoch, or of a repetition in it.

        They are int64 tensors on `device`, if that is given and the order is a plain one, else lists of int, or
        whatever the user's batch sampler gives.
        """
        order = self._order(seed, epoch, repetition)
        share = self._share(len(order))
        if self.drop_last:
            share -= share % self.batch_size
        mine = order[self.rank :: self.world][:share]
        if not self.makes_batches:
            return mine
        if isinstance(mine, Tensor):
            if device is not None:  # no Python number a sample, and to a GPU once an epoch
                return mine.to(device).split(self.batch_size) if share else ()
            mine = mine.tolist()
        return [mine[start : start + self.batch_size] for start in range(0, share, self.batch_size)]

    def _share(self, size: int) -> int:
        return size // self.world if self.equal else len(range(self.rank, size, self.world))

    def _order(self, seed: int, epoch: int, repetition: int) -> Any:
        """What all processes share: a tensor, or a list of what the user's sampler gives."""
        source = self.source
        drawn = derive_seed(seed, epoch, repetition)
        if self.makes_batches and type(source) is SequentialSampler:
            return torch.arange(len(source))
        if self.makes_batches and _is_plain_shuffle(source):
            if repetition == 0:
                drawn = (seed * 1_000_003 + epoch) % 2**63  # each pair's own, for 10^6 epochs
            return torch.randperm(len(source), generator=torch.Generator().manual_seed(drawn))
        for sampler in self.samplers:
            # Lightning does this too, but not yet where it begins to iterate early, and not for batch samplers.
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)
        with preserved_random_states():
            seed_all(drawn)
            for generator in generators_of(self, *self.samplers):
                seed_generator(generator, drawn)
            return list(islice(source, len(source)))  # the whole order at once: nobody else draws in between


def _is_plain_shuffle(sampler: Any) -> bool:
    """Whether it is torch's shuffle of a whole dataset, each index once."""
    if type(sampler) is not RandomSampler or sampler.replacement:
        return False
    return sampler.num_samples == len(sampler.data_source)
