"""What a test gives, batch by batch, gathered from all devices."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from runlab.data.targets import inputs_and_targets


class Predictions(Callback):
    """Calls `gather(outputs, inputs, targets)` of a subclass with each test batch, where `test_step` gave the outputs.

    At the end `show(trainer, *columns)` gets all that it returned, of all loaders and devices, on the first one's CPU.
    """

    def gather(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def show(self, trainer: Trainer, *columns: Tensor) -> None:
        raise NotImplementedError

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.parts: list[tuple[Tensor, ...]] = []

    def on_test_batch_end(self, *call: Any) -> None:
        _, _, outputs, batch, *_ = call
        self.parts.append(self.gather(outputs, *inputs_and_targets(batch)))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        columns = [torch.cat(column) for column in zip(*self.parts, strict=True)]
        if trainer.world_size > 1:  # the devices may have seen different numbers of batches
            columns = [torch.cat(gather_all_tensors(column)) for column in columns]
        if trainer.is_global_zero and trainer.loggers:  # one of a run's processes, where a logger may take it
            self.show(trainer, *(column.cpu() for column in columns))
