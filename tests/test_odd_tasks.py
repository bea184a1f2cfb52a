"""Tasks that do something uncommon: each trains with all promises, or a line says before the training why not."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import probe
import pytest
import torch
from conftest import ROOT, Cli
from lightning import Callback
from test_trainer_arguments import callback, composed, scheduler

from runlab.config.messages import UserError, report_errors
from runlab.load import load_run
from train import train


class KeepsObjects(probe.Probe):
    def __init__(self, lr: float, network: Any = None, make: Any = None) -> None:
        super().__init__(lr)
        self.save_hyperparameters({"lr": lr, "network": network or torch.nn.Linear(1, 1), "make": make or partial(int)})


class SavesObjects(probe.Probe):
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = partial(int)


class TrainsNothing(probe.Probe):
    def configure_optimizers(self) -> Any:
        return None


class TwoAutomatic(probe.Probe):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.network[i].parameters(), self.lr) for i in (0, 3)]


class KeepsConfig(probe.Probe):
    def __init__(self, lr: float) -> None:
        from omegaconf import OmegaConf

        super().__init__(lr)
        self.save_hyperparameters(OmegaConf.create({"lr": lr, "sizes": [4, 8]}))


class WithoutValidation(probe.Probe):
    validation_step = None  # type: ignore[assignment]


class EmptyValidation(probe.Rows):
    def val_dataloader(self) -> Any:
        return []


class LogsAtTheEnd(probe.Probe):
    """Logs under one more name when an epoch is over, which nothing tells beforehand."""

    def on_train_epoch_end(self) -> None:
        self.log("late", float(self.current_epoch))


def run(folder: Path, *typed: str) -> dict[str, Any]:
    cfg = composed(*typed)
    cfg.run_dir = str(folder)
    return train(cfg)


def refusal(folder: Path, *typed: str) -> str:
    """The line with which a run ends, before it has trained more than an epoch's first batches."""
    probe.SEEN.clear()
    with pytest.raises(UserError) as raised:
        run(folder, *typed)
    assert sum(seen.stage == "train" for seen in probe.SEEN) <= 1
    return str(raised.value)


def odd(task: str) -> str:
    return f"task._target_=test_odd_tasks.{task}"


EACH_STEP = "trainer.log_every_n_steps=1"


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["monitor=nope"], "monitor=nope: this run logs val_loss, train_loss; choose one of them, or monitor=null"),
        (["monitor=val_nope"], "monitor=val_nope: the validation logs val_loss; choose one of them, or monitor=null"),
        (
            [scheduler("ReduceLROnPlateau"), "task._target_=test_odd_tasks.Plateau", "+task.watch=nope"],
            "scheduler.monitor=nope: this run logs val_loss, train_loss; choose one of them",
        ),
        (
            [odd("WithoutValidation")],
            "monitor=val_loss: is never logged, as WithoutValidation has no validation_step; add monitor=null",
        ),
        (
            ["data._target_=test_odd_tasks.EmptyValidation"],
            "monitor=val_loss: is never logged, as EmptyValidation has nothing to validate on; add monitor=null",
        ),
        (
            [
                "data._target_=probe.TwoLoaders",
                "task._target_=probe.LogsAfterwards",
                "monitor=val_loss",
            ],
            "monitor=val_loss: the validation logs val_loss/dataloader_idx_0, val_loss/dataloader_idx_1, val_after;"
            " choose one of them, or monitor=null",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
def test_a_metric_that_is_never_logged_is_found_out_at_once(tmp_path: Path, typed: list[str], line: str) -> None:
    assert refusal(tmp_path / "run", EACH_STEP, *typed) == line


class Plateau(probe.Probe):
    def __init__(self, lr: float, scheduler: Any, watch: str) -> None:
        super().__init__(lr, scheduler)
        self.watch = watch

    def configure_optimizers(self) -> Any:
        found = super().configure_optimizers()
        return found | {"lr_scheduler": {"scheduler": found["lr_scheduler"], "monitor": self.watch}}


@pytest.mark.parametrize("monitor", ["val_loss/dataloader_idx_0", "val_loss/dataloader_idx_1", "val_after"])
def test_two_loaders_and_a_value_of_both(tmp_path: Path, monitor: str) -> None:
    two = ["data._target_=probe.TwoLoaders", "task._target_=probe.LogsAfterwards"]
    assert monitor in run(tmp_path / "run", *two, f"monitor={monitor}")


def test_what_is_logged_at_the_end_of_an_epoch_may_be_monitored(tmp_path: Path) -> None:
    metrics = run(tmp_path / "run", odd("LogsAtTheEnd"), "monitor=late", "mode=max", EACH_STEP)
    assert metrics["late"] == 1


@pytest.mark.filterwarnings("ignore:Attribute .network. is an instance of `nn.Module`")
@pytest.mark.parametrize(("task", "kept"), [("KeepsObjects", {"lr"}), ("KeepsConfig", {"lr", "sizes"})])
@pytest.mark.parametrize("typed", [[], ["logger=csv"]])
def test_hyperparameters_that_are_objects_are_left_out_of_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, kept: set[str], typed: list[str]
) -> None:
    run(tmp_path / "run", odd(task), *typed)
    said = "save_hyperparameters: make, network hold objects, and are left out of checkpoints"
    assert (said in capsys.readouterr().err) == (task == "KeepsObjects")
    for name in ("best", "last"):
        checkpoint = torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)
        assert set(checkpoint["hyper_parameters"]) == kept
    assert load_run(tmp_path / "run").model.hparams["lr"] == 0.05


