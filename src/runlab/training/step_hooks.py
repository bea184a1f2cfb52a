"""The hooks of one training batch that somebody defines, and how they are called."""

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def is_defined(owner: object, hook: str, *bases: type) -> bool:
    """Whether `owner` has a function of its own named `hook`, instead of one inherited from one of `bases`."""
    function = getattr(owner, hook)
    inherited = [getattr(base, hook, None) for base in bases]
    return callable(function) and getattr(function, "__func__", function) not in inherited


class StepHooks:
    """The hooks of a training batch that a callback, the module or the data module defines, found once an epoch.

    They are called in Lightning's order, callbacks before the module. While one runs, the module's
    `_current_fx_name` is its name, by which `self.log` knows who is logging. As in Lightning, the name stays where a
    hook raises. It is set in the module's `__dict__`, since `nn.Module.__setattr__` takes ten times as long.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        self._trainer = trainer
        self._module = module = trainer.lightning_module
        self._of_callbacks = {
            hook: [getattr(callback, hook) for callback in trainer.callbacks if _is_needed(callback, hook)]  # type: ignore[attr-defined]  # Trainer sets it in a connector
            for hook in STEP_HOOKS
        }
        self._of_module = {
            hook: getattr(module, hook) for hook in STEP_HOOKS if is_defined(module, hook, L.LightningModule)
        }
        self._defined = {hook for hook in STEP_HOOKS if self._of_callbacks[hook] or hook in self._of_module}
        self._before_transfer = self._transfer_hook("on_before_batch_transfer", None)
        self._transfer = self._transfer_hook("transfer_batch_to_device", "batch_to_device")
        self._after_transfer = self._transfer_hook("on_after_batch_transfer", "batch_to_device")
        self._device = trainer.strategy.root_device
        self._on_cpu = self._device.type == "cpu"

    def call(self, hook: str, *args: Any) -> Any:
        """Call `hook` of each callback, then of the module; return what the module's returns."""
        if hook not in self._defined:
            return None
        names = self._module.__dict__
        previous, names["_current_fx_name"] = names["_current_fx_name"], hook
        for function in self._of_callbacks[hook]:
            function(self._trainer, self._module, *args)
        function = self._of_module.get(hook)
        response = function(*args) if function else None
        names["_current_fx_name"] = previous
        return response

    def transfer(self, batch: Any) -> Any:
        """Move `batch` to the device, by way of the three transfer hooks."""
        if self._before_transfer:
            batch = self._before_transfer(batch, 0)
        if self._transfer:
            batch = self._transfer(batch, self._device, 0)
        elif not self._on_cpu or (moved := _already_on_cpu(batch)) is None:
            batch = self._module.transfer_batch_to_device(batch, self._device, 0)
        else:
            batch = moved
        if self._after_transfer:
            batch = self._after_transfer(batch, 0)
        return batch

    def _transfer_hook(self, hook: str, outer: str | None) -> Callable[..., Any] | None:
        """The function to call for `hook`; None where it is Lightning's own.

        While a data module's hook runs, Lightning leaves the name that stood there before, `outer`.
        """
        # Lightning's rule for which of module and data module has the say, with its warning where both define it.
        owner = self._trainer._data_connector._datahook_selector.get_instance(hook)  # type: ignore[union-attr]  # set by fit
        if not is_defined(owner, hook, L.LightningModule, L.LightningDataModule):
            return None
        function, names, name = getattr(owner, hook), self._module.__dict__, hook if owner is self._module else outer

        def named(*args: Any) -> Any:
            previous, names["_current_fx_name"] = names["_current_fx_name"], name
            result = function(*args)
            names["_current_fx_name"] = previous
            return result

        return named


def _is_needed(callback: L.Callback, hook: str) -> bool:
    if not is_defined(callback, hook, L.Callback):
        return False
    # The default ModelCheckpoint saves after epochs and validations only: at the end of a batch it just returns.
    return not (
        hook == "on_train_batch_end"
        and isinstance(callback, ModelCheckpoint)
        and not is_defined(callback, hook, ModelCheckpoint)
        and callback._every_n_train_steps < 1
        and callback._train_time_interval is None
    )


def _already_on_cpu(batch: Any) -> Any:
    """What Lightning's transfer to the CPU returns for plain tensors that are there already; None for anything else.

    A list is copied, as Lightning does: a training step may change it in place, and the loader may hand out the same
    list again.
    """
    kind = type(batch)
    if kind is Tensor:
        return batch if batch.is_cpu else None
    if kind is not list and kind is not tuple:
        return None
    for item in batch:
        if type(item) is not Tensor or not item.is_cpu:
            return None
    return batch if kind is tuple else list(batch)
