"""A training loop that does what Lightning's does, bit for bit, in less time a batch.

Lightning prepares each batch for whatever a user might have asked for. Here the common case runs straight: fetch,
transfer, training step, backward, optimizer step, schedulers. Everything else goes to Lightning's own code.
"""

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from runlab.data.seeding import seed_all
from runlab.training.common_case import is_common_case
from runlab.training.lean_step import LeanStep
from runlab.training.logged_values import LoggedValues, logs_this_batch


class LeanEpochLoop(_TrainingEpochLoop):
    """Runs an epoch: each batch is seeded; the common case takes a short way, anything else Lightning's.

    What a batch's transforms and its training step draw depends on (seed, number of the batch in the run, rank)
    alone, so that a resumed run draws what it would have drawn. With `fast=False` each batch takes Lightning's way.

    The functions in `after_batch` are called when a batch is over with all that follows it, validation included,
    unless the epoch ends with it. They get whether the training ends there, by `max_steps` or a stop: a checkpoint is
    then for a run that is resumed with more steps or time. `trainer.save_checkpoint` called there can be resumed
    exactly. `ran_lean` counts the batches that took the short way.
    """

    def __init__(
        self, trainer: L.Trainer, min_steps: int | None = None, max_steps: int = -1, *, seed: int, fast: bool
    ) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self.seed, self.fast = seed, fast
        self.after_batch: list[Callable[[bool], None]] = []
        self.ran_lean = 0
        self._results: LoggedValues = LoggedValues(training=True)  # the values logged in training
        self._step: LeanStep | None = None  # None in an epoch whose batches cannot take the short way
        self._rank, self._step_fetches = 0, False  # whether the training step itself fetches its batch
        self._between_batches = False  # whether the functions in `after_batch` are being called
        self._resumed_between_batches = False
        self.resumed_after_step = False  # from a checkpoint of `on_train_batch_end`: what follows it is still to come

    def reset(self) -> None:
        stepped = self._batches_that_stepped
        super().reset()
        if self._resumed_between_batches:  # Lightning counts one on where it takes the last batch as not yet counted
            self._batches_that_stepped = stepped

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        self._results.changed = True
        # Asked at each epoch: StochasticWeightAveraging changes it on the way.
        lean = self.fast and is_common_case(self.trainer, self, data_fetcher)
        self._step = LeanStep(self.trainer, self) if lean else None
        self._rank = self.trainer.global_rank
        self._step_fetches = isinstance(data_fetcher, _DataLoaderIterDataFetcher)

    def run(self, data_fetcher: _DataFetcher) -> None:
        try:
            super().run(data_fetcher)
        finally:
            self._hand_over()

    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self._resumed_between_batches:  # nothing of the last batch is left to do
            self.restarting = self._resumed_between_batches = False
        if self.resumed_after_step:
            self.restarting = self.resumed_after_step = False
            self.trainer._logger_connector._first_loop_iter = True  # the batch was begun before the run was resumed
            self.trainer._logger_connector.on_batch_end()
            self.trainer._logger_connector.update_train_step_metrics()
            return
        if self._step_fetches:
            self._seed_batch()
        if self._step is not None and not self._restarting:
            self.ran_lean += 1
            self._advance_lean(data_fetcher, self._step)
        else:
            super().advance(data_fetcher)

    def _on_after_fetch(self) -> None:
        super()._on_after_fetch()
        if not self._step_fetches:
            self._seed_batch()

    def _seed_batch(self) -> None:
        """Seed what the batch just fetched will draw, from its transfer on; it does not count as ready yet."""
        seed_all(hash((self.seed, self.batch_progress.total.ready - 1, self._rank)))

    def _advance_lean(self, data_fetcher: _DataFetcher, step: LeanStep) -> None:
        """What Lightning's `advance` does, in its order, for the common case."""
        self.val_loop._restarting = False
        progress = self.batch_progress
        batch, _, _ = next(data_fetcher)
        progress.is_last_batch = data_fetcher.done
        batch = step.transfer(batch)
        batch_idx = progress.current.ready
        progress.increment_ready()
        connector, results = self.trainer._logger_connector, self._results
        if step.may_skip_epoch:  # what its hook logs in a batch that it skips stays out of the metrics
            self._hand_over()
        connector._first_loop_iter = connector._first_loop_iter is None
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None
        outputs, skip_epoch = None, False
        if batch is None:
            self._warning_cache.warn("train_dataloader yielded None. If this was on purpose, ignore this warning...")
        elif step.call("on_train_batch_start", batch, batch_idx) == -1:
            skip_epoch = True
            progress.increment_by(0, is_last_batch=True)
        else:
            progress.increment_started()
            outputs = step.optimize(batch, batch_idx)
        progress.increment_processed()
        step.step_schedulers()
        if skip_epoch:
            raise StopIteration
        step.call("on_train_batch_end", outputs, batch, batch_idx)
        results.batch = results.batch_size = None
        progress.increment_completed()
        if results and logs_this_batch(self.trainer):
            self._hand_over()
            connector.update_train_step_metrics()

    def _hand_over(self) -> None:
        """Give the newest values to the connector, which Lightning does after each batch.

        In between, whoever asks the Trainer for its metrics gets them all the same: the connector then computes them.
        """
        connector = self.trainer._logger_connector
        if self._step is not None and self._results.changed and connector._first_loop_iter is not None:
            connector.on_batch_end()
            self._results.changed = False

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        is_last = self._num_ready_batches_reached()
        if self._step is not None and not (self._restarting or is_last or self._is_something_due()):
            self._batches_that_stepped += not self._step.accumulates()
        else:
            self._hand_over()
            super().on_advance_end(data_fetcher)
            # A validation may have put values of the same names into the connector: hand it the training's again.
            self._results.changed = True
        if is_last or not self.after_batch:
            return
        ends = self._is_training_done or (self.trainer.should_stop and self.trainer.fit_loop._can_stop_early)
        self._between_batches = True
        try:
            for function in self.after_batch:
                function(ends)
        finally:
            self._between_batches = False

    def _is_something_due(self) -> bool:
        """Whether a batch within an epoch, in the common case, may be followed by a validation or a stop."""
        trainer, progress = self.trainer, self.batch_progress
        batches = progress.total.ready if trainer.check_val_every_n_epoch is None else progress.current.ready
        # val_check_batch is infinite where only the epoch's end counts, and None only where validation goes by time.
        is_due = batches % trainer.val_check_batch == 0
        return is_due or trainer.should_stop or trainer.received_sigterm

    @property
    def done(self) -> bool:
        return not self.resumed_after_step and super().done

    @property
    def _is_training_done(self) -> bool:
        # Lightning's own also looks up `global_step` where there is no limit, at each batch.
        reached_limit = self.max_steps != -1 and self.global_step >= self.max_steps
        return reached_limit or self._num_ready_batches_reached()

    def on_save_checkpoint(self) -> dict[str, Any]:
        state = super().on_save_checkpoint()
        if self._between_batches:  # left out elsewhere: those checkpoints are as Lightning's
            state["between_batches"] = True
        return state

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        self._resumed_between_batches = state_dict.get("between_batches", False)
        batches: Any = self.batch_progress.current
        if batches.completed < batches.processed:
            # Lightning would leave out what follows the batch: the validation and, after the last one, the epoch's end.
            self.batch_progress.increment_completed()
            self.resumed_after_step = True
