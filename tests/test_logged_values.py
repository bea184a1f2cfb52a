"""When what is logged in training reaches the loggers: exact steps, told beforehand by `logs_this_batch`."""

from typing import Any

import lightning as L
import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from loop_cases import Batches, Net, TwoOptimizers
from loop_compare import build, rows

from runlab.training.logged_values import logs_this_batch

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec:FutureWarning",  # Lightning 2.6 calls what torch 2.15 deprecates
    "ignore:The number of training batches .* is smaller than the logging interval",
)


class Tells(L.Callback):
    """Notes the batches of the run of which `logs_this_batch` says that they are logged."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:  # noqa: ARG002
        self.now = logs_this_batch(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:  # noqa: ARG002
        assert logs_this_batch(trainer) == self.now
        if self.now:
            self.batches.append(trainer.fit_loop.total_batch_idx)


def logged(module: L.LightningModule, length: int, **options: Any) -> tuple[list[int | None], list[int]]:
    """The steps at which the training loss was logged, and the batches told beforehand."""
    trainer = build("lean", [tells := Tells()], **options)
    trainer.fit(module, Batches(length), Batches(2))
    return [step for step, values in rows(trainer) if "loss" in values], tells.batches


def test_two_optimizers_count_as_one_step() -> None:
    assert logged(TwoOptimizers(), 7, log_every_n_steps=4) == ([3, 7, 11], [3, 7, 11])


def test_accumulation_counts_the_batches_after_which_the_optimizer_steps() -> None:
    # Each epoch's 10 batches make 3 steps: after the batches 3, 7 and 9.
    assert logged(Net(), 10, accumulate_grad_batches=4, log_every_n_steps=2) == ([1, 3, 5], [7, 13, 19])


def test_an_epoch_shorter_than_the_interval_logs_once() -> None:
    assert logged(Net(), 3, log_every_n_steps=50) == ([2, 5], [2, 5])
    assert logged(Net(), 3, log_every_n_steps=50, accumulate_grad_batches=8) == ([0, 1], [2, 5])


def test_an_interval_that_fits_stays_and_none_stays_none() -> None:
    assert logged(Net(), 7, log_every_n_steps=5) == ([4, 9], [4, 9])
    assert logged(Net(), 7, log_every_n_steps=0) == ([], [])


def test_each_batch_of_a_fast_development_run() -> None:
    trainer = build("lean", [tells := Tells()], fast_dev_run=2, max_epochs=1)
    trainer.fit(Net(), Batches(7), Batches(2))
    assert tells.batches == [0, 1]


class LogsOtherwise(Net):
    """Logs its loss from the fourth batch on with another option."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("loss", loss, on_epoch=batch_idx > 2)
        return loss


def test_other_options_for_the_same_name_are_refused() -> None:
    with pytest.raises(MisconfigurationException, match="twice in `training_step` with different arguments"):
        build("lean", []).fit(LogsOtherwise(), Batches(7), Batches(2))
