"""Fetch a batch after seeding the random generators for it, in the main process or in a worker."""

import copy
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
    get_worker_info,
)
from torch.utils.data._utils.fetch import _MapDatasetFetcher

from runlab.data.in_memory import InMemoryDataset
from runlab.data.kept_state import KeptState, search
from runlab.data.plain import PLAIN, is_same
from runlab.data.seeding import generators_of, seed_all

Request = tuple[int, Any]  # the seed of a batch, and its indices


class SeededFetcher:
    """A user's dataset and `collate_fn` as a dataset that takes requests and gives finished batches.

    What the user's code draws then depends on the request alone: not on who fetches it, nor on what came before. With
    each batch comes whether a sample is known to depend on those before it all the same.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.dataset = loader.dataset
        self.owners = (loader.dataset, loader.collate_fn)
        self.fetch = _MapDatasetFetcher(loader.dataset, loader._auto_collation, loader.collate_fn, False).fetch
        self.generators: list[Any] | None = None  # the user's own: found at the first fetch, when they are made

    def __getitems__(self, request: Request) -> tuple[bool, Any]:
        seed, indices = request
        if self.generators is None:
            return self._fetch_first(seed, indices)
        seed_all(seed, self.generators)
        return False, self.fetch(indices)

    def _fetch_first(self, seed: int, indices: Any) -> tuple[bool, Any]:
        """Fetch a batch, and once more if that has changed the user's objects: a generator may be made only now.

        A data set whose samples depend on those before gives another batch, or draws another number of times.
        """
        self.generators, before = generators_of(*self.owners), _contents(*self.owners)
        batch = self._fetch_and_draw(seed, indices)
        if _is_unchanged(before, _contents(*self.owners)):
            return False, batch[0]
        known, self.generators = self.generators, generators_of(*self.owners)
        if {*map(id, self.generators)} - {*map(id, known)}:
            batch = self._fetch_and_draw(seed, indices)
        kept = KeptState(*self.owners)
        depends = not is_same(batch, self._fetch_and_draw(seed, indices))
        kept.restore({})  # what counts or caches its samples has not seen the second look
        return depends, batch[0]

    def _fetch_and_draw(self, seed: int, indices: Any) -> tuple[Any, list[float]]:
        """A batch, and a number of each global generator after it."""
        seed_all(seed, self.generators or ())
        return self.fetch(indices), [torch.rand(()).item(), np.random.random(), random.random()]


def _contents(*owners: Any) -> list[Any]:
    """What objects hold, as far as a look at it is quick."""
    contents: list[Any] = []
    for path, _, value in search(*owners):
        contents += [path, value]
        if isinstance(value, list | dict) and len(value) <= 1_000_000:
            contents += value.values() if isinstance(value, dict) else value
        elif isinstance(value, Tensor):
            contents.append(0 if value.is_inference() else value._version)  # of a loader that the test makes
        elif isinstance(value, np.ndarray) and value.nbytes <= 1_000_000:
            contents.append(value.tobytes())
    return contents


def _is_unchanged(before: list[Any], after: list[Any]) -> bool:
    pairs = zip(before, after, strict=False)
    return len(before) == len(after) and all(a is b or (isinstance(a, PLAIN) and a == b) for a, b in pairs)


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


def name_of(loader: Any) -> str:
    """What to call a user's loader, or what stands in for it, in a line."""
    loader = getattr(loader, "_user_loader", loader)
    return f"DataLoader of {type(loader.dataset).__name__}" if isinstance(loader, DataLoader) else type(loader).__name__


def is_ordinary(loader: Any) -> bool:
    """Whether the batches of a loader are known by their indices, so that it can be shared and resumed."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return False
    hooks = ("__iter__", "__len__", "_get_iterator")
    if any(getattr(type(loader), name) is not getattr(DataLoader, name) for name in hooks):
        return False
    try:
        len(loader)
    except (TypeError, NotImplementedError):
        return False
    return True
