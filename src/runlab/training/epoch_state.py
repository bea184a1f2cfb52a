"""What an epoch has gathered so far, in checkpoints: gradients, logged values and metrics."""

import sys
from functools import partial
from typing import Any, cast

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from lightning.pytorch.utilities.memory import recursive_detach
from torch import Tensor
from torchmetrics import Metric

from runlab.config.messages import UserError
from runlab.data.object_state import GENERATORS
from runlab.training.attributes import LIMIT, Attributes, is_users, restore_task
from runlab.training.logged_values import LoggedValues, names_in_epoch

REDUCTIONS = (torch.mean, torch.sum, torch.min, torch.max, sum, min, max)  # all that `self.log` takes
METRICS = ("callback_metrics", "logged_metrics", "progress_bar_metrics")  # attributes of a Trainer


def of_each_process(trainer: L.Trainer, mine: Any) -> list[Any]:
    """Return `mine` of every process, in the order of their ranks. All of them have to call it."""
    if trainer.world_size == 1:
        return [mine]
    every = [None] * trainer.world_size
    torch.distributed.all_gather_object(every, mine)
    return every


class EpochState(L.Callback):
    """Saves what Lightning leaves out of a checkpoint within an epoch, and puts it back on a resume.

    - The gradients of an accumulation window: without them a resumed run would step with part of them. With manual
      optimization they are saved whenever there are any: what to keep between batches is the module's own affair.
    - What `self.log` and torchmetrics have gathered, within an epoch or over many: without it
      `self.log(..., on_epoch=True)` would give the mean over the rest of the epoch alone.
    - The newest values of all epochs, at any time: callbacks and schedules look at them.
    - The `Attributes` that training has changed: what a module counts by hand.

    A line says which of them cannot be restored, and which hook of an epoch's start is not called again.

    `checkpoint["epoch_state"]` is a list with the state of each process. Every process has to take part in saving.
    `UserError` on resuming within an epoch with another number of processes.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}
        self._tested: dict[str, Any] = {}  # the attributes that the tested checkpoint has of this process
        self._attributes: Attributes | None = None
        self._plain: dict[str, Any] = {}  # the numbers and texts among them, before the sanity check

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            trainer.fit_loop.after_start = partial(self._after_start, trainer, pl_module)  # type: ignore[attr-defined]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        state: dict[str, Any] = {}
        if not pl_module.automatic_optimization or trainer.fit_loop._should_accumulate():
            gradients = {name: p.grad.detach() for name, p in pl_module.named_parameters() if p.grad is not None}
            state |= {"gradients": gradients} if gradients else {}
        epochs: Any = trainer.fit_loop.epoch_progress.current
        if epochs.processed < epochs.ready:
            results = trainer.fit_loop.epoch_loop._results
            state["logged"] = {key: _saved_value(value) for key, value in results.items() if not value.has_reset}
        kept = _metrics(pl_module)
        if "logged" not in state:  # Lightning begins those anew that it has got from `self.log`
            loops = (trainer.fit_loop.epoch_loop, trainer.fit_loop.epoch_loop.val_loop)
            values = [value for loop in loops for value in loop._results.values() if not value.is_tensor]
            logged = {value.meta.metric_attribute for value in values}
            kept = {name: metric for name, metric in kept.items() if name not in logged}
        saved = {name: _saved_metric(metric) for name, metric in kept.items()}
        large = [name for name, metric in saved.items() if _size(metric) > LIMIT]
        state["torchmetrics"] = {name: metric for name, metric in saved.items() if name not in large}
        state["metrics"] = {name: dict(getattr(trainer, name)) for name in METRICS}
        state["in_epoch"] = names_in_epoch(trainer)
        if self._attributes:
            state["attributes"], left_out = self._attributes.changed()
            state["left_out"] = [*large, *left_out]
        checkpoint["epoch_state"] = of_each_process(trainer, state)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        every = checkpoint.get("epoch_state", [{}])
        if len(every) != trainer.world_size and every[0].keys().isdisjoint(("gradients", "logged")):
            every = [every[0]] * trainer.world_size
        if len(every) != trainer.world_size:
            raise UserError(
                f"trainer.devices: the checkpoint was saved within an epoch by {len(every)} process(es), this run has"
                f" {trainer.world_size}; resume it with as many"
            )
        self._loaded = every[trainer.global_rank]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._plain = Attributes(pl_module, trainer).plain_values()

    def before_test(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put back what the tested checkpoint has of the module's attributes: they belong to its weights.

        What `setup` and the hooks of the test's start set then is for the test.
        """
        if every := checkpoint.get("epoch_state"):
            self._tested = every[trainer.global_rank % len(every)].get("attributes", {})
            # Those that had not changed by then are as they were before the training.
            before = {key: [value, False, False] for key, value in self._plain.items()}
            restore_task(pl_module, before | self._tested, trainer.strategy.root_device)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Once more the state of networks and optimizers, which `setup` may have made anew, without their weights."""
        parts = {key for key, part in Attributes(pl_module).stateful() if not isinstance(part, GENERATORS)}
        restore_task(pl_module, {key: value for key, value in self._tested.items() if key in parts})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        metrics = move_data_to_device(self._loaded.get("metrics", {}), trainer.strategy.root_device)
        for name, values in metrics.items():
            getattr(trainer._logger_connector, f"_{name}").update(values)

    def _after_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put back the rest, which a hook of the training's start may have begun anew."""
        state, self._loaded = self._loaded, {}
        self._attributes = Attributes(pl_module, trainer)
        self._attributes.note(self._plain)
        missing = self._attributes.restore(state.get("attributes", {})) + state.get("left_out", [])
        if trainer.is_global_zero and missing:
            reason = "too large, or of a kind that a checkpoint cannot hold (NumPy values, objects)"
            print(f"resumed: not restored, as {reason}: {', '.join(missing)}", file=sys.stderr)
        for name, gradient in state.get("gradients", {}).items():
            parameter = pl_module.get_parameter(name)
            parameter.grad = gradient.to(parameter.device)
        metrics = _metrics(pl_module)
        for name in metrics.keys() & state.get("torchmetrics", {}).keys():
            _restore_metric(metrics[name], state["torchmetrics"][name])
        if "logged" not in state:
            return
        # Lightning calls it at an epoch's start alone, and so it stays: a hook that halves a rate or counts would do so
        # twice. What it has set of weights, optimizers, frozen layers and plain attributes is in the checkpoint.
        parts = (type(part) for part in (*trainer.callbacks, pl_module))  # type: ignore[attr-defined]  # set by a connector
        if trainer.is_global_zero and (own := [kind for kind in parts if is_users(kind.on_train_epoch_start)]):
            names = ", ".join(kind.__name__ for kind in own)
            text = "is not called again in this epoch; attributes that it has set are restored, other objects are not"
            print(f"resumed within an epoch: on_train_epoch_start of {names} {text}", file=sys.stderr)
        connector, results = trainer._logger_connector, cast("LoggedValues", trainer.fit_loop.epoch_loop._results)
        results.in_epoch.update(state["in_epoch"])
        for key, saved in state["logged"].items():
            results[key] = _restored_value(saved, metrics, trainer)
        # In the first batch that it sees of an epoch the connector drops what is left of the last one: say that the
        # first batch has been.
        connector._first_loop_iter = True


