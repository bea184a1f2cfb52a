"""Whether each metric that something waits for is logged: asked as early as the answer is sure."""

from collections.abc import Iterator
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities.model_helpers import is_overridden

from runlab.config.messages import UserError


class Monitors:
    """The metrics that a run waits for: the config's, those of its callbacks and of its schedulers.

    What a validation logs is known after the sanity check, what a training step logs after the first batch whose
    values are logged. Each method raises `UserError` for a metric that will not come.
    """

    def __init__(self, monitor: str | None) -> None:
        self.monitor = monitor
        self.validated: dict[str, None] | None = None  # the names that the first validation has logged
        self.done = False

    def _all(self, trainer: Trainer) -> Iterator[tuple[str, str, str]]:
        """Each metric with how to name it and what else to do about it."""
        if self.monitor:
            yield self.monitor, f"monitor={self.monitor}", ", or monitor=null"
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(name := getattr(callback, "monitor", None), str):
                yield name, f"{type(callback).__name__} with monitor={name}", ""
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.strict:
                yield str(config.monitor), f"scheduler.monitor={config.monitor}", ""

    def check_validation(self, trainer: Trainer) -> None:
        """After the first validation: those whose names begin with `val`."""
        if trainer.sanity_checking and _asks_for_the_sanity_check(trainer.lightning_module):
            return  # it may log less than a validation
        if self.validated is None:
            self.validated = _names(trainer)
            self._check(trainer, self.validated, "the validation logs", prefix="val")

    def check_start(self, trainer: Trainer, task: LightningModule) -> None:
        """Before the first batch: some runs validate nothing."""
        loop = trainer.fit_loop.epoch_loop.val_loop
        every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs or -1
        if not is_overridden("validation_step", task):
            why = f"{type(task).__name__} has no validation_step"
        elif not trainer.limit_val_batches:
            why = "trainer.limit_val_batches is 0"
        elif not trainer.enable_validation or (loop._combined_loader is not None and not sum(trainer.num_val_batches)):
            why = f"{type(trainer.datamodule).__name__} has nothing to validate on"  # type: ignore[attr-defined]
        elif every and every > epochs != -1:
            why = f"trainer.check_val_every_n_epoch={every} and trainer.max_epochs={epochs}"
        else:
            return
        self.validated = {}
        for name, owner, _ in self._all(trainer):
            if name.startswith("val"):
                way = "add monitor=null" if name == self.monitor else "leave it out"
                raise UserError(f"{owner}: is never logged, as {why}; {way}")

    def check_training(self, trainer: Trainer, task: LightningModule) -> None:
        """After the first batch whose values are logged: all, unless a hook is still to come that may log more."""
        if not (self.done or self.validated is None or _may_log_later(trainer, task)):
            self._check(trainer, self.validated | _names(trainer), "this run logs")
        self.done = True

    def _check(self, trainer: Trainer, found: dict[str, None], what: str, prefix: str = "") -> None:
        for name, owner, or_else in self._all(trainer):
            if name.startswith(prefix) and name not in found:
                raise UserError(f"{owner}: {what} {', '.join(found) or 'nothing'}; choose one of them{or_else}")


def _names(trainer: Trainer) -> dict[str, None]:
    """The names by which the values that the current loop has gathered can be monitored, in their order."""
    results: Any = trainer._results
    steps = (True, False) if results.training else (False,)
    names = (name for value in results.values() for step in steps for name in results._forked_name(value, step))
    return {name: None for name in names if name != "step"}


def _may_log_later(trainer: Trainer, task: LightningModule) -> bool:
    """Whether the end of an epoch, or a validation other than the sanity check, may log under another name."""
    callbacks = [c.on_train_epoch_end for c in trainer.callbacks if not isinstance(c, LambdaCallback)]  # type: ignore[attr-defined]
    return (
        is_overridden("on_train_epoch_end", task)
        or _asks_for_the_sanity_check(task)
        or any({"log", "log_dict"} & set(_words(hook)) for hook in callbacks)
        or any(isinstance(callback, LambdaCallback) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    )


def _asks_for_the_sanity_check(task: LightningModule) -> bool:
    return any("sanity_checking" in _words(hook) for hook in (task.validation_step, task.on_validation_epoch_end))


def _words(function: Any) -> tuple[str, ...]:
    """The names of attributes that a function's own code looks up."""
    code = getattr(function, "__code__", None)
    return code.co_names if code else ()
