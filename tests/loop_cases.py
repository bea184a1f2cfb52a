"""A small module, loader, logger and a recording callback, by which two training loops are compared."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor, nn

from runlab.training.lean_loop import LeanEpochLoop, use_lean_loop

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


HOOKS = (
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_end",
    "on_train_epoch_end",
    "on_train_end",
)


class Recorder(L.Callback):
    """Notes each hook with the counters and metrics that it sees, and logs a value at each batch's end."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        for hook in HOOKS:
            setattr(self, hook, lambda *args, hook=hook: self.note(hook, *args))

    def note(self, hook: str, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        outputs = {k: float(v) for k, v in args[0].items()} if hook == "on_train_batch_end" and args[0] else None
        counters = (
            str(loop.batch_progress),
            str(loop.scheduler_progress),
            str(loop.automatic_optimization.optim_progress),
        )
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        learning_rate = [o.param_groups[0]["lr"] for o in trainer.optimizers]
        stepped = trainer.global_step, loop._batches_that_stepped
        self.seen.append((hook, module._current_fx_name, stepped, counters, metrics, outputs, learning_rate, args[2:]))
        if hook == "on_train_batch_end":
            module.log("seen", float(trainer.global_step), batch_size=1)


def build(loop: str, callbacks: list[L.Callback], **options: Any) -> L.Trainer:
    """A quiet Trainer whose loop is Lightning's ("stock"), that with seeds ("seeded"), or the lean one ("lean")."""
    quiet: dict[str, Any] = dict.fromkeys(("enable_checkpointing", "enable_progress_bar"), False)
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "accelerator": "cpu", "logger": Rows()}
    trainer = L.Trainer(callbacks=callbacks, **{**quiet, "max_epochs": 2, "log_every_n_steps": 3, **options})
    if loop != "stock":
        use_lean_loop(trainer, seed=3, fast=loop == "lean")
    return trainer


def outcome(trainer: L.Trainer) -> dict[str, Any]:
    """What must not depend on the loop: weights, optimizer states, loop counters, rows."""
    module, loop = trainer.lightning_module, trainer.fit_loop
    return {
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "optimizers": str([optimizer.state_dict() for optimizer in trainer.optimizers]),
        "loops": str(loop.state_dict()),
        "stepped": (trainer.global_step, loop.epoch_loop._batches_that_stepped),
        "rows": rows(trainer),
        "name": module._current_fx_name,
    }


def rows(trainer: L.Trainer) -> list[Row]:
    logger = trainer.loggers[0]
    assert isinstance(logger, Rows)
    return logger.rows


def ran_lean(trainer: L.Trainer) -> int:
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, LeanEpochLoop)
    return loop.ran_lean
