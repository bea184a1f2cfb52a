"""When a checkpoint is written, and what the engine keeps in it."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden

from runlab.config.messages import Diverged, UserError
from runlab.config.processes import in_sweep
from runlab.data.connector import unresumable
from runlab.runs.files import atomic_write
from runlab.training.schedulers import step_plateau


class BestCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, whose best checkpoint is also `best.ckpt`, whatever its file names are.

    With `save_top_k` other than 1 each file has its epoch and optimizer step in its name. A metric's name in `filename`
    makes no folder: `/` is written as `_`.
    """

    def __init__(self, dirpath: str, filename: str, save_top_k: int = 1, **options: Any) -> None:
        if save_top_k != 1 and "{" not in filename:
            filename += "-{epoch}-{step}"  # else one file would take the place of another
        super().__init__(dirpath=dirpath, filename=filename, save_top_k=save_top_k, **options)
        self.best_path = Path(dirpath, "best.ckpt")

    def format_checkpoint_name(self, *args: Any, **kwargs: Any) -> str:
        path = super().format_checkpoint_name(*args, **kwargs)
        return str(Path(str(self.dirpath), os.path.relpath(path, str(self.dirpath)).replace("/", "_")))

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            self._link_best()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._link_best()  # a kill may have come before it

    def _link_best(self) -> None:
        best = Path(self.best_model_path)
        if self.best_model_path and best.is_file() and not (self.best_path.exists() and best.samefile(self.best_path)):
            with atomic_write(self.best_path) as temporary:
                try:
                    os.link(best, temporary)
                except OSError:  # a file system without hard links
                    shutil.copyfile(best, temporary)


class LastCheckpoint(Checkpoint):
    """Writes `path` at the end of each epoch, and where training ends in the middle of one, after the last batch.

    A run that `trainer.max_steps` or `trainer.max_time` has ended can so be resumed with more of them.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        if stage == "fit":
            trainer.fit_loop.epoch_loop.after_batch.append(partial(self._save_at_end, trainer))

    def _save_at_end(self, trainer: Trainer, ends: bool) -> None:
        if ends and not unresumable(trainer):
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if trainer.fit_loop.epoch_loop._num_ready_batches_reached() or unresumable(trainer):
            trainer.save_checkpoint(self.path)


class RunState(Callback):
    """Keeps in each checkpoint what it scored and how it can be resumed; never saves weights that are not finite.

    `metrics` are plain floats by their logged names. `run` says whether the training data can be resumed from there
    (`resumable`) and, where early stopping or a timer has ended the training, with which settings (`stopped_by`): with
    the same ones a resumed run goes straight to the test.
    `configured` holds each callback with the arguments that its config has: they win over those in a checkpoint.
    """

    def __init__(self, configured: list[tuple[Callback, dict[str, Any]]], stopping: str, hint: str) -> None:
        self.configured, self.stopping, self.hint = configured, stopping, hint
        self.loaded: dict[str, Any] = {}  # the metrics of the checkpoint that is resumed
        self.resumed: dict[str, Any] = {}  # the checkpoint that is resumed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        # Lightning restores weights before it gives the module its precision: 64 bits would be cut to 32.
        trainer.precision_plugin.convert_module(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values()):
            raise Diverged(f"weights are not finite at optimizer step {trainer.global_step}; {self.hint}")
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items() if name != "step"}
        checkpoint["metrics"] = metrics or self.loaded
        epochs: Any = trainer.fit_loop.epoch_progress.current
        inside_epoch = trainer.training and not trainer.fit_loop.epoch_loop._num_ready_batches_reached()
        checkpoint["run"] = {
            "stopped_by": self.stopping if trainer.should_stop else None,
            "resumable": not (inside_epoch and unresumable(trainer)),
            "epoch_done": epochs.processed == epochs.ready,
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
            "frozen": [name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad],
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        self.loaded, self.resumed = checkpoint["metrics"], checkpoint
        if checkpoint["run"]["stopped_by"] == self.stopping:
            trainer.should_stop = True
        present = {callback.state_key: type(callback).__name__ for callback, _ in self.configured}
        for key in checkpoint["callbacks"].keys() - present:
            if (name := key.partition("{")[0]) in present.values():
                raise UserError(f"callbacks: the run to resume has a {key}; leave what this {name} watches as it was")
        for callback, arguments in self.configured:
            if state := checkpoint["callbacks"].get(callback.state_key):
                state.update({name: value for name, value in arguments.items() if name in state})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        checkpoint, self.resumed = self.resumed, {}
        if not checkpoint:
            return
        run, parameters = checkpoint["run"], pl_module.named_parameters()
        for name, parameter in parameters:
            parameter.requires_grad_(name not in run["frozen"])
        # Lightning steps ReduceLROnPlateau after the checkpoint, and calls no hook of an epoch's start within an epoch.
        if run["epoch_done"]:
            step_plateau(trainer, checkpoint["epoch"], checkpoint["metrics"])
        else:
            trainer.accumulate_grad_batches = run["accumulate_grad_batches"]


def best_path(trainer: Trainer, monitor: str | None) -> Path | None:
    """The checkpoint to test after `fit`: the best one by `monitor`, else the last one; None where none was written.

    Of several `ModelCheckpoint`s it is the best of those that watch `monitor`.
    """
    saved = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and _path_of(c).is_file()]
    watching = [c for c in saved if c.monitor == monitor]
    if scored := [c for c in watching if c.best_model_score is not None]:
        best = max(scored, key=lambda c: float(c.best_model_score or 0) * (1 if c.mode == "max" else -1))
        return _path_of(best)
    last = [Path(c.path) for c in trainer.checkpoint_callbacks if isinstance(c, LastCheckpoint)]
    paths = [*map(_path_of, watching), *last, *map(_path_of, saved)]
    return next((path for path in paths if path.exists()), None)


def _path_of(callback: ModelCheckpoint) -> Path:
    return callback.best_path if isinstance(callback, BestCheckpoint) else Path(callback.best_model_path)


def test(
    trainer: Trainer, task: LightningModule, data: LightningDataModule, tested: str | Path | None
) -> dict[str, Any]:
    """Test the task's weights, and return the test's metrics; a line says so where nothing is tested, and why."""
    missing = [
        f"{type(owner).__name__} has no {hook}"
        for owner, hook in ((data, "test_dataloader"), (task, "test_step"))
        if not is_overridden(hook, owner)
    ]
    if missing and not in_sweep():
        rank_zero_only(print)(f"nothing is tested: {' and '.join(missing)}", flush=True)
    if missing:
        return {}
    if not tested:
        rank_zero_only(print)("no checkpoint was written: the weights at hand are tested", flush=True)
    trainer.test(task, data, verbose=False)
    return dict(trainer.callback_metrics)
