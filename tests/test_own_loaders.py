"""Loaders, samplers and data sets of a user's own: each is resumed equal, or a line says that it cannot be."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_loaders import Numbers, wrapped
from torch.utils.data import BatchSampler, DataLoader, Sampler

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec"),  # Lightning's own, with torch 2.14
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),  # fork, on Python 3.12
]


class Counting(Sampler[int]):
    """Its order depends on how often it has been gone through to the end."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return 80

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(80, generator=torch.Generator().manual_seed(self.passes)).tolist()
        self.passes += 1


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_sampler_does_after_its_last_index_is_done(workers: int) -> None:
    """The order is that of a loop over the plain loader."""
    samplers = Counting(), Counting(), Counting(), Counting()
    for epoch in range(3):
        plain = [int(i) for batch in DataLoader(Numbers(80), 7, sampler=samplers[0]) for i in batch]
        makes: list[dict[str, Any]] = [
            {"batch_size": 7, "sampler": samplers[1]},
            {"batch_sampler": BatchSampler(samplers[2], 7, False)},
            {"batch_sampler": type("Own", (BatchSampler,), {})(samplers[3], 7, False)},
        ]
        for make in makes:
            loader = wrapped(DataLoader(Numbers(80), num_workers=workers, **make), epoch=epoch)
            assert [int(i) for batch in loader for i in batch] == plain
    assert [sampler.passes for sampler in samplers] == [3] * 4


def test_a_sampler_without_an_end_is_read_as_far_as_needed() -> None:
    class Endless(Counting):
        def __iter__(self) -> Iterator[int]:
            while True:
                yield self.passes % 80
                self.passes += 1

    sampler = Endless()
    loader = wrapped(DataLoader(Numbers(80), 8, sampler=sampler))
    assert [int(i) for batch in loader for i in batch] == list(range(80))
    assert sampler.passes == 80
