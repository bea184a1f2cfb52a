"""Checks of a running task: its numbers are finite, what is monitored is logged, processes share the data."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from runlab.config.messages import Diverged, UserError
from runlab.data.connector import unresumable
from runlab.training.epoch_state import of_each_process
from runlab.training.logged_values import logs_this_batch


class CheckFinite(Callback):
    """Raises `Diverged` where a training batch whose values are logged has one that is NaN or infinite."""

    def __init__(self, hint: str) -> None:
        self.hint = hint

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *batch: Any) -> None:  # noqa: ARG002
        if not logs_this_batch(trainer):
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        values = dict(trainer.fit_loop.epoch_loop._results.metrics(on_step=True)["callback"])
        for name, value in (values | {"the training loss": loss}).items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                number = value.item() if value.numel() == 1 else "not finite"
                raise Diverged(f"{name} is {number} at optimizer step {trainer.global_step}; {self.hint}")


class CheckMonitors(Callback):
    """`UserError` where a metric that is monitored is not among those of the validation, before training begins."""

    def __init__(self, monitor: str | None) -> None:
        self.monitor = monitor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        found = [name for name in trainer.callback_metrics if name != "step"]
        if not trainer.sanity_checking or not found:
            return
        monitors = [self.monitor, *(getattr(callback, "monitor", None) for callback in trainer.callbacks)]  # type: ignore[attr-defined]
        for monitor in monitors:
            if isinstance(monitor, str) and monitor.startswith("val") and monitor not in found:
                names = ", ".join(found)
                raise UserError(f"monitor={monitor}: the validation logs {names}; choose one of them, or monitor=null")


class CheckShared(Callback):
    """`UserError` where all processes get the same training batch, as of a stream that nobody has shared out."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if trainer.world_size == 1 or batch_idx > 0 or not (loaders := unresumable(trainer)):
            return
        tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
        sums = str([tensor.double().sum().item() for tensor in tensors])
        if len(set(of_each_process(trainer, sums))) == 1:
            raise UserError(
                f"training data ({', '.join(loaders)}): all {trainer.world_size} processes get the same batches; share"
                " them out by torch.distributed.get_rank(), or take trainer.devices=1"
            )
