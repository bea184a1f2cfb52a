"""Checks of a running task: its numbers are finite, what is monitored is logged, processes share the data."""

import math
import sys
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from runlab.config.messages import Diverged, UserError
from runlab.data.connector import unresumable
from runlab.training.epoch_state import of_each_process
from runlab.training.logged_values import logs_this_batch
from runlab.training.monitors import Monitors
from runlab.training.refusals import check_schedules


class CheckRun(Callback):
    """Ends a run that cannot come out right, in a line that says why.

    `UserError` where a metric that is monitored is not logged, where all processes get the same training batch, or
    where the schedule cannot be saved or, in a resumed run, is over. `Diverged` where the loss of a training batch
    whose values are logged is NaN or infinite, with manual optimization any of these values; `hint` says what may help.
    """

    def __init__(self, monitor: str | None, hint: str) -> None:
        self.monitors, self.hint = Monitors(monitor), hint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        check_schedules(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.monitors.check_validation(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the schedule of a resumed run, which may be longer now than when the schedule was made."""
        self.monitors.check_start(trainer, pl_module)
        if not (steps := trainer.global_step):
            return
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            total = getattr(scheduler, "total_steps", None)
            if total is not None and config.interval == "step" and trainer.estimated_stepping_batches > total:
                raise UserError(
                    f"scheduler: {type(scheduler).__name__} ends after {total} optimizer steps and cannot be extended;"
                    " begin a new run with ckpt_path=.../checkpoints/last.ckpt"
                )
            if isinstance(scheduler, LambdaLR):
                factor = scheduler.lr_lambdas[0](scheduler.last_epoch)
                before, after = scheduler.optimizer.param_groups[0]["lr"], scheduler.base_lrs[0] * factor
                if trainer.is_global_zero and not math.isclose(before, after, rel_tol=1e-6, abs_tol=1e-12):
                    words = f"the learning rate goes from {before:.4g} to {after:.4g} at optimizer step {steps}"
                    print(f"scheduler: {words}, as the schedule is for another number of steps now", file=sys.stderr)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if batch_idx > 0 or trainer.world_size == 1 or not (loaders := unresumable(trainer)):
            return
        tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
        sums = str([tensor.double().sum().item() for tensor in tensors])
        if len(set(of_each_process(trainer, sums))) == 1:
            raise UserError(
                f"training data ({', '.join(loaders)}): all {trainer.world_size} processes get the same batches; share"
                " them out by torch.distributed.get_rank(), or take trainer.devices=1"
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *batch: Any) -> None:  # noqa: ARG002
        if not logs_this_batch(trainer):
            return
        self.monitors.check_training(trainer, pl_module)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        # Another value than the loss may be infinite, or have nothing to be a mean of.
        if pl_module.automatic_optimization and not (isinstance(loss, Tensor) and not loss.isfinite().all()):
            return
        values = dict(trainer.fit_loop.epoch_loop._results.metrics(on_step=True)["callback"])
        for name, value in (values | {"the training loss": loss}).items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                number = value.item() if value.numel() == 1 else "not finite"
                raise Diverged(f"{name} is {number} at optimizer step {trainer.global_step}; {self.hint}")
