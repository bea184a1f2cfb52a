"""Section c: images a second out of the training loader."""

import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from measure import Row, alternated, compared, parts
from mnist import pil_mnist
from torch import Tensor
from torch.utils.data import DataLoader, Subset

N = 7
SLOW_IMAGES = 6000  # of the 60,000, for PIL
READY = 4  # batches that two workers have prepared before the clock starts


def rate(source: Iterable[Any], skip: int = 0) -> float:
    """Images a second, `source` gone through once but for its first `skip` batches."""
    iterator, images = iter(source), 0
    for _ in range(skip):
        next(iterator)
    start = time.perf_counter()
    for batch in iterator:
        images += len(batch[1])
    return images / (time.perf_counter() - start)


def indexed(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The loop that one would write by hand."""
    order = torch.randperm(len(labels))
    for i in range(0, len(labels), size):
        yield images[order[i : i + size]], labels[order[i : i + size]]


def measured(size: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        _, _, data = parts(folder, f"data.batch_size={size}")
    data.prepare_data()
    data.setup("fit")
    loader, tensors = data.train_dataloader(), (data.train_set.inputs, data.train_set.targets)

    def transformed() -> Iterator[tuple[Tensor, Tensor]]:
        return ((data.eval_transform(x), y) for x, y in loader)

    def pil() -> DataLoader[Any]:
        return DataLoader(Subset(pil_mnist(), range(SLOW_IMAGES)), batch_size=size, shuffle=True, num_workers=2)

    def by_hand() -> float:
        return rate(indexed(*tensors, size))

    rate(loader), by_hand()  # warm
    what, unit = f"batch {size}", "images/s"
    bare = alternated(N, lambda: rate(loader), by_hand)
    whole = alternated(N, lambda: rate(transformed()), lambda: rate(pil(), skip=READY))
    return [
        compared(f"loader, {what}: against indexing the tensors by hand", bare, unit, 0.5, more=True),
        compared(f"loader and transform, {what}: times faster than PIL and two workers", whole, unit, 50, more=True),
    ]


def rows(device: str) -> list[Row]:  # noqa: ARG001
    return [row for size in (16, 256) for row in measured(size)]