def test_an_object_in_a_checkpoint_is_a_line_and_no_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a checkpoint cannot hold functools\.partial; keep it out of on_save"):
        run(tmp_path / "run", odd("SavesObjects"))
    assert not list((tmp_path / "run").rglob("*.ckpt"))


@pytest.mark.filterwarnings("ignore:.*returned `None`, this fit will run with no optimizer")
def test_a_task_without_an_optimizer_is_run(tmp_path: Path) -> None:
    assert run(tmp_path / "run", odd("TrainsNothing"), EACH_STEP)["epoch"] == 2


def test_two_optimizers_need_manual_optimization(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), report_errors():
        run(tmp_path / "run", odd("TwoAutomatic"))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("Training with multiple optimizers is only supported with manual optimization. Set `self.")


def test_a_schedule_by_a_builtin_is_a_line(tmp_path: Path) -> None:
    builtin = ", lr_lambda: {_target_: hydra.utils.get_method, path: math.cos}"
    line = refusal(tmp_path / "run", scheduler("LambdaLR", builtin))
    assert line.startswith("scheduler: LambdaLR cannot be saved (")
    assert line.endswith("); give it a function of Python's")


def test_weights_of_64_bits_are_evaluated_in_full(tmp_path: Path) -> None:
    trained = run(tmp_path / "run", "trainer.precision=64-true")
    best = tmp_path / "run/checkpoints/best.ckpt"
    again = run(tmp_path / "again", "trainer.precision=64-true", "fit=false", f"ckpt_path={best}")
    assert again["test_loss"] == trained["test_loss"]
    weights = torch.load(best, weights_only=True)["state_dict"]
    for name, weight in load_run(tmp_path / "run").model.state_dict().items():
        assert torch.equal(weight, weights[name])
    assert any(not torch.equal(weight, weight.float().double()) for weight in weights.values())


SHIPPED = ["trainer=debug", "logger=none"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["scheduler=step", "~scheduler.step_size"], "scheduler: StepLR.__init__() missing 1 required positional"),
        (
            ["scheduler=one_cycle", "trainer.max_epochs=-1", "+trainer.max_time=00:00:01:00"],
            "scheduler: needs the number of optimizer steps, which trainer.max_time does not tell; add",
        ),
        (["scheduler=plateau", "scheduler.monitor=nope"], "scheduler.monitor=nope: this run logs val/loss, val/acc"),
        (["monitor=acc"], "monitor=acc: this run logs val/loss, val/acc, train/loss; choose one of them"),
        (
            ["model=mlp", "+callbacks.thaw._target_=mine.Thaw"],
            "scheduler: LambdaLR does not take in the parameters that Thaw adds to the optimizer; take scheduler=none",
        ),
        ([callback("LearningRateFinder")], "callbacks.x: LearningRateFinder trains with another learning rate"),
        ([callback("BatchSizeFinder")], "callbacks.x: BatchSizeFinder trains with another batch size than"),
    ],
)
def test_the_shipped_task_says_so_in_a_line(quick_cli: Cli, typed: list[str], words: str) -> None:
    answer = quick_cli(*SHIPPED, *typed)
    assert answer.returncode == 1
    [line] = answer.stderr.splitlines()
    assert line.startswith(words)


# Case 42
def test_layers_are_thawed_with_a_fused_optimizer(quick_cli: Cli) -> None:
    typed = ["model=mlp", "scheduler=none", "optimizer.fused=true", "+callbacks.thaw._target_=mine.Thaw"]
    assert quick_cli(*SHIPPED, *typed, "trainer.max_epochs=2").returncode == 0


@pytest.mark.slow
def test_a_gan_on_two_processes_says_what_to_add(cli: Cli) -> None:
    answer = cli(
        f"--config-dir={ROOT}/tests/tasks/conf", "task=gan", "data=gan", "trainer=ddp", "trainer.accelerator=cpu"
    )
    assert answer.returncode == 1
    assert "add +trainer.strategy.find_unused_parameters=true" in answer.stderr
    assert "Traceback" not in answer.stderr


class Masked(probe.Probe):
    """Has a buffer that is infinite on purpose, and a state that is no tensor."""

    def __init__(self, lr: float) -> None:
        super().__init__(lr)
        self.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))

    def get_extra_state(self) -> Any:
        return {"seen": 3}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"seen": 3}


def test_a_buffer_may_be_infinite_and_a_state_no_tensor(tmp_path: Path) -> None:
    assert run(tmp_path / "run", odd("Masked"))["epoch"] == 2


class CollectsNumbers(Callback):
    """Has plain values in its state until the first epoch ends."""

    def __init__(self) -> None:
        self.history: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        if trainer.current_epoch == 1:
            self.history.append(np.float64(1))


def test_an_object_that_comes_later_is_a_line_and_no_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a checkpoint cannot hold numpy\S+; keep it out of on_save"):
        run(tmp_path / "run", "+callbacks.own._target_=test_odd_tasks.CollectsNumbers", "monitor=null")
    for path in (tmp_path / "run/checkpoints").glob("*.ckpt"):
        assert torch.load(path, weights_only=True)["epoch"] == 0


def test_weights_alone_are_neither_the_best_checkpoint_nor_tested(tmp_path: Path) -> None:
    assert "save_weights_only" in refusal(tmp_path / "run", "+callbacks.best_checkpoint.save_weights_only=true")
    own = f"dirpath: {tmp_path}/weights, monitor: val_loss, save_weights_only: true"
    metrics = run(tmp_path / "run", callback("ModelCheckpoint", own))
    assert metrics["best_checkpoint"] == "checkpoints/best.ckpt"
    assert len(list((tmp_path / "weights").glob("*.ckpt"))) == 1
