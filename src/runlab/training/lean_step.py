"""One training batch on the short way: what Lightning does with it in the common case, in the same order."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from runlab.training.common_case import is_defined

HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def _idle_classes(callback: L.Callback) -> tuple[type, ...]:
    """The classes whose own hooks of a batch do nothing for this callback."""
    if not isinstance(callback, ModelCheckpoint):
        return (L.Callback,)
    saves_by_batch = callback._every_n_train_steps > 0 or callback._train_time_interval is not None
    return (L.Callback,) if saves_by_batch else (L.Callback, ModelCheckpoint)


class LeanStep:
    """The parts of a batch's way, for the loop to call: transfer, hooks, optimizer step, schedulers.

    Made anew for each epoch, since callbacks and hooks may be others by then. While a function of the user's runs, the
    module's `_current_fx_name` is its name, by which `self.log` knows who is logging.
    """

    def __init__(self, trainer: L.Trainer, loop: _TrainingEpochLoop) -> None:
        self._trainer, self._loop, self._module = trainer, loop, trainer.lightning_module
        module, device = self._module, trainer.strategy.root_device
        self._takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        precision = trainer.precision_plugin
        self._autocast = precision.train_step_context if isinstance(precision, MixedPrecision) else nullcontext
        clipping = ("configure_gradient_clipping", "clip_gradients")
        self._clips_itself = any(is_defined(module, method, L.LightningModule) for method in clipping)
        self._schedules = [config for config in trainer.lr_scheduler_configs if config.interval == "step"]
        self._hooks: dict[str, tuple[list[Callable[..., Any]], Callable[..., Any] | None]] = {}
        for hook in HOOKS:
            callbacks = [getattr(c, hook) for c in trainer.callbacks if is_defined(c, hook, *_idle_classes(c))]  # type: ignore[attr-defined]  # set by a connector
            own = getattr(module, hook) if is_defined(module, hook, L.LightningModule) else None
            if callbacks or own:
                self._hooks[hook] = callbacks, own
        self.may_skip_epoch = is_defined(module, "on_train_batch_start", L.LightningModule)
        # Lightning's rule for which of module and data module has the say, with its warning where both define a hook.
        owner = trainer._data_connector._datahook_selector.get_instance  # type: ignore[union-attr]  # set by fit
        defined = {
            hook: is_defined(owner(hook), hook, L.LightningModule, L.LightningDataModule)
            for hook in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
        }
        self._own_transfer = defined["on_before_batch_transfer"] or defined["transfer_batch_to_device"]
        self._after_transfer = "on_after_batch_transfer" if defined["on_after_batch_transfer"] else None
        self._transfer_owner = owner("on_after_batch_transfer")
        self._device, self._on_cpu = device, device.type == "cpu"

    def call(self, hook: str, *args: Any) -> Any:
        """Call `hook` of each callback, then of the module; return what the module's returns."""
        if hook not in self._hooks:
            return None
        callbacks, own = self._hooks[hook]
        names = self._module.__dict__
        previous, names["_current_fx_name"] = names["_current_fx_name"], hook
        for function in callbacks:
            function(self._trainer, self._module, *args)
        response = own(*args) if own else None
        names["_current_fx_name"] = previous
        return response

    def _call_as(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function with `name` as the module's `_current_fx_name`; where it raises, the name stays, as usual."""
        names = self._module.__dict__  # nn.Module.__setattr__ would take ten times as long
        previous, names["_current_fx_name"] = names["_current_fx_name"], name
        result = function(*args, **options)
        names["_current_fx_name"] = previous
        return result

    def transfer(self, batch: Any) -> Any:
        """Move `batch` to the device, by way of the transfer hooks."""
        if self._own_transfer:
            batch = self._module._on_before_batch_transfer(batch, dataloader_idx=0)
            return call._call_strategy_hook(self._trainer, "batch_to_device", batch, dataloader_idx=0)
        if self._on_cpu and type(batch) in (list, tuple) and all(type(x) is Tensor and x.is_cpu for x in batch):
            batch = type(batch)(batch)  # a training step may change a list that the loader hands out again
        else:
            batch = self._module.transfer_batch_to_device(batch, self._device, 0)
        if self._after_transfer:
            own = self._transfer_owner is self._module  # Lightning names only the module's
            name = self._after_transfer if own else "batch_to_device"
            batch = self._call_as(name, self._transfer_owner.on_after_batch_transfer, batch, 0)
        return batch

    def optimize(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One step of the optimizer, or its gradients alone where it waits for more batches.

        Returns `training_step`'s output as `on_train_batch_end` gets it.
        """
        optimizer, outputs = self._trainer.optimizers[0], None
        if self.accumulates():
            return self._gradients(optimizer, batch, batch_idx)

        def closure() -> Tensor | None:
            nonlocal outputs
            outputs = self._gradients(optimizer, batch, batch_idx)
            self.call("on_before_optimizer_step", optimizer)
            if self._trainer.gradient_clip_val or self._clips_itself:  # a callback may set it on the way
                self._clip(optimizer)
            return outputs.get("loss")

        progress = self._loop.automatic_optimization.optim_progress.optimizer.step
        progress.increment_ready()
        self._call_as("optimizer_step", optimizer.step, closure=closure)
        progress.increment_completed()
        if outputs is None:  # the optimizer never called its closure: raise Lightning's error
            return Closure(lambda: ClosureResult(None)).consume_result().asdict()
        return outputs

    def accumulates(self) -> bool:
        """Whether the optimizer waits for another batch after this one."""
        return self._trainer.accumulate_grad_batches != 1 and self._loop._should_accumulate()

    def _gradients(self, optimizer: torch.optim.Optimizer, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Forward and backward; returns what `optimize` does."""
        every = self._trainer.accumulate_grad_batches
        with torch.enable_grad():  # some optimizers call their closure under no_grad
            loss, outputs = self._forward(batch, batch_idx, every)
            if batch_idx % every == 0:
                self._zero_grad(optimizer)
            if loss is not None:
                self._call_as("backward", self._backward, loss)
        return outputs

    def _forward(self, batch: Any, batch_idx: int, every: int) -> tuple[Tensor | None, dict[str, Any]]:
        """The loss to go backward from, None to leave that out, and the output for `on_train_batch_end`.

        Both are a share of the loss where the optimizer steps on `every` so many batches.
        """
        args = (batch, batch_idx) if self._takes_index else (batch,)
        with self._autocast():
            output = self._call_as("training_step", self._module.training_step, *args)
        if isinstance(output, Tensor):
            loss = output if every == 1 else output / every
            return loss, {"loss": loss.detach().clone()}
        result = ClosureResult.from_training_step_output(output, every)
        if result.closure_loss is None:
            Closure.warning_cache.warn(
                "`training_step` returned `None`. If this was on purpose, ignore this warning..."
            )
            return None, {}
        return result.closure_loss, result.asdict()

    def _zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        progress = self._loop.automatic_optimization.optim_progress.optimizer.zero_grad
        progress.increment_ready()
        self.call("on_before_zero_grad", optimizer)
        progress.increment_started()
        optimizer.zero_grad()
        progress.increment_completed()

    def _backward(self, loss: Tensor) -> None:
        self.call("on_before_backward", loss)
        loss.backward()
        self.call("on_after_backward")

    def _clip(self, optimizer: torch.optim.Optimizer) -> None:
        trainer, name = self._trainer, "configure_gradient_clipping"
        options = {name: getattr(trainer, name) for name in ("gradient_clip_val", "gradient_clip_algorithm")}
        self._call_as(name, self._module.configure_gradient_clipping, optimizer, **options)

    def step_schedulers(self) -> None:
        """Step the schedulers that are due after this batch, but those that wait for a metric."""
        loop = self._loop
        for config in [] if self.accumulates() else self._schedules:
            if loop.batch_progress.current.ready % config.frequency == 0:
                loop.scheduler_progress.increment_ready()
                self._call_as("lr_scheduler_step", config.scheduler.step)
                loop.scheduler_progress.increment_completed()
        if loop._num_ready_batches_reached():
            loop.update_lr_schedulers("epoch", update_plateau_schedulers=False)
