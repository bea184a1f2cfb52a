"""MNIST as the sections need it: image by image through PIL, or its training images again and again."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets, transforms

DATA = Path(__file__).parents[1] / "data"


def pil_mnist() -> datasets.MNIST:
    """The notebook's training set: each image through PIL, `ToTensor` and `Normalize` when it is asked for."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    return datasets.MNIST(DATA, train=True, transform=transform, download=True)


def repeated(count: int) -> tuple[Tensor, Tensor]:
    """The training images again and again, `(count, 28, 28)` uint8, and their labels `(count,)` int64."""
    mnist = datasets.MNIST(DATA, train=True, download=True)
    images, labels = torch.empty(count, 28, 28, dtype=torch.uint8), torch.empty(count, dtype=torch.int64)
    # Slice by slice: torch.cat of a list would do, but this has no transient, which growth.py would count.
    for start in range(0, count, len(mnist.data)):
        part = slice(start, start + len(mnist.data))
        images[part], labels[part] = mnist.data[: count - start], mnist.targets[: count - start]
    return images, labels


class Repeated:
    """A dataset of MNIST's format with `count` training images, for `data.dataset`."""

    resources: tuple[tuple[str, str], ...] = ()  # no archives of its own to verify
    classes = datasets.MNIST.classes

    def __init__(self, root: str, train: bool, count: int) -> None:  # noqa: ARG002
        assert train, "it has no test set"
        self.data, self.targets = repeated(count)


def repeating(count: int) -> list[str]:
    """The overrides for `count` training images."""
    return ["data.dataset._target_=mnist.Repeated", f"+data.dataset.count={count}"]
