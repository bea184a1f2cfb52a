"""A run that stops between two batches, or from a checkpoint within an accumulation window, resumes exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from loop_cases import Batches, Net, TwoOptimizers, adam, lbfgs, sgd
from loop_compare import build, outcome, rows
from torchmetrics import CatMetric, MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall

from runlab.config.messages import UserError
from runlab.training.epoch_state import EpochState
from runlab.training.lean_loop import LeanEpochLoop

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")

Make = Callable[[], L.LightningModule]


def fit(
    make: Make, loop: str, ckpt_path: Path | None = None, stop: tuple[int, Path] | None = None, **options: Any
) -> L.Trainer:
    """Train to the end; with `stop`, save and leave after that many batches of the run."""
    torch.manual_seed(1)
    trainer = build(loop, [EpochState(), *options.pop("callbacks", [])], **options)
    epoch_loop = trainer.fit_loop.epoch_loop
    assert isinstance(epoch_loop, LeanEpochLoop)

    def leave(ends: bool) -> None:  # noqa: ARG001
        if stop and epoch_loop.batch_progress.total.completed == stop[0]:
            trainer.save_checkpoint(stop[1])
            raise SystemExit(130)

    epoch_loop.after_batch.append(leave)
    if stop:
        with pytest.raises(SystemExit):
            trainer.fit(make(), Batches(7), Batches(2))
    else:
        trainer.fit(make(), Batches(7), Batches(2), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def check_resume(make: Make, folder: Path, stops: list[int], loop: str = "lean", **options: Any) -> None:
    whole = fit(make, loop, **options)
    for stop in stops:
        path = folder / f"{stop}.ckpt"
        first = fit(make, loop, stop=(stop, path), **options)
        second = fit(make, loop, ckpt_path=path, **options)
        expected, got = outcome(whole), outcome(second)
        got["rows"] = rows(first) + rows(second)
        for name, value in expected.items():
            assert got[name] == value, (stop, name)


@pytest.mark.parametrize("loop", ["lean", "seeded"])
@pytest.mark.parametrize("optimizer", [sgd, adam, lbfgs])
def test_between_two_batches(optimizer: Any, loop: str, tmp_path: Path) -> None:
    check_resume(lambda: Net(optimizer), tmp_path, [1, 2, 3, 6, 8, 13], loop)


@pytest.mark.parametrize("loop", ["lean", "seeded"])
def test_right_after_a_validation(loop: str, tmp_path: Path) -> None:
    check_resume(Net, tmp_path, [2, 3, 4, 9], loop, val_check_interval=2)


class Plateau(Net):
    """A scheduler that counts bad steps: one step too many after a resume would show."""

    def configure_optimizers(self) -> Any:
        optimizer = sgd(self.parameters())
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, threshold=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "monitor": "loss"}}


def test_plateau_scheduler_after_a_validation(tmp_path: Path) -> None:
    check_resume(Plateau, tmp_path, [2, 4, 9], val_check_interval=2)


def test_accumulation_at_the_end_and_in_the_middle_of_a_window(tmp_path: Path) -> None:
    check_resume(lambda: Net(adam), tmp_path, [1, 2, 3, 6, 8, 9, 10], accumulate_grad_batches=3, val_check_interval=2)


def test_manual_optimization_with_two_optimizers(tmp_path: Path) -> None:
    check_resume(TwoOptimizers, tmp_path, [1, 2, 3, 8], val_check_interval=2)


class CountsRows(L.Callback):
    """Notes in a checkpoint how many rows the logger had got by then."""

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        checkpoint["rows"] = len(rows(trainer))


class LogsEpochs(Net):
    """Logs means, a maximum and metrics over the epoch, and has a scheduler that waits for the last validation."""

    def __init__(self) -> None:
        super().__init__(sgd)
        self.mean, self.kept = MeanMetric(), CatMetric()
        self.both = MetricCollection([MulticlassAccuracy(2), MulticlassRecall(2)])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("both_levels", loss, on_step=True, on_epoch=True)
        self.log("largest", loss, on_step=False, on_epoch=True, reduce_fx=max)
        if batch_idx < 3:
            self.log("early", loss, on_step=False, on_epoch=True)
        self.mean.update(loss.detach())
        self.log("object", self.mean, on_step=False, on_epoch=True)
        self.both.update(self.net(batch[0]), batch[1])
        self.log_dict(self.both, on_step=False, on_epoch=True)
        self.kept.update(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("kept", self.kept.compute().sum())
        self.kept.reset()

    def configure_optimizers(self) -> Any:
        optimizer = sgd(self.parameters())
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, threshold=0.5)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "monitor": "val_loss", "strict": False}]


@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau conditioned on metric val_loss")
@pytest.mark.parametrize("loop", ["lean", "seeded"])
def test_what_is_logged_over_the_epoch(loop: str, tmp_path: Path) -> None:
    check_resume(LogsEpochs, tmp_path, [1, 3, 4, 5, 10], loop, val_check_interval=2)


class NoneBatches(Net):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        return None if self.training and self.trainer.fit_loop.batch_idx == 1 else batch


@pytest.mark.filterwarnings("ignore:train_dataloader yielded None")
def test_after_a_batch_that_was_left_out(tmp_path: Path) -> None:
    check_resume(NoneBatches, tmp_path, [4])


def test_max_steps(tmp_path: Path) -> None:
    check_resume(Net, tmp_path, [3, 8], max_steps=9, max_epochs=-1)


def test_no_call_where_the_epoch_ends() -> None:
    called: list[int] = []
    for options in ({}, {"max_steps": 9, "max_epochs": -1}):  # the second ends in the middle of an epoch
        trainer = build("lean", [], **options)
        loop = trainer.fit_loop.epoch_loop
        assert isinstance(loop, LeanEpochLoop)
        progress = loop.batch_progress
        loop.after_batch.append(lambda ends, progress=progress: called.append(progress.total.completed))  # type: ignore[misc]  # noqa: ARG005
        trainer.fit(Net(), Batches(7), Batches(2))
    assert called == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 1, 2, 3, 4, 5, 6, 8, 9]


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.")  # the resumed runs save nothing
@pytest.mark.parametrize(("accumulate", "every"), [(4, 2), (4, 3), (3, 2)])
def test_a_checkpoint_that_a_validation_saves_within_a_window(accumulate: int, every: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate, "val_check_interval": every}

    def make() -> Net:
        return Net(adam)

    saver = ModelCheckpoint(tmp_path, save_top_k=-1, monitor="val_loss")
    whole = fit(make, "lean", callbacks=[saver, CountsRows()], enable_checkpointing=True, **options)
    saved = sorted(tmp_path.glob("*.ckpt"))
    with_gradients = 0
    for path in saved:
        checkpoint = torch.load(path, weights_only=True)
        with_gradients += "gradients" in checkpoint.get("epoch_state", [{}])[0]
        resumed = fit(make, "lean", ckpt_path=path, **options)
        for name in ("weights", "optimizers", "stepped"):
            assert outcome(resumed)[name] == outcome(whole)[name], (path.name, name)
        assert rows(resumed) == rows(whole)[checkpoint["rows"] :]
    assert with_gradients > 0


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    fit(Net, "lean", stop=(2, tmp_path / "two.ckpt"), accumulate_grad_batches=3)
    checkpoint = torch.load(tmp_path / "two.ckpt", weights_only=True)
    checkpoint["epoch_state"] *= 2
    torch.save(checkpoint, tmp_path / "two.ckpt")
    with pytest.raises(UserError, match=r"by 2 process\(es\), this run has 1; resume it with as many"):
        fit(Net, "lean", ckpt_path=tmp_path / "two.ckpt", accumulate_grad_batches=3)
