"""When a checkpoint is written, and which one is tested."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden

from runlab.config.messages import UserError
from runlab.config.processes import in_sweep
from runlab.data.connector import unresumable
from runlab.data.seeding import seed_all
from runlab.runs.files import atomic_write
from runlab.training.epoch_state import EpochState


class BestCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, whose best checkpoint is also `best.ckpt`, whatever its file names are.

    With `save_top_k` other than 1 each file has its epoch and optimizer step in its name. A metric's name in `filename`
    makes no folder: `/` is written as `_`.
    """

    def __init__(self, dirpath: str, filename: str, save_top_k: int = 1, **options: Any) -> None:
        if save_top_k != 1 and "{" not in filename:
            filename += "-{epoch}-{step}"  # else one file would take the place of another
        if options.get("monitor") is None:  # the newest is the best: of each epoch, whether it is validated or not
            options.setdefault("save_on_train_epoch_end", True)
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


def check_last(callbacks: dict[str, Any]) -> None:
    """`UserError` where a `ModelCheckpoint` is to write the file of a `LastCheckpoint` too."""
    paths = {Path(callback.path): name for name, callback in callbacks.items() if isinstance(callback, LastCheckpoint)}
    for name, callback in callbacks.items():
        if isinstance(callback, ModelCheckpoint) and callback.save_last:
            file = f"{callback.CHECKPOINT_NAME_LAST}{callback.FILE_EXTENSION}"
            for path, other in paths.items():
                if path == Path(callback.dirpath or path.parent, file):
                    raise UserError(
                        f"callbacks.{name}.save_last={callback.save_last}: callbacks.{other} writes {file} in that"
                        f" folder; set it to false, or leave the other out by ~callbacks.{other}"
                    )


def best_path(trainer: Trainer, monitor: str | None) -> Path | None:
    """The checkpoint to test after `fit`: the best one by `monitor`, else the last one; None where none was written.

    Of several `ModelCheckpoint`s it is the best of those that watch `monitor`.
    """
    saved = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and _path_of(c).is_file()]
    saved = [c for c in saved if not c.save_weights_only]  # such a file has no metrics
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
    trainer: Trainer, task: LightningModule, data: LightningDataModule | None, checkpoint: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Test the task's weights, and return the test's metrics; a line says so where nothing is tested, and why.

    `checkpoint` is what the tested one holds. The data are set up with the random numbers that they had to train, so
    that what they draw is split alike.
    """
    missing = [
        f"{type(owner).__name__} has no {hook}"
        for owner, hook in ((data or task, "test_dataloader"), (task, "test_step"))
        if not is_overridden(hook, owner)
    ]
    if missing and not in_sweep():
        rank_zero_only(print)(f"nothing is tested: {' and '.join(missing)}", flush=True)
    if missing:
        return {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
        if isinstance(callback, EpochState):
            callback.before_test(trainer, task, checkpoint)
    if "state_dict" not in checkpoint:
        rank_zero_only(print)("no checkpoint was written: the weights at hand are tested", flush=True)
    seed_all(seed)
    trainer.test(task, data, verbose=False)
    if not any(trainer.num_test_batches):
        rank_zero_only(print)("nothing is tested: test_dataloader gives no batch", flush=True)
    return dict(trainer.callback_metrics)
