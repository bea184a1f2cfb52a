"""Lightning's loop over epochs, mended where a resumed run would go another way than the uninterrupted one."""

import math
from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.fabric.utilities.types import _Stateful
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop

from runlab.config.messages import UserError
from runlab.data.fetching import name_of
from runlab.data.kept_state import KeptState
from runlab.data.seeding import derive_seed, seed_all
from runlab.data.wrapper import LoaderWrapper, report_outgrown
from runlab.training.lean_loop import LeanEpochLoop
from runlab.training.logged_values import LoggedValues, forget_epoch

_EPOCH, _LOADERS = 1, 2  # what is seeded


class ResumableFitLoop(_FitLoop):
    """Lightning's `_FitLoop` with faults of resuming mended, and an epoch that logs at least once.

    What Lightning's own does on a resume:

    - With `max_steps` it ends an epoch a second time that was over.
    - It leaves out the step of `ReduceLROnPlateau` at the end of the epoch in which a run is resumed.
    - Where a schedule has asked for the number of steps, it sets up the data before it knows where the loaders stood.
    - A checkpoint that was saved in `on_train_batch_end` counts as one after all that this batch brings.
    - What loaders keep from epoch to epoch is lost at the end of one.
    - `train_dataloader` is asked in another epoch than before, of a data module that has forgotten its own changes.

    `trainer.log_every_n_steps` is lowered to the number of an epoch's steps. Lightning warns of a larger one before
    any of this runs: whoever builds the Trainer filters the warning.
    """

    epoch_loop: LeanEpochLoop
    after_start: Callable[[], None] | None = None  # called when all hooks of the training's start have been
    _kept: KeptState | None = None  # what the data module changes of its own
    _reported: set[str]  # what was said of it that cannot be saved
    _made: dict[str, Any] = {}  # noqa: RUF012  # the epoch in which the loaders were made, and what was kept by then
    _resumed: dict[str, Any] = {}  # noqa: RUF012  # the same of the run that is resumed, and what it kept at its end

    @property
    def restarting(self) -> bool:
        return self._restarting

    @restarting.setter
    def restarting(self, restarting: bool) -> None:
        epochs: Any = self.epoch_progress.current
        is_over = epochs.ready == epochs.started == epochs.processed
        self._restarting = restarting and not is_over
        if is_over:  # its last batch may have been one that `on_train_batch_start` has skipped, with the rest
            self.epoch_loop.resumed_after_step = False
        for loop in vars(self).values():
            if isinstance(loop, _Loop):
                loop.restarting = self._restarting

    @property
    def done(self) -> bool:
        return not self.epoch_loop.resumed_after_step and super().done

    def on_advance_start(self) -> None:
        if not (self.restarted_mid_epoch or self.restarted_on_epoch_end):
            epochs: Any = self.epoch_progress.current
            forget_epoch(self.trainer)
            if self._kept:
                report_outgrown(type(self._data_source.instance).__name__, self._kept, self._reported)
            self._seed(_EPOCH, epochs.processed)
        super().on_advance_start()

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        self._combined_loader = self._data_fetcher = None
        self._resumed = state_dict.get("data_module", {})

    def on_save_checkpoint(self) -> dict[str, Any]:
        state: dict[str, Any] = super().on_save_checkpoint()
        if self._kept:
            state["data_module"] = self._made | {"now": self._kept.changes()}
        return state

    def _seed(self, what: int, epoch: int) -> None:
        """Seed what is drawn outside of batches, alike in all processes: a resumed run comes here another way."""
        seed_all(derive_seed(self.epoch_loop.seed, what, epoch))

    def _make_loaders(self) -> None:
        """Set up the data, in a resumed run as in the epoch in which the loaders were made."""
        epochs: Any = self.epoch_progress.current
        epoch, resumed = epochs.completed, self._resumed
        if not self._kept:
            self._kept, self._reported = KeptState(self._data_source.instance, limit=100, generators=True), set()
        if resumed:
            epochs.completed = resumed["epoch"]
            self._kept.restore(resumed["before"])
        self._made = {"epoch": epochs.completed, "before": self._kept.changes()}
        self._seed(_LOADERS, epochs.completed)
        try:
            super().setup_data()
        except ValueError as error:
            interval = self.trainer.val_check_interval
            if "val_check_interval" not in str(error):
                raise
            text = f"trainer.val_check_interval={interval}: an epoch has {self.max_batches} batches; lower it, or add"
            raise UserError(f"{text} trainer.check_val_every_n_epoch=null to count on over epochs") from error
        epochs.completed = epoch

    def setup_data(self) -> None:
        if self._combined_loader is None or self._should_reload_train_dl:
            self._make_loaders()
        if (combined := self._combined_loader) is None:
            return
        if combined._mode == "sequential":
            text = "CombinedLoader with mode=sequential is for evaluation alone"
            raise UserError(f"training data: {text}; take mode max_size_cycle, max_size or min_size")
        limits: Any = combined.limits
        empty = [name_of(loader) for loader, limit in zip(combined.flattened, limits, strict=True) if limit == 0]
        if empty:
            hint = "fewer samples than a batch, with drop_last=True?"
            raise UserError(f"training data ({', '.join(empty)}): there is no batch; {hint}")

    def _load_combined_loader_states(self) -> None:
        if self._kept and self._resumed:  # a stream's first batch is fetched right after this
            self._kept.restore(self._resumed["now"])
            self._resumed = {}
        if not self.restarting and self._combined_loader is not None:  # at the end of an epoch Lightning leaves it out
            stateful = [loader for loader in self._combined_loader.flattened if isinstance(loader, _Stateful)]
            for loader, state in zip(stateful, self._combined_loader_states_to_load, strict=False):
                if isinstance(loader, LoaderWrapper):
                    loader.load_state_dict(state)
            self._combined_loader_states_to_load = []
        super()._load_combined_loader_states()

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
