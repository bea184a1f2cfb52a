"""What `self.log` gathers in a run: on which steps it reaches the loggers, and its means over all processes."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from torch import Tensor

from runlab.config.messages import UserError
from runlab.runs.files import METRICS, NOT_METRICS


def logs_this_batch(trainer: L.Trainer) -> bool:
    """Whether what is logged in the current training batch goes to the loggers.

    Lightning's own rule: every `log_every_n_steps`-th batch after which an optimizer stepped. That is no matter of
    `global_step`, which counts each of several optimizers. Holds from `on_train_batch_start` to `on_train_batch_end`.
    """
    every, step = trainer.log_every_n_steps, trainer.fit_loop.epoch_loop._batches_that_stepped + 1  # type: ignore[attr-defined]  # set by a connector
    if not ((every and (step % every == 0 or trainer.should_stop)) or trainer.fast_dev_run):  # type: ignore[attr-defined]
        return False
    return not (trainer.lightning_module.automatic_optimization and trainer.fit_loop._should_accumulate())


def _collections(trainer: L.Trainer) -> list["LoggedValues"]:
    loop = trainer.fit_loop.epoch_loop
    return [results for results in (loop._results, loop.val_loop._results) if isinstance(results, LoggedValues)]


def forget_epoch(trainer: L.Trainer) -> None:
    """An epoch begins: nothing has been logged in it."""
    for results in _collections(trainer):
        results.in_epoch.clear()


def names_in_epoch(trainer: L.Trainer) -> list[str]:
    """Names that have got a value in the current epoch, of training and of validation."""
    return sorted(set().union(*(results.in_epoch for results in _collections(trainer))))


def epoch_metrics(trainer: L.Trainer) -> dict[str, torch.Tensor]:
    """What the current epoch has logged so far by its names, the newest values; no value of an earlier epoch.

    Once the epoch's last batch is done that has the means over the epoch, also in the validation that follows. Every
    process has to call it.
    """
    values = dict(trainer.callback_metrics)
    loop = trainer.fit_loop.epoch_loop
    if trainer.validating and loop._num_ready_batches_reached():
        values |= loop._results.metrics(on_step=False)["callback"]
    # Lightning takes `step` for the x axis of what is logged with it.
    return {name: values[name] for name in names_in_epoch(trainer) if name in values and name != "step"}


class LoggedValues(_ResultCollection):
    """Lightning's collection of logged values, whose epoch values are those of all processes together.

    Lightning leaves this to `sync_dist=True` at each call, without which the first process's values are reported, and
    then divides by a mean number of samples that it has rounded to a whole one. `changed` says whether any value has
    come since it was last set to False. `in_epoch` are the names that have got a value in the current epoch, as
    `trainer.callback_metrics` has them: those keep what was logged in any epoch. `UserError` for a name that
    `metrics.json` has for something else.
    """

    changed = True

    def __init__(self, training: bool) -> None:
        super().__init__(training)
        self.in_epoch: set[str] = set()
        self._checked: dict[str, tuple[Any, dict[str, Any]]] = {}  # the newest options of each value, found right

    def metrics(self, on_step: bool) -> Any:
        metrics = super().metrics(on_step)
        self.in_epoch.update(metrics["callback"])
        return metrics

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def log(self, fx: str, name: str, value: Any, **options: Any) -> None:
        if name in NOT_METRICS and not fx.startswith(("test", "on_test")):  # write_metrics keeps both of the test's
            raise UserError(f"self.log({name!r}): {METRICS} has a {name} of its own; log it by another name")
        in_epoch = options.get("on_epoch", True) and not options.get("rank_zero_only")
        if in_epoch and torch.distributed.is_initialized():
            options["sync_dist"] = True
        batch_size = options.pop("batch_size", None)
        key, is_plain = f"{fx}.{name}", isinstance(value, Tensor) and self.dataloader_idx is None
        metric, options_then = self._checked.get(key, (None, {}))
        is_known = metric is not None and metric is self.get(key) and options == options_then
        # Lightning's checks and copies of the options take longer than the step of a small network: once is enough.
        if is_plain and is_known and metric.value.device == value.device:
            size = self._extract_batch_size(metric, batch_size, metric.meta)
            self.update_metrics(key, value.detach(), size)
            return
        super().log(fx, name, value, batch_size=batch_size, **options)
        if is_plain and self[key].is_tensor and not options.get("enable_graph"):
            self._checked[key] = self[key], options

    def update_metrics(self, key: str, value: Any, batch_size: int) -> None:
        self.changed = True
        metric = self[key]
        metric.forward(value, batch_size)
        metric.has_reset = False
        if torch.distributed.is_initialized() and metric.is_tensor and metric.meta.is_mean_reduction:
            metric.cumulated_batch_size = metric.cumulated_batch_size.double()
