"""Fetch a batch after seeding the random generators for it, in the main process or in a worker."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
    get_worker_info,
)

from runlab.data.generators import generators_of, seed_generator
from runlab.data.in_memory import InMemoryDataset
from runlab.data.seeding import seed_all

Request = tuple[int | None, Any]  # the seed of a batch, or None where nothing is drawn; its indices


class SeededFetcher(Dataset[Any]):
    """A user's dataset and `collate_fn` as a dataset that takes requests and gives finished batches.

    What the user's code draws then depends on the request alone: not on who fetches it, nor on what came before.
    """

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], whole: bool) -> None:
        self.dataset, self.collate = dataset, collate
        self.whole = whole  # an index is for one whole batch, as with DataLoader's batch_size=None
        self.generators: list[Any] | None = None  # the dataset's own: found at the first fetch, when they are made

    def __getitems__(self, request: Request) -> Any:
        seed, index = request
        if seed is not None:
            if self.generators is None:
                self.generators = generators_of(self.dataset)
            seed_all(seed)
            for generator in self.generators:
                seed_generator(generator, seed)
        return self.fetch(index)

    @property
    def unseeded(self) -> Callable[[Any], Any]:
        """What fetches the batch of some indices without seeding, with no detour where the batch comes whole."""
        is_finished = self.collate is tuple and type(self.dataset) is InMemoryDataset and not self.whole
        return self.dataset.__getitems__ if is_finished else self.fetch

    def fetch(self, index: Any) -> Any:
        """Do what DataLoader's own fetcher does."""
        if self.whole:
            return self.collate(self.dataset[index])
        if getattr(self.dataset, "__getitems__", None):
            return self.collate(self.dataset.__getitems__(index))
        return self.collate([self.dataset[i] for i in index])


def is_deterministic(dataset: Any, collate: Any) -> bool:
    """Whether fetching from a dataset is known to draw no random numbers."""
    if collate not in (tuple, default_collate, default_convert):
        return False
    if type(dataset) is Subset:
        return is_deterministic(dataset.dataset, collate)
    if type(dataset) is ConcatDataset:
        return all(is_deterministic(part, collate) for part in dataset.datasets)
    return type(dataset) in (InMemoryDataset, TensorDataset)


class RequestQueue:
    """A batch sampler that gives the requests that were put there before an iteration begins."""

    def __init__(self) -> None:
        self.requests: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.requests


def request_loader(loader: DataLoader[Any], fetcher: SeededFetcher, queue: RequestQueue) -> DataLoader[Any]:
    """Make a loader with a user's workers and pinned memory, which fetches what is requested in `queue`."""
    settings: dict[str, Any] = {
        name: getattr(loader, name)
        for name in ("num_workers", "pin_memory", "pin_memory_device", "timeout", "persistent_workers", "in_order")
    }
    if loader.num_workers:
        settings["prefetch_factor"] = loader.prefetch_factor
        settings["multiprocessing_context"] = loader.multiprocessing_context
        settings["worker_init_fn"] = WorkerInit(loader.worker_init_fn)
    generator = torch.Generator()  # one of its own leaves torch's global one alone
    return DataLoader(fetcher, batch_sampler=queue, collate_fn=_unchanged, generator=generator, **settings)  # type: ignore[arg-type]  # any iterable will do


class WorkerInit:
    """Show the user's code in a worker the user's dataset, as `get_worker_info().dataset`."""

    def __init__(self, function: Callable[[int], None] | None) -> None:
        self.function = function

    def __call__(self, worker: int) -> None:
        info: Any = get_worker_info()
        object.__setattr__(info, "dataset", info.dataset.dataset)  # it is frozen
        if self.function:
            self.function(worker)


def _unchanged(batch: Any) -> Any:
    return batch
