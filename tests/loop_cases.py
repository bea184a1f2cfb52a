"""A small module, loader, logger and a recording callback, by which two training loops are compared."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor, nn

Row = tuple[int | None, dict[str, float]]


class Batches:
    """A loader that can be resumed: 20 samples in an order by epoch; counts the batches that it has delivered."""

    def __init__(self, length: int, size: int = 4, as_list: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(length * size, 6, generator=generator)
        self.labels = (self.inputs.sum(1) > 0).long()
        self.length, self.size, self.as_list = length, size, as_list
        self.epoch, self.done, self.skip = 0, 0, 0
        self.sampler = self.batch_sampler = self  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        skip, self.skip = self.skip, 0
        order = torch.randperm(len(self.inputs), generator=torch.Generator().manual_seed(self.epoch))
        for done in range(skip + 1, self.length + 1):
            self.done = done
            index = order[(done - 1) * self.size : done * self.size]
            batch = self.inputs[index], self.labels[index]
            yield list(batch) if self.as_list else batch

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skip = state["done"] % self.length


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 0.01)


def lbfgs(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(parameters, 0.1, max_iter=3)


class Net(L.LightningModule):
    """A linear classifier with a scheduler; draws noise from the three generators unless told not to."""

    def __init__(
        self, optimizer: Callable[[Any], torch.optim.Optimizer] = sgd, every: int = 1, noise: bool = True
    ) -> None:
        super().__init__()
        self.net = nn.Linear(6, 2)
        self.optimizer, self.every, self.noise = optimizer, every, noise

    def loss(self, batch: Any) -> Tensor:
        inputs, labels = batch
        if self.noise and self.training:
            inputs = inputs + 0.1 * torch.randn_like(inputs) + 0.1 * random.random() + 0.1 * float(np.random.rand())
        return nn.functional.cross_entropy(self.net(inputs), labels)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        if batch_idx % self.every == 0:
            self.log("loss", loss, on_step=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        schedulers = torch.optim.lr_scheduler
        by_step = {"scheduler": schedulers.StepLR(optimizer, 3), "interval": "step", "frequency": 2}
        return [optimizer], [by_step, {"scheduler": schedulers.ExponentialLR(optimizer, 0.9), "interval": "epoch"}]


class TwoOptimizers(Net):
    """Manual optimization: two optimizers step at each batch; the first one's gradients stay until the next batch."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(2, 2)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()  # type: ignore[attr-defined]  # a list of two
        loss = nn.functional.cross_entropy(self.other(self.net(batch[0])), batch[1]) + self.loss(batch)
        self.manual_backward(loss)
        first.step()
        if batch_idx % 2:
            first.zero_grad()
        second.step()
        second.zero_grad()
        self.log("loss", loss, on_step=True)

    def configure_optimizers(self) -> Any:
        return [sgd(self.net.parameters()), adam(self.other.parameters())]


class Rows(Logger):
    """Keeps what it is given to log."""

    name, version = "rows", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, {name: float(value) for name, value in metrics.items()}))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...
