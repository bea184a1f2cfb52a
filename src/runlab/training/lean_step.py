"""One training batch on the short way: the optimizer's step and the schedulers' as Lightning does them."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from runlab.training.step_hooks import StepHooks, is_defined

# Methods of the module that take part in a step: where one is overridden, Lightning's own loop runs.
STEP_METHODS = (
    "optimizer_step",
    "optimizer_zero_grad",
    "backward",
    "lr_scheduler_step",
    "configure_gradient_clipping",
    "clip_gradients",
    "_on_before_batch_transfer",
    "_apply_batch_transfer_handler",
)


def is_common_case(trainer: L.Trainer, loop: _TrainingEpochLoop) -> bool:
    """Whether a batch of this run is: forward, zero_grad, backward and one optimizer step on one device, no more."""
    module = trainer.lightning_module
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and trainer.strategy.model is module
        and type(trainer.precision_plugin) is Precision
        and type(trainer.profiler) is PassThroughProfiler  # type: ignore[attr-defined]  # set by a connector
        and module.automatic_optimization
        and not loop.automatic_optimization._skip_backward
        and trainer.accumulate_grad_batches == 1
        and not trainer.gradient_clip_val
        and len(trainer.optimizers) == 1
        and not isinstance(trainer.optimizers[0], LightningOptimizer)
        and not any(is_defined(module, method, L.LightningModule) for method in STEP_METHODS)
    )


class LeanStep:
    """Runs the optimizer's and the schedulers' part of a batch, with the counters of the loop it is made for.

    Made anew for each epoch, since callbacks and hooks may be others by then.
    """

    def __init__(self, trainer: L.Trainer, loop: _TrainingEpochLoop) -> None:
        self._trainer, self._loop, self._module = trainer, loop, trainer.lightning_module
        self.hooks = StepHooks(trainer)
        self._takes_index = is_param_in_hook_signature(self._module.training_step, "batch_idx", min_args=2)

    def optimize(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One step of the optimizer; returns `training_step`'s output as `on_train_batch_end` gets it."""
        module, hooks, takes_index = self._module, self.hooks, self._takes_index
        optimizer = self._trainer.optimizers[0]
        progress = self._loop.automatic_optimization.optim_progress.optimizer
        step, zero_grad = progress.step, progress.zero_grad
        names = module.__dict__  # see StepHooks
        outputs: dict[str, Any] | None = None

        def forward_backward() -> None:
            nonlocal outputs
            names["_current_fx_name"] = "training_step"
            output = module.training_step(batch, batch_idx) if takes_index else module.training_step(batch)
            names["_current_fx_name"] = "optimizer_step"
            loss: Tensor | None
            if isinstance(output, Tensor):
                loss, outputs = output, {"loss": output.detach().clone()}
            else:
                result = ClosureResult.from_training_step_output(output)
                loss, outputs = result.closure_loss, {} if result.loss is None else result.asdict()
            if loss is None:
                Closure.warning_cache.warn(
                    "`training_step` returned `None`. If this was on purpose, ignore this warning..."
                )
            zero_grad.increment_ready()
            hooks.call("on_before_zero_grad", optimizer)
            zero_grad.increment_started()
            optimizer.zero_grad()
            zero_grad.increment_completed()
            if loss is not None:
                names["_current_fx_name"] = "backward"
                hooks.call("on_before_backward", loss)
                loss.backward()
                hooks.call("on_after_backward")
                names["_current_fx_name"] = "optimizer_step"

        def closure() -> Tensor | None:
            if torch.is_grad_enabled():
                forward_backward()
            else:  # an optimizer that calls its closure under no_grad
                with torch.enable_grad():
                    forward_backward()
            hooks.call("on_before_optimizer_step", optimizer)
            assert outputs is not None
            return outputs.get("loss")

        previous, names["_current_fx_name"] = names["_current_fx_name"], "optimizer_step"
        step.increment_ready()
        optimizer.step(closure=closure)  # type: ignore[arg-type]  # None where training_step returned None, as in Lightning
        step.increment_completed()
        names["_current_fx_name"] = previous
        if outputs is None:  # the optimizer never called its closure: raise Lightning's error
            return Closure(lambda: ClosureResult(None)).consume_result().asdict()
        return outputs

    def step_schedulers(self) -> None:
        """Step the schedulers that are due after this batch, but those that wait for a metric."""
        loop, names = self._loop, self._module.__dict__
        for config in self._trainer.lr_scheduler_configs:
            if (
                config.interval == "step"
                and not config.reduce_on_plateau
                and loop.batch_progress.current.ready % config.frequency == 0
            ):
                loop.scheduler_progress.increment_ready()
                previous, names["_current_fx_name"] = names["_current_fx_name"], "lr_scheduler_step"
                config.scheduler.step()  # type: ignore[call-arg]  # none that wait for a metric
                names["_current_fx_name"] = previous
                loop.scheduler_progress.increment_completed()
        if loop._num_ready_batches_reached():
            loop.update_lr_schedulers("epoch", update_plateau_schedulers=False)
