"""Gradients in checkpoints, for runs that gather them over several batches."""

from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from runlab.training.processes import of_each_process, of_this_process


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
        every = of_each_process(trainer, mine)
        if any(every):
            checkpoint["gradients"] = every

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        if "gradients" in checkpoint and trainer.state.fn == TrainerFn.FITTING:
            self._to_restore = of_this_process(trainer, checkpoint["gradients"], "gradients")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        for name, parameter in pl_module.named_parameters():
            if name in self._to_restore:
                parameter.grad = self._to_restore[name].to(parameter.device)
        self._to_restore = {}
