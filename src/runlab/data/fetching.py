"""Fetch a batch after seeding the random generators for it, in the main process or in a worker."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate, default_convert, get_worker_info
from torch.utils.data._utils.fetch import _MapDatasetFetcher

from runlab.data.in_memory import InMemoryDataset
from runlab.data.seeding import generators_of, seed_all

Request = tuple[int, Any]  # the seed of a batch, and its indices


class SeededFetcher:
    """A user's dataset and `collate_fn` as a dataset that takes requests and gives finished batches.

    What the user's code draws then depends on the request alone: not on who fetches it, nor on what came before.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.dataset = loader.dataset
        self.fetch = _MapDatasetFetcher(loader.dataset, loader._auto_collation, loader.collate_fn, False).fetch
        self.generators: list[Any] | None = None  # the dataset's own: found at the first fetch, when they are made

    def __getitems__(self, request: Request) -> Any:
        seed, indices = request
        if self.generators is None:
            self.generators = generators_of(self.dataset)
        seed_all(seed, self.generators)
        return self.fetch(indices)


class RequestQueue:
    """A batch sampler that gives the requests that were put there before an iteration begins."""

    requests: Iterator[Request]

    def __iter__(self) -> Iterator[Request]:
        return self.requests


def request_loader(loader: DataLoader[Any], fetcher: SeededFetcher, queue: RequestQueue) -> DataLoader[Any]:
    """Copy a user's loader with all its settings of workers and memory, to fetch what is requested in `queue`."""
    requesting = copy.copy(loader)
    vars(requesting).update(  # DataLoader refuses to have some of these set
        dataset=fetcher,
        batch_sampler=queue,
        collate_fn=_unchanged,
        generator=torch.Generator(),  # one of its own leaves torch's global one alone
        worker_init_fn=partial(_init_worker, loader.worker_init_fn),
        _iterator=None,
    )
    return requesting


def _unchanged(batch: Any) -> Any:
    return batch


def _init_worker(function: Callable[[int], None] | None, worker: int) -> None:
    """Show the user's code in a worker the user's dataset, as `get_worker_info().dataset`."""
    info: Any = get_worker_info()
    object.__setattr__(info, "dataset", info.dataset.dataset)  # it is frozen
    if function:
        function(worker)


def is_deterministic(dataset: Any, collate: Any) -> bool:
    """Whether fetching from a dataset is known to draw no random numbers."""
    while type(dataset) is Subset:
        dataset = dataset.dataset
    known = type(dataset) in (InMemoryDataset, TensorDataset)
    return known and collate in (tuple, default_collate, default_convert)
