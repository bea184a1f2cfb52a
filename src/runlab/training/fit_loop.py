"""Lightning's loop over epochs, mended where a resumed run would go another way than the uninterrupted one."""

from typing import Any

from lightning import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop

from runlab.training.lean_loop import LeanEpochLoop


class ResumableFitLoop(_FitLoop):
    """Lightning's `_FitLoop` with three faults of resuming mended.

    With `max_steps` Lightning ends an epoch a second time that was over. It leaves out the step of `ReduceLROnPlateau`
    at the end of the epoch in which a run is resumed. And where a schedule has asked for the number of steps, the data
    are set up before it has loaded where the loaders stood.
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

    def on_run_start(self) -> None:
        epochs: Any = self.epoch_progress.current
        epochs.completed = epochs.processed
        super().on_run_start()
        self._restarting = False


def use_resumable_loops(trainer: Trainer, seed: int, fast: bool) -> None:
    """Give a Trainer a `ResumableFitLoop` with a `LeanEpochLoop`, before `fit` is called."""
    old = trainer.fit_loop
    trainer.fit_loop = ResumableFitLoop(trainer, min_epochs=old.min_epochs, max_epochs=old.max_epochs)
    trainer.fit_loop.epoch_loop = LeanEpochLoop(trainer, old.min_steps, old.max_steps, seed=seed, fast=fast)
