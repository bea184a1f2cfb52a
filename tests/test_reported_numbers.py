"""A number in metrics.json is what its name says: of the tested checkpoint's epoch, and the same after a resume."""

# the fixture `composed` is imported

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Compose
from lightning import Callback, LightningModule, Trainer
from mine import Mine
from test_cases import contents, interrupt
from test_resume import assert_equal
from test_resumed_epochs import stop
from torch.utils.data import DataLoader, Subset

from runlab.config.messages import UserError
from runlab.load import load_run
from runlab.sweeps.results import read
from train import train

BATCHES = 6  # in an epoch


class Few(Mine):
    def __init__(self) -> None:
        super().__init__(num_classes=10, batch_size=16, side=4)

    def train_dataloader(self) -> Any:
        return DataLoader(Subset(self.set, range(16 * BATCHES)), 16, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(Subset(self.set, range(32)), 32)

    test_dataloader = val_dataloader


class Logs(LightningModule):
    """Logs a mean over the epoch and values whose number says in which epoch, from 1, or batch of it they came."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 10)

    def loss(self, batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("train_batch", float(batch_idx), on_step=True, on_epoch=False)
        self.log("train_epoch", self.current_epoch + 1.0, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any) -> None:
        self.log("val_loss", self.loss(batch))
        self.log("val_epoch", self.current_epoch + 1.0)

    def on_train_epoch_end(self) -> None:
        self.log("end_epoch", self.current_epoch + 1.0)

    def test_step(self, batch: Any) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def setting(*options: str, task: str = "test_reported_numbers.Logs") -> list[str]:
    quiet = ["logger=none", "trainer.num_sanity_val_steps=0", "trainer.max_epochs=4"]
    return ["~task", f"+task._target_={task}", "~data", "+data._target_=test_reported_numbers.Few", *quiet, *options]


LAST, BEST = ["monitor=null"], ["monitor=val_loss", "mode=min"]
EARLY = [
    "+callbacks.early={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val_loss, min_delta: 9}",
    "+callbacks.early.patience=2",
]
TRAIN, STEP, VAL = {"train_epoch": 4.0, "end_epoch": 4.0}, {"train_batch": BATCHES - 1.0}, {"val_epoch": 4.0}


# A value of an earlier epoch is left out: of epoch 5 with a validation each second one, and of training where a
# validation within the epoch has saved the best checkpoint.
@pytest.mark.parametrize(
    ("options", "found"),
    [
        (BEST, TRAIN | STEP | VAL),
        (LAST, TRAIN | STEP | VAL),
        ([*BEST, "trainer.check_val_every_n_epoch=2"], {"train_epoch": 4.0} | STEP | VAL),
        ([*LAST, "trainer.check_val_every_n_epoch=2"], TRAIN | STEP | VAL),
        ([*LAST, "trainer.check_val_every_n_epoch=3"], TRAIN | STEP),
        ([*BEST, "+trainer.val_check_interval=0.5"], {"train_epoch": 4.0} | STEP | VAL),
        ([*BEST, "+trainer.val_check_interval=4"], {"train_batch": 3.0} | VAL),
        ([*LAST, "trainer.max_steps=20"], {"train_epoch": 4.0, "end_epoch": 4.0, "train_batch": 1.0}),
        ([*LAST, "trainer.limit_val_batches=0"], TRAIN | STEP),
    ],
)
def test_values_are_of_the_epoch_of_the_best_checkpoint(
    composed: Compose,
    tmp_path: Path,
    options: list[str],
    found: dict[str, float],
) -> None:
    metrics = train(composed(*setting(*options)))
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert best["epoch_state"][0]["attributes"] == {}  # a validation's eval mode is none
    marks = ("train_epoch", "end_epoch", "train_batch", "val_epoch")
    assert {name: metrics[name] for name in marks if name in metrics} == found
    assert ("loss_epoch" in metrics) == ("train_epoch" in found)
    assert ("val_loss" in metrics) == ("val_epoch" in found)


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        ([*BEST, "trainer.check_val_every_n_epoch=2"], 17),
        ([*BEST, "trainer.check_val_every_n_epoch=2"], 18),
        ([*BEST, "trainer.max_steps=20"], 19),
        ([*BEST, "trainer.max_steps=24", "fast_loop=false"], 23),
        ([*LAST, "trainer.max_steps=20"], 18),
        ([*BEST, "+trainer.val_check_interval=0.5"], 18),
        ([*BEST, "+trainer.val_check_interval=4", "fast_loop=false"], 11),
        ([*BEST, *EARLY, "+trainer.val_check_interval=0.5"], 6),
        ([*LAST, *EARLY, "+trainer.val_check_interval=0.5"], 7),
    ],
)
def test_a_resumed_run_reports_the_same(
    composed: Compose,
    tmp_path: Path,
    options: list[str],
    batch: int,
) -> None:
    options = setting(*options)
    train(composed(*options, f"run_dir={tmp_path}/straight"))
    stop(composed(*options, interrupt(batch)))
    train(composed(*options, "resume=auto"))
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))


class Counting(Logs):
    """Has a hook after each batch that changes its state."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.nn.Buffer(torch.zeros(()))

    def on_train_batch_end(self, *batch: Any) -> None:  # noqa: ARG002
        self.seen += self.layer.weight.detach().sum()


class FailAfter(Callback):
    """Fails as soon as a checkpoint of so many optimizer steps is written, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        save = trainer.strategy.save_checkpoint

        def save_and_fail(checkpoint: Any, path: Any, **options: Any) -> None:
            save(checkpoint, path, **options)
            if checkpoint["global_step"] == self.step:
                raise ZeroDivisionError

        trainer.strategy.save_checkpoint = save_and_fail  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize(
    ("task", "options", "step", "resumed"),
    [
        ("Logs", BEST, 12, 12),
        ("Logs", ["trainer.max_steps=12", *BEST], 12, 12),
        ("Logs", ["trainer.check_val_every_n_epoch=2", *BEST], 12, 12),
        ("Logs", ["fast_loop=false", *LAST], 12, 12),
        ("Logs", ["+trainer.val_check_interval=2", *BEST], 8, 8),
        ("Logs", ["+trainer.accumulate_grad_batches=4", *BEST], 4, 4),
        ("Counting", BEST, 12, 6),
    ],
)
def test_a_checkpoint_of_each_step_is_resumed_with_what_follows_the_step(
    composed: Compose,
    tmp_path: Path,
    task: str,
    options: list[str],
    step: int,
    resumed: int,
) -> None:
    saver = "_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '${run_dir}/checkpoints', filename: step"
    more = f"+callbacks.more={{{saver}, every_n_train_steps: 2, save_on_train_epoch_end: false}}"
    options = setting(*options, more, task=f"test_reported_numbers.{task}")
    train(composed(*options, f"run_dir={tmp_path}/straight"))
    with pytest.raises(ZeroDivisionError):
        train(composed(*options, f"+callbacks.fail={{_target_: test_reported_numbers.FailAfter, step: {step}}}"))
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FailAfter, "on_train_start", lambda _, trainer, module: steps.append(trainer.global_step))  # noqa: ARG005
        train(composed(*options, "+callbacks.fail={_target_: test_reported_numbers.FailAfter, step: 0}", "resume=auto"))
    assert steps == [resumed]
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))


class Names(Logs):
    """Logs `name` in one hook more, and in the test also what the validation logs."""

    name, where = "epoch", "test_step"

    def _log(self, where: str, value: float) -> None:
        if self.where == where:
            self.log(self.name, value, on_epoch=True)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self._log("training_step", 7.0)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any) -> None:
        self._log("validation_step", 7.0)
        super().validation_step(batch)

    def test_step(self, batch: Any) -> None:
        self._log("test_step", 7.0)
        self.log_dict({"val_loss": 8.0, "nan": math.nan, "inf": -math.inf, "step": 1.0})
        super().test_step(batch)


@pytest.mark.parametrize("where", ["training_step", "validation_step"])
@pytest.mark.parametrize("name", ["epoch", "seconds", "global_step", "best_checkpoint"])
def test_a_name_that_the_file_has_for_itself_is_refused(
    composed: Compose,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    where: str,
) -> None:
    monkeypatch.setattr(Names, "name", name)
    monkeypatch.setattr(Names, "where", where)
    options = setting(*BEST, "trainer.num_sanity_val_steps=1", task="test_reported_numbers.Names")
    with pytest.raises(UserError, match=rf"^self.log\('{name}'\): metrics.json has a {name} of its own; log it by"):
        train(composed(*options))


def test_what_a_test_logs_by_a_name_that_is_taken_is_kept_beside_it(composed: Compose, tmp_path: Path) -> None:
    options = setting(*BEST, "trainer.max_epochs=1", task="test_reported_numbers.Names")
    metrics = train(composed(*options))
    assert (metrics["epoch"], metrics["test/epoch"], metrics["test/val_loss"]) == (1, 7.0, 8.0)
    assert 0 < metrics["val_loss"] < 8
    assert "step" not in metrics

    # JSON has no number for NaN and infinity: a strict reader must take the file, and ours gives the numbers.
    text = (tmp_path / "run/metrics.json").read_text()
    stored = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert (stored["nan"], stored["inf"]) == ("nan", "-inf")
    again = train(composed(*options, "resume=auto"))
    for found in (metrics, again, read(tmp_path / "run").metrics, load_run(tmp_path / "run").metrics):
        assert math.isnan(found["nan"])
        assert found["inf"] == -math.inf
    assert json.dumps(again) == json.dumps(metrics)


MORE = "+callbacks.more={_target_: lightning.pytorch.callbacks.ModelCheckpoint, save_last: true"


@pytest.mark.parametrize(
    "option", ["+callbacks.best_checkpoint.save_last=link", MORE + "}", MORE + ", dirpath: '${run_dir}/checkpoints'}"]
)
def test_two_writers_of_one_last_checkpoint_are_refused(composed: Compose, tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match=r"save_last=(link|True): callbacks.last_checkpoint writes last.ckpt in that"):
        train(composed(*setting(*BEST, option)))
    assert not (tmp_path / "run/.hydra").exists()
    train(composed(*setting(*BEST, option, "~callbacks.last_checkpoint", "trainer.max_epochs=1")))
    train(
        composed(
            *setting(*BEST, MORE + ", dirpath: '${run_dir}/more'}"), "trainer.max_epochs=1", f"run_dir={tmp_path}/o"
        )
    )


@pytest.mark.parametrize(
    "options",
    [
        [*LAST, *EARLY, "+trainer.val_check_interval=0.5"],
        [*BEST, *EARLY, "trainer.check_val_every_n_epoch=2"],
        [*BEST, "trainer.check_val_every_n_epoch=3"],
        [*LAST, "trainer.max_steps=20"],
    ],
)
def test_a_run_that_is_killed_in_its_test_reports_the_same(
    composed: Compose, tmp_path: Path, options: list[str]
) -> None:
    options = setting(*options)
    train(composed(*options, f"run_dir={tmp_path}/straight"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runlab.training.checkpointing.test", None)
        with pytest.raises(TypeError):
            train(composed(*options))
    train(composed(*options, "resume=auto"))
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))
