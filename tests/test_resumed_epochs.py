"""A resumed run: what is typed on a resume counts or is refused, and an epoch is what it would have been."""

import signal
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Compose
from lightning import Callback, LightningModule, Trainer
from test_cases import contents, interrupt, mine
from test_resume import assert_equal

from runlab.config.messages import UserError
from train import train

EARLY = "+callbacks.early={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss, min_delta: 9}"
SETTING = [*mine(batch_size=64), "scheduler=none", "trainer.limit_train_batches=8", "trainer.limit_val_batches=1"]


def stop(cfg: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        train(cfg)
    assert caught.value.code == 128 + signal.SIGINT


# Batches 1 to 4 made a step, or with 3 batches the last is left; from there on it is 2 a step.
def test_accumulation_that_is_typed_on_a_resume_counts(composed: Compose) -> None:
    stop(composed(*SETTING, "+trainer.accumulate_grad_batches=4", interrupt(4)))
    metrics = train(composed(*SETTING, "+trainer.accumulate_grad_batches=2", "resume=auto"))
    assert metrics["global_step"] == 1 + 2 + 4


def test_accumulation_cannot_be_changed_within_a_window(composed: Compose, tmp_path: Path) -> None:
    stop(composed(*SETTING, "+trainer.accumulate_grad_batches=4", interrupt(3)))
    record = (tmp_path / "run/.hydra/config.yaml").read_bytes()
    with pytest.raises(UserError, match=r"accumulate_grad_batches=2: .* gathered for 4; resume it with 4"):
        train(composed(*SETTING, "+trainer.accumulate_grad_batches=2", "resume=auto"))
    assert (tmp_path / "run/.hydra/config.yaml").read_bytes() == record
    assert train(composed(*SETTING, "+trainer.accumulate_grad_batches=4", "resume=auto"))["global_step"] == 4


class StopsByHelper(Callback):
    """Asks for a stop by way of another object, so that none of its own code names the attribute."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        ask_to_stop(trainer)


def ask_to_stop(trainer: Trainer) -> None:
    trainer.should_stop = True


HELPER = "+callbacks.helper._target_=test_resumed_epochs.StopsByHelper"


@pytest.mark.parametrize(
    ("stopper", "option", "epochs"),
    [
        ([EARLY, "+callbacks.early.patience=1"], "callbacks.progress.refresh_rate=5", 2),
        ([EARLY, "+callbacks.early.patience=1"], "+callbacks.best_checkpoint.verbose=false", 2),
        ([EARLY, "+callbacks.early.patience=1"], "callbacks.early.patience=2", 3),
        ([EARLY, "+callbacks.early.patience=1"], "+trainer.min_epochs=4", 4),
        ([EARLY, "+callbacks.early.patience=1"], "~callbacks.early", 4),
        ([HELPER], "callbacks.progress.refresh_rate=20", 1),
        ([HELPER], "~callbacks.helper", 4),
    ],
)
def test_a_stopped_run_goes_on_only_where_what_stopped_it_is_changed(
    composed: Compose, stopper: list[str], option: str, epochs: int
) -> None:
    setting = [*SETTING, "trainer.max_epochs=4", *stopper]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runlab.training.checkpointing.test", None)  # fails as a kill in the test phase would
        with pytest.raises(TypeError):
            train(composed(*setting))
    assert train(composed(*setting, option, "resume=auto"))["epoch"] == epochs


@pytest.mark.parametrize(("batch", "done"), [(16, "2"), (13, "1 and is within the next")])
def test_how_many_epochs_a_run_has_done(composed: Compose, batch: int, done: str) -> None:
    setting = [*SETTING, "trainer.max_epochs=4"]
    stop(composed(*setting, interrupt(batch)))
    with pytest.raises(UserError, match=f"trainer.max_epochs=1: the run to resume has done {done}$"):
        train(composed(*setting, "resume=auto", "trainer.max_epochs=1"))


def test_a_monitor_that_is_changed_on_a_resume_is_a_line(composed: Compose) -> None:
    stop(composed(*SETTING, interrupt(13)))
    with pytest.raises(UserError) as caught:
        train(composed(*SETTING, "resume=auto", "monitor=val/loss", "mode=min"))
    assert str(caught.value) == (
        "callbacks.best_checkpoint: the run to resume has monitor=val/acc, mode=max here, which cannot be changed on a"
        " resume; leave it as it was, or begin a new run with ckpt_path=.../checkpoints/best.ckpt"
    )


class Meter:
    """A mean that is kept by hand, as research code has it."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: float) -> float:
        self.total, self.count = self.total + value, self.count + 1
        return self.total / self.count


class ByHand(LightningModule):
    """Counts by hand in all ways, over an epoch and over the run, and sets the rate of dropout at an epoch's start."""

    def __init__(self, reset: str) -> None:
        super().__init__()
        self.network: Any = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.0), torch.nn.Linear(784, 10))
        self.weights = list(self.network.parameters())  # the same tensors by another name
        self.reset, self.average = reset, self.weights[0].detach().clone()
        self.meter, self.seen, self.kinds, self.recent = Meter(), 0, defaultdict[int, int](int), deque[float](maxlen=3)
        self.alias = self.average
        self.begin()

    def begin(self) -> None:
        self.right, self.losses = 0, list[torch.Tensor]()
        self.sums: dict[str, Any] = {"loss": torch.zeros(()), "count": 0.0}

    def on_train_epoch_start(self) -> None:
        self.network[1].p = 0.1 * (self.current_epoch + 1)
        if self.reset == "start":
            self.begin()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        logits = self.network(batch[0])
        loss = torch.nn.functional.cross_entropy(logits, batch[1])
        self.right += int((logits.argmax(1) == batch[1]).sum())
        self.seen += len(batch[1])
        self.losses.append(loss.detach())
        self.sums["loss"] += loss.detach()
        self.sums["count"] += 1
        self.kinds[batch_idx % 3] += 1
        self.recent.append(loss.item())
        self.average.lerp_(self.weights[0].detach(), 0.1)
        self.log("meter", self.meter.add(loss.item()))
        assert self.alias is self.average
        assert self.weights[0] is self.network[2].weight
        return loss

    def on_train_epoch_end(self) -> None:
        sums = self.sums["loss"] / self.sums["count"], sum(self.kinds.values()), sum(self.recent)
        values = self.right, torch.stack(self.losses).mean(), *sums, self.seen, self.alias.square().mean()
        self.log_dict({f"hand_{number}": float(value) for number, value in enumerate(values)})
        if self.reset == "end":
            self.begin()

    def validation_step(self, batch: Any) -> None:
        self.log("val_loss", torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


class CountsByHand(Callback):
    """Logs how many batches there were in the epoch, and how many before it."""

    def __init__(self) -> None:
        self.now = self.before = 0

    def on_train_batch_end(self, *batch: Any) -> None:  # noqa: ARG002
        self.now += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        pl_module.log_dict({"now": float(self.now), "before": float(self.before)})
        self.before, self.now = self.before + self.now, 0


@pytest.mark.parametrize("batch", [3, 8, 13])
@pytest.mark.parametrize("reset", ["start", "end"])
def test_what_is_counted_by_hand_is_resumed_equal(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str], reset: str, batch: int
) -> None:
    task = ["~task", f"+task={{_target_: test_resumed_epochs.ByHand, reset: {reset}}}", "monitor=null"]
    setting = [*SETTING, *task, "+callbacks.counts._target_=test_resumed_epochs.CountsByHand"]
    metrics = train(composed(*setting, f"run_dir={tmp_path}/straight"))
    assert (metrics["now"], metrics["before"], metrics["hand_5"]) == (8, 8, 16 * 64)
    stop(composed(*setting, interrupt(batch)))
    capsys.readouterr()
    train(composed(*setting, "resume=auto"))
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))
    said = "on_train_epoch_start of ByHand is not called again in this epoch" in capsys.readouterr().err
    assert said == (batch != 8)


