"""Lightning's loop over epochs, mended where a resumed run would go another way than the uninterrupted one."""

import math
from typing import Any

from lightning import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop

from runlab.config.messages import UserError
from runlab.training.lean_loop import LeanEpochLoop
from runlab.training.logged_values import LoggedValues


class ResumableFitLoop(_FitLoop):
    """Lightning's `_FitLoop` with three faults of resuming mended, and an epoch that logs at least once.

    With `max_steps` Lightning ends an epoch a second time that was over. It leaves out the step of `ReduceLROnPlateau`
    at the end of the epoch in which a run is resumed. And where a schedule has asked for the number of steps, the data
    are set up before it has loaded where the loaders stood.

    `trainer.log_every_n_steps` is lowered to the number of an epoch's steps. Lightning warns of a larger one before
    any of this runs: whoever builds the Trainer filters the warning.
    """

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

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        self._combined_loader = self._data_fetcher = None

    def setup_data(self) -> None:
        try:
            super().setup_data()
        except ValueError as error:
            interval = self.trainer.val_check_interval
            if "val_check_interval" not in str(error):
                raise
            text = f"trainer.val_check_interval={interval}: an epoch has {self.max_batches} batches; lower it, or add"
            raise UserError(f"{text} trainer.check_val_every_n_epoch=null to count on over epochs") from error

    def on_run_start(self) -> None:
        epochs: Any = self.epoch_progress.current
        epochs.completed = epochs.processed
        trainer: Any = self.trainer
        if math.isfinite(self.max_batches):
            steps = max(1, int(self.max_batches) // trainer.accumulate_grad_batches)
            trainer.log_every_n_steps = min(trainer.log_every_n_steps, steps)
        super().on_run_start()
        self._restarting = False


def use_engine_loops(trainer: Trainer, seed: int, fast: bool) -> None:
    """Give a Trainer the engine's loops and collections of logged values; to be called before `fit` and `test`."""
    old = trainer.fit_loop
    trainer.fit_loop = ResumableFitLoop(trainer, min_epochs=old.min_epochs, max_epochs=old.max_epochs)
    trainer.fit_loop.epoch_loop = LeanEpochLoop(trainer, old.min_steps, old.max_steps, seed=seed, fast=fast)
    for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop):
        loop._results = LoggedValues(training=False)
