"""Gradients in checkpoints, for runs that gather them over several batches."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class SaveGradients(L.Callback):
    """Puts the gathered gradients into a checkpoint that is saved in the middle of an accumulation window.

    Lightning leaves them out, so that a run resumed from there would step with part of its gradients. With manual
    optimization they are saved whenever there are any: what to keep between batches is the module's own affair.

    `checkpoint["gradients"]` is a list with a dictionary `{parameter's name: gradient}` for each process, since each
    gathers its own before they are averaged. It is missing where there is nothing to save. Every process has to take
    part in saving, as Lightning asks anyway. `ValueError` on resuming with another number of processes.
    """

    def __init__(self) -> None:
        self._to_restore: dict[str, Tensor] = {}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if pl_module.automatic_optimization and not trainer.fit_loop._should_accumulate():
            return
        mine = {name: p.grad.detach() for name, p in pl_module.named_parameters() if p.grad is not None}
        every = [mine]
        if trainer.world_size > 1:
            every = [{}] * trainer.world_size
            torch.distributed.all_gather_object(every, {name: gradient.cpu() for name, gradient in mine.items()})
        if any(every):
            checkpoint["gradients"] = every

    def on_load_checkpoint(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        every = checkpoint.get("gradients")
        if every is None or trainer.state.fn != TrainerFn.FITTING:
            return
        if len(every) != trainer.world_size:
            raise ValueError(
                f"the checkpoint holds gradients of {len(every)} processes, this run has {trainer.world_size}:"
                " resume it with the same number"
            )
        self._to_restore = every[trainer.global_rank]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        for name, parameter in pl_module.named_parameters():
            if name in self._to_restore:
                parameter.grad = self._to_restore[name].to(parameter.device)
        self._to_restore = {}