class Odd(ByHand):
    """Gathers what no checkpoint of plain values holds."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.sums["array"] = loss.detach().numpy()
        return loss


def test_what_cannot_be_restored_is_said(composed: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    setting = [*SETTING, "~task", "+task={_target_: test_resumed_epochs.Odd, reset: end}", "monitor=null"]
    stop(composed(*setting, interrupt(3)))
    train(composed(*setting, "resume=auto"))
    line = "resumed: not restored, as too large, or of a kind that a checkpoint cannot hold (NumPy values, objects): "
    assert f"{line}task.sums\n" in capsys.readouterr().err


class Anneals(Callback):
    """Halves what its config has, each epoch."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def state_dict(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.temperature = state_dict["temperature"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.temperature /= 2
        pl_module.log("temperature", self.temperature)


ANNEALS = "+callbacks.anneals={_target_: test_resumed_epochs.Anneals, temperature: 1.0}"


@pytest.mark.parametrize(("typed", "last"), [([], 0.125), (["callbacks.anneals.temperature=8.0"], 4.0)])
def test_a_callback_goes_on_with_its_state_unless_its_option_is_changed(
    composed: Compose, tmp_path: Path, typed: list[str], last: float
) -> None:
    train(composed(*SETTING, ANNEALS, "trainer.max_epochs=2"))
    train(composed(*SETTING, ANNEALS, "trainer.max_epochs=3", "resume=auto", *typed))
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["callbacks"]["Anneals"] == {"temperature": last}


def test_fewer_steps_than_it_has_done_are_a_line(composed: Compose) -> None:
    train(composed(*SETTING, "trainer.max_epochs=1"))
    with pytest.raises(UserError, match=r"trainer\.max_steps=5: the run to resume has done 8"):
        train(composed(*SETTING, "trainer.max_epochs=2", "trainer.max_steps=5", "resume=auto"))
