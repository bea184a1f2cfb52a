"""A resumed run: what is typed on a resume counts or is refused, and an epoch is what it would have been."""

import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import Compose
from lightning import Callback, LightningModule, Trainer
from test_cases import interrupt, mine

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
