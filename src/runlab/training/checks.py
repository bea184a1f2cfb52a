"""Checks of a running task: its numbers are finite, and what is monitored is logged."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from runlab.config.messages import Diverged, UserError
from runlab.training.logging_step import logs_this_batch


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


def same_on_all(trainer: Trainer, batch: Any) -> bool:
    """Whether all processes have got the same batch, as where a stream of data is not shared out among them."""
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    mine = sum((t.double().sum() for t in tensors), torch.zeros((), dtype=torch.float64))
    every: Any = trainer.strategy.all_gather(mine.to(trainer.strategy.root_device))
    return bool((every == every[0]).all())
