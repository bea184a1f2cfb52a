"""Lightning's loop over epochs, mended where a resumed run would go another way than the uninterrupted one."""

import math
from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop

from runlab.training.lean_loop import LeanEpochLoop
from runlab.training.logged_values import LoggedValues, forget_epoch


class ResumableFitLoop(_FitLoop):
    """Lightning's `_FitLoop` with four faults of resuming mended, and an epoch that logs at least once.

    With `max_steps` Lightning ends an epoch a second time that was over. It leaves out the step of `ReduceLROnPlateau`
    at the end of the epoch in which a run is resumed. Where a schedule has asked for the number of steps, the data are
    set up before it has loaded where the loaders stood. And it takes a checkpoint that was saved in
    `on_train_batch_end` for the end of all that the batch brings, of a last step or a last batch too.

    `trainer.log_every_n_steps` is lowered to the number of an epoch's steps. Lightning warns of a larger one before
    any of this runs: whoever builds the Trainer filters the warning.
    """

    epoch_loop: LeanEpochLoop
    after_start: Callable[[], None] | None = None  # called when all hooks of the training's start have been

    @property
    def restarting(self) -> bool:
        return self._restarting

    @restarting.setter
    def restarting(self, restarting: bool) -> None:
        epochs: Any = self.epoch_progress.current
        self._restarting = restarting and not epochs.ready == epochs.started == epochs.processed
        for loop in vars(self).values():
            if isinstance(loop, _Loop):
                loop.restarting = self._restarting

    @property
    def done(self) -> bool:
        return not self.epoch_loop.resumed_after_step and super().done

    def on_advance_start(self) -> None:
        if not (self.restarted_mid_epoch or self.restarted_on_epoch_end):
            forget_epoch(self.trainer)
        super().on_advance_start()

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        self._combined_loader = self._data_fetcher = None

    def on_run_start(self) -> None:
        epochs: Any = self.epoch_progress.current
        epochs.completed = epochs.processed
        trainer: Any = self.trainer
        if math.isfinite(self.max_batches):
            steps = max(1, int(self.max_batches) // trainer.accumulate_grad_batches)
            trainer.log_every_n_steps = min(trainer.log_every_n_steps, steps)
        super().on_run_start()
        if self.after_start:
            self.after_start()
        self._restarting = False


def use_engine_loops(trainer: Trainer, seed: int, fast: bool) -> None:
    """Give a Trainer the engine's loops and collections of logged values; to be called before `fit` and `test`."""
    old = trainer.fit_loop
    trainer.fit_loop = ResumableFitLoop(trainer, min_epochs=old.min_epochs, max_epochs=old.max_epochs)
    trainer.fit_loop.epoch_loop = LeanEpochLoop(trainer, old.min_steps, old.max_steps, seed=seed, fast=fast)
    for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop):
        loop._results = LoggedValues(training=False)