def _metrics(module: L.LightningModule) -> dict[str, Metric]:
    return {name: metric for name, metric in module.named_modules() if isinstance(metric, Metric)}


def _saved_metric(metric: Metric) -> dict[str, Any]:
    counted = {"_update_count": metric._update_count, "_forward_cache": metric._forward_cache}
    # Such as the smallest value of a MinMaxMetric, which is no state of it.
    own = {name: value.detach().clone() for name, value in vars(metric).items() if isinstance(value, Tensor)}
    return metric._copy_state_dict() | {name: own[name] for name in own.keys() - {"_computed"}} | counted


def _size(saved: dict[str, Any]) -> int:
    """Bytes of tensors, of which a metric of samples has a list."""
    return sum(leaf.nbytes for leaf in torch.utils._pytree.tree_leaves(saved) if isinstance(leaf, Tensor))


def _restore_metric(metric: Metric, saved: dict[str, Any]) -> None:
    for name, value in saved.items():
        setattr(metric, name, value)
    metric._computed = None
    metric.to(metric.device)


def _saved_value(metric: _ResultMetric) -> dict[str, Any]:
    """One logged value as plain values and tensors; of a torchmetrics object only its name in the module."""
    meta = metric.meta
    names = ["_forward_cache", "_update_count"]
    names += ["value"] * metric.is_tensor + ["cumulated_batch_size"] * (metric.is_tensor and meta.is_mean_reduction)
    return {
        "meta": vars(meta) | {"reduce_fx": REDUCTIONS.index(meta.reduce_fx), "_sync": None},
        "sync": {"_should": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only},
        "state": {name: recursive_detach(getattr(metric, name)) for name in names},
    }


def _restored_value(saved: dict[str, Any], metrics: dict[str, Metric], trainer: L.Trainer) -> _ResultMetric:
    meta = _Metadata(**saved["meta"] | {"reduce_fx": REDUCTIONS[saved["meta"]["reduce_fx"]]})
    # As LightningModule.log makes it; a process group of the user's own cannot be saved.
    meta.sync = _Sync(fn=trainer.strategy.reduce, **saved["sync"])
    metric = _ResultMetric(meta, is_tensor="value" in saved["state"])
    vars(metric).update(saved["state"])
    if not metric.is_tensor:
        metric.value = metrics[saved["meta"]["metric_attribute"]]
    return metric.to(trainer.strategy.root_device)
