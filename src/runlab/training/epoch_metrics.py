"""What an epoch has logged so far, in checkpoints: after a resume its mean is that of the whole epoch."""

import builtins
from dataclasses import fields
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import Metric

from runlab.training.processes import of_each_process, of_this_process

# The fields of Lightning's _Metadata that are plain values.
PLAIN = [field.name for field in fields(_Metadata) if field.name not in ("reduce_fx", "_sync")]


class SaveEpochMetrics(L.Callback):
    """Saves in the middle of an epoch what `self.log` and torchmetrics have gathered, and puts it back on a resume.

    Lightning drops it, so that `self.log(..., on_epoch=True)` would give the mean over the rest of the epoch alone.
    `checkpoint["epoch_metrics"]` is a list with the state of each process; it is missing between two epochs. Every
    process has to take part in saving. `ValueError` on resuming with another number of processes.
    """

    def __init__(self) -> None:
        self._to_restore: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        epochs = trainer.fit_loop.epoch_progress.current
        if epochs.processed == epochs.ready:  # type: ignore[attr-defined]  # the epoch is over
            return
        connector = trainer._logger_connector
        mine = {
            "logged": {key: _state(m) for key, m in trainer.fit_loop.epoch_loop._results.items() if not m.has_reset},
            "metrics": {name: _metric_state(m) for name, m in _metrics(pl_module).items() if m._update_count},
            "callback": dict(connector._callback_metrics),
            "progress_bar": dict(connector._progress_bar_metrics),
        }
        checkpoint["epoch_metrics"] = of_each_process(trainer, mine)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        if "epoch_metrics" in checkpoint and trainer.state.fn == TrainerFn.FITTING:
            self._to_restore = of_this_process(trainer, checkpoint["epoch_metrics"], "logged values")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        state, self._to_restore = self._to_restore, None
        if state is None:
            return
        metrics, connector = _metrics(pl_module), trainer._logger_connector
        for name, saved in state["metrics"].items():
            if name in metrics:
                _restore_metric(metrics[name], saved)
        for key, saved in state["logged"].items():
            trainer.fit_loop.epoch_loop._results[key] = _restored(saved, metrics, trainer)
        connector._callback_metrics.update(state["callback"])
        connector._progress_bar_metrics.update(state["progress_bar"])
        # In the first batch that it sees of an epoch the connector drops what is left of the last one: say that the
        # first batch has been.
        connector._first_loop_iter = True


def _metrics(module: L.LightningModule) -> dict[str, Metric]:
    return {name: metric for name, metric in module.named_modules() if isinstance(metric, Metric)}


def _metric_state(metric: Metric) -> dict[str, Any]:
    # A list is copied: the metric goes on to append to it.
    states = {name: getattr(metric, name) for name in metric._defaults}
    states = {name: list(value) if isinstance(value, list) else value for name, value in states.items()}
    return {"states": states, "update_count": metric._update_count, "forward_cache": metric._forward_cache}


def _restore_metric(metric: Metric, saved: dict[str, Any]) -> None:
    def to_device(value: Any) -> Any:
        return [v.to(metric.device) for v in value] if isinstance(value, list) else value.to(metric.device)

    for name, value in saved["states"].items():
        setattr(metric, name, to_device(value))
    metric._update_count, metric._forward_cache, metric._computed = saved["update_count"], saved["forward_cache"], None


def _state(metric: _ResultMetric) -> dict[str, Any]:
    """One logged value as plain values and tensors."""
    meta, reduce_fx = metric.meta, metric.meta.reduce_fx
    state = {
        "meta": {name: getattr(meta, name) for name in PLAIN},
        "reduce_fx": reduce_fx.__name__,
        "of_torch": reduce_fx is getattr(torch, reduce_fx.__name__),  # or the built-in min, max or sum
        "sync": {"_should": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only},
        "update_count": metric._update_count,
        "forward_cache": metric._forward_cache,
    }
    if metric.is_tensor:
        state["value"] = metric.value.detach()
        if meta.is_mean_reduction:
            state["weight"] = metric.cumulated_batch_size
    return state


def _restored(saved: dict[str, Any], metrics: dict[str, Metric], trainer: L.Trainer) -> _ResultMetric:
    reduce_fx = getattr(torch if saved["of_torch"] else builtins, saved["reduce_fx"])
    meta = _Metadata(**saved["meta"], reduce_fx=reduce_fx)
    # As LightningModule.log makes it; a process group of the user's own cannot be saved.
    meta.sync = _Sync(fn=trainer.strategy.reduce, **saved["sync"])
    metric = _ResultMetric(meta, is_tensor="value" in saved)
    device = trainer.strategy.root_device
    if metric.is_tensor:
        metric.value = saved["value"].to(device)
        if meta.is_mean_reduction:
            metric.cumulated_batch_size = saved["weight"].to(device)
    else:
        metric.value = metrics[saved["meta"]["metric_attribute"]]
    cache = saved["forward_cache"]
    metric._forward_cache = cache.to(device) if isinstance(cache, Tensor) else cache
    metric._update_count, metric.has_reset = saved["update_count"], False
    return metric
