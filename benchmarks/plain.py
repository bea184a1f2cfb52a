"""The floor: the default run's setting in plain PyTorch, all in memory; no Trainer, no logging, no checkpoints."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import datasets

DATA = Path(__file__).parents[1] / "data"
EPOCHS, BATCH, LR = 5, 256, 0.04


def read(train: bool, device: str) -> tuple[Tensor, Tensor]:
    """Images `(N, 28, 28)` uint8 and labels `(N,)` int64 on `device`."""
    dataset = datasets.MNIST(DATA, train=train, download=True)
    return dataset.data.to(device), dataset.targets.to(device)


def normalised(images: Tensor) -> Tensor:
    """`(B, 28, 28)` uint8 -> `(B, 784)` float32 in [-1, 1]."""
    return images.flatten(1).float().div_(127.5).sub_(1)


def batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in a new order: `(B, 784)` float32 and `(B,)` int64, on the device of `images`."""
    for index in torch.randperm(len(labels), device=images.device).split(size):
        yield normalised(images.index_select(0, index)), labels.index_select(0, index)


def right(net: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many answers are right."""
    with torch.no_grad():
        parts = zip(images.split(1000), labels.split(1000), strict=True)
        return sum(int((net(normalised(x)).argmax(dim=1) == y).sum()) for x, y in parts)


def main() -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, labels = read(True, device)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).to(device)
    (val_x, val_y), (train_x, train_y) = ((images[part], labels[part]) for part in (order[:5000], order[5000:]))
    net = nn.Linear(28 * 28, 10).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, fused=True)
    steps, step = EPOCHS * -(-len(train_y) // BATCH), 0
    for _ in range(EPOCHS):
        for x, y in batches(train_x, train_y, BATCH):
            optimizer.param_groups[0]["lr"] = LR * (1 - step / steps)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            step += 1
        print(f"val/acc {right(net, val_x, val_y) / len(val_y):.4f}")
    print(f"{right(net, *read(False, device))}/10000")


if __name__ == "__main__":
    main()
