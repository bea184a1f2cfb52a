"""A training loop that does what Lightning's does, bit for bit, in less time a batch.

Lightning prepares each batch for whatever a user might have asked for. Here the common case runs straight: fetch,
transfer, training step, backward, optimizer step, schedulers. Everything else goes to Lightning's own code.
"""

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher, _PrefetchDataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from runlab.data.seeding import seed_all
from runlab.training.lean_step import LeanStep, is_common_case
from runlab.training.process_means import ProcessResults


def use_lean_loop(trainer: L.Trainer, seed: int, fast: bool) -> None:
    """Give `trainer` a `LeanEpochLoop`; to be called after the Trainer is built and before `fit`."""
    old = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = LeanEpochLoop(trainer, old.min_steps, old.max_steps, seed=seed, fast=fast)


class LeanEpochLoop(_TrainingEpochLoop):
    """Runs an epoch: each batch is seeded; the common case takes a short way, anything else Lightning's.

    What a batch's transforms and its training step draw depends on (seed, number of the batch in the run, rank)
    alone, so that a resumed run draws what it would have drawn. With `fast=False` each batch takes Lightning's way.

    The functions in `after_batch` are called when a batch is over with all that follows it, validation included,
    unless the epoch ends with it. `trainer.save_checkpoint` called there can be resumed exactly. Where the training
    ends there (`ends_training`), a checkpoint is for a run that is resumed with more steps or time.
    `ran_lean` counts the batches that took the short way.
    """

    def __init__(
        self, trainer: L.Trainer, min_steps: int | None = None, max_steps: int = -1, *, seed: int, fast: bool
    ) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self.seed, self.fast = seed, fast
        self.after_batch: list[Callable[[], None]] = []
        self.ran_lean = 0
        self._results: _Results = _Results(training=True)
        self._step: LeanStep | None = None  # None in an epoch whose batches cannot take the short way
        self._took_lean = False  # whether the last batch did
        self._nothing_due = False  # whether nothing follows the last batch but the next one
        self._between_batches = False  # whether the functions in `after_batch` are being called
        self._resumed_between_batches = False

    def reset(self) -> None:
        stepped = self._batches_that_stepped
        super().reset()
        if self._resumed_between_batches:  # Lightning counts one on where it takes the last batch as not yet counted
            self._batches_that_stepped = stepped

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        self._took_lean = self._nothing_due = False
        self._results.changed = True
        self._step = None
        # Asked at each epoch: GradientAccumulationScheduler and StochasticWeightAveraging change it on the way.
        if (
            self.fast
            and type(data_fetcher) is _PrefetchDataFetcher
            and self.trainer._val_check_time_interval is None
            and is_common_case(self.trainer, self)
        ):
            self._step = LeanStep(self.trainer, self)
        configs = self.trainer.lr_scheduler_configs
        self._plateau_each_step = any(c.reduce_on_plateau and c.interval == "step" for c in configs)

    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self._resumed_between_batches:
            self._restarting = self._resumed_between_batches = False  # nothing of the last batch is left to do
        self._took_lean = self._nothing_due = False
        if self._step is not None and not self._restarting:
            self._took_lean = True
            self.ran_lean += 1
            self._advance_lean(data_fetcher, self._step)
        elif isinstance(data_fetcher, _DataLoaderIterDataFetcher):  # the training step itself fetches
            self._seed_batch()
            super().advance(data_fetcher)
        else:
            super().advance(_SeedingFetcher(data_fetcher, self._seed_batch))  # type: ignore[arg-type]  # stands in for it

    def _seed_batch(self) -> None:
        """Seed what the batch just fetched will draw; called before it counts as ready."""
        seed_all(hash((self.seed, self.total_batch_idx, self.trainer.global_rank)))

    def _advance_lean(self, data_fetcher: _DataFetcher, step: LeanStep) -> None:
        """What Lightning's `advance` does, in its order, for the common case."""
        if self.val_loop._restarting:
            self.val_loop.restarting = False
        progress, hooks = self.batch_progress, step.hooks
        batch, _, _ = next(data_fetcher)
        progress.is_last_batch = data_fetcher.done
        self._seed_batch()
        batch = hooks.transfer(batch)
        batch_idx = progress.current.ready
        progress.increment_ready()
        connector, results = self.trainer._logger_connector, self._results
        connector.on_batch_start(batch)
        outputs, skip_epoch = None, False
        if batch is None:
            self._warning_cache.warn("train_dataloader yielded None. If this was on purpose, ignore this warning...")
        elif hooks.call("on_train_batch_start", batch, batch_idx) == -1:
            skip_epoch = True
            progress.increment_by(0, is_last_batch=True)
        else:
            progress.increment_started()
            outputs = step.optimize(batch, batch_idx)
        progress.increment_processed()
        step.step_schedulers()
        if skip_epoch:
            raise StopIteration
        hooks.call("on_train_batch_end", outputs, batch, batch_idx)
        if results.changed:
            connector.on_batch_end()
            results.changed = False
        else:  # the connector holds these values already
            results.batch = results.batch_size = None
        progress.increment_completed()
        if results and (connector.should_update_logs or self.trainer.fast_dev_run):
            connector.log_metrics(connector.metrics["log"])

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        self._nothing_due = self._took_lean and not self._is_something_due()
        if self._nothing_due:
            self._batches_that_stepped += 1
        else:
            super().on_advance_end(data_fetcher)
            # A validation may have put values of the same names into the connector: hand it the training's again.
            self._results.changed = True
        if self.after_batch and not self._num_ready_batches_reached():
            self._between_batches = True
            try:
                for function in self.after_batch:
                    function()
            finally:
                self._between_batches = False

    def _is_something_due(self) -> bool:
        """Whether the batch just done may be followed by a validation, a plateau scheduler's step or an end."""
        trainer, progress, every = self.trainer, self.batch_progress, self.trainer.val_check_batch
        over_epochs = trainer.check_val_every_n_epoch is None
        batches = progress.total.ready if over_epochs else progress.current.ready
        return (
            self._num_ready_batches_reached()
            or every is None
            or batches % every == 0  # never so where it is infinite: then only the epoch's end counts
            or self._plateau_each_step
            or self._skip_next_val
            or trainer.should_stop
            or trainer.received_sigterm
        )

    def ends_training(self) -> bool:
        """Whether the training ends with the batch just done, be it within an epoch."""
        return self._is_training_done or (self.trainer.should_stop and self.trainer.fit_loop._can_stop_early)

    @property
    def _is_training_done(self) -> bool:
        if self._nothing_due:  # it is not the epoch's last batch
            steps = self.automatic_optimization.optim_progress.optimizer.step.total.completed
            return 0 <= self.max_steps <= steps
        return super()._is_training_done

    def on_save_checkpoint(self) -> dict[str, Any]:
        state = super().on_save_checkpoint()
        if self._between_batches:  # left out elsewhere: those checkpoints are as Lightning's
            state["between_batches"] = True
        return state

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        self._resumed_between_batches = state_dict.get("between_batches", False)


class _SeedingFetcher:
    """Fetches by another data fetcher and seeds after each batch, before Lightning moves it to the device."""

    def __init__(self, fetcher: _DataFetcher, seed_batch: Callable[[], None]) -> None:
        self._fetcher, self._seed_batch = fetcher, seed_batch

    def __next__(self) -> Any:
        fetched = next(self._fetcher)
        self._seed_batch()
        return fetched

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fetcher, name)


class _Results(ProcessResults):
    """The values logged in training; knows whether any has come since the connector was last told."""

    changed = True

    def update_metrics(self, key: str, value: Any, batch_size: int) -> None:
        self.changed = True
        super().update_metrics(key, value, batch_size)
