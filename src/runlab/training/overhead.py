"""What Lightning does at every step though nobody asked for it, left out: no number changes, only the time of a step.

`make bench` shows what it is worth; benchmarks/README.md says what each part is worth alone.
"""

from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.profilers import Profiler

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
_NOTHING = nullcontext()


class NoProfiler(Profiler):
    """Measures nothing, and does so in less time than Lightning's own, which enters a generator 48 times a step."""

    def start(self, action_name: str) -> None: ...

    def stop(self, action_name: str) -> None: ...

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # noqa: ARG002
        return _NOTHING


def without_idle_hooks(callback: Callback) -> Callback:
    """Lightning calls each callback at each hook, also where it does nothing, but passes over what is no function."""
    for hook in STEP_HOOKS:
        if getattr(getattr(callback, hook), "__func__", None) is getattr(Callback, hook):
            setattr(callback, hook, None)
    if type(callback) is ModelCheckpoint and not callback._every_n_train_steps and not callback._train_time_interval:
        callback.on_train_batch_end = None  # type: ignore[assignment, method-assign]  # it saves after epochs only
    return callback


class LeanModule(LightningModule):
    """A `LightningModule` whose idle hooks are not called. A subclass that defines one of them gets it called."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Lightning asks for the arguments of training_step at every step: here is the answer.
        cls.training_step.__signature__ = signature(cls.training_step)  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # set 30 times a step; nn.Module looks for parameters and submodules each time
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


for _hook in STEP_HOOKS:
    setattr(LeanModule, _hook, None)
