"""What people who use such templates run into: each case with its right value, and others of its kind."""

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Cli, Compose
from test_resume import assert_equal

from runlab.config.messages import UserError
from runlab.load import load_run
from runlab.training.checkpointing import LastCheckpoint
from train import train

SMALL = ["logger=none", "trainer.limit_train_batches=40", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]


def interrupt(batch: int) -> str:
    return f"+callbacks.interrupt={{_target_: faults.InterruptAt, batch: {batch}}}"


def mine(target: str = "mine.Mine", **arguments: int) -> list[str]:
    values = {"num_classes": 10, "batch_size": 32, **arguments}
    return [
        "~data",
        f"+data={{_target_: {target}, {', '.join(f'{k}: {v}' for k, v in values.items())}}}",
        "logger=none",
        "trainer.max_epochs=2",
    ]


def contents(run_dir: Path) -> Any:
    """Weights, optimizer, schedule, counters and metrics of both checkpoints, and the final metrics."""
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "metrics")
    checkpoints: list[Any] = [
        torch.load(run_dir / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last")
    ]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    return [[checkpoint[key] for key in keys] for checkpoint in checkpoints], metrics | {"seconds": 0}


@pytest.fixture
def resumes_equal(composed: Compose, tmp_path: Path) -> Any:
    """Run a setting straight, and stopped in a batch and resumed: both come out equal, bit for bit."""

    def resumes_equal(setting: Sequence[str], batch: int, saved: int | None = None) -> dict[str, Any]:
        metrics = train(composed(*setting, f"run_dir={tmp_path}/straight"))
        with pytest.raises(SystemExit) as caught:
            train(composed(*setting, interrupt(batch)))
        assert caught.value.code == 128 + signal.SIGINT
        if saved is not None:
            assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == saved
        train(composed(*setting, "resume=auto"))
        assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))
        return metrics

    return resumes_equal


# Case 1 and its kind: whatever is kept beside it, best.ckpt is the best, and it is what is tested.
@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["callbacks.best_checkpoint.save_top_k=3"], 3),
        (["callbacks.best_checkpoint.save_top_k=-1"], 4),
        (["callbacks.best_checkpoint.save_top_k=2", "callbacks.best_checkpoint.filename='{epoch}-{val/acc:.3f}'"], 2),
        (["callbacks.best_checkpoint.filename=other"], 1),
        (["+callbacks.best_checkpoint.every_n_epochs=2"], 0),
        (["+callbacks.more={_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '${run_dir}/more'}"], 0),
    ],
)
def test_best_is_best(composed: Compose, tmp_path: Path, options: list[str], kept: int) -> None:
    setting = [*SMALL, "scheduler=none", "optimizer.lr=2.0", "trainer.max_epochs=4", "trainer.limit_val_batches=2"]
    metrics = train(composed(*setting, *options))
    scores = {}
    folder = tmp_path / "run/checkpoints"
    for path in folder.iterdir():
        assert path.is_file()  # a metric's name makes no folder
        if path.name not in ("best.ckpt", "last.ckpt"):
            scores[path.name] = torch.load(path, weights_only=True)["metrics"]["val/acc"]
    best = torch.load(folder / "best.ckpt", weights_only=True)
    assert len(scores) == kept
    assert not scores or best["metrics"]["val/acc"] == max(scores.values())
    assert metrics["val/acc"] == pytest.approx(best["metrics"]["val/acc"])
    assert metrics["best_checkpoint"] == "checkpoints/best.ckpt"
    last = torch.load(folder / "last.ckpt", weights_only=True)
    assert best["metrics"]["val/acc"] >= last["metrics"]["val/acc"]
    evaluation = ["fit=false", f"ckpt_path={folder}/best.ckpt", f"run_dir={tmp_path}/again"]
    assert train(composed(*setting, *evaluation))["test/acc"] == metrics["test/acc"]


def test_top_k_checkpoints_are_resumed_equal(resumes_equal: Any) -> None:
    options = ["callbacks.best_checkpoint.save_top_k=2", "callbacks.best_checkpoint.filename='{epoch}-{val/acc:.3f}'"]
    resumes_equal([*SMALL, *options, "trainer.max_epochs=3", "trainer.limit_train_batches=8"], 12)


# Case 2: an ordinary DataLoader; the lean loop's batches and Lightning's.
@pytest.mark.parametrize("fast", ["true", "false"])
def test_a_users_loader_is_resumed_equal(resumes_equal: Any, fast: str) -> None:
    resumes_equal([*mine(), f"fast_loop={fast}"], 13, saved=13)


# Case 3 and others that change what a step is.
@pytest.mark.parametrize(
    "options",
    [
        ["+trainer.accumulate_grad_batches=4"],
        ["+trainer.accumulate_grad_batches=4", "+trainer.val_check_interval=6", "+trainer.gradient_clip_val=0.1"],
        ["+trainer.val_check_interval=0.25"],
        ["+trainer.gradient_clip_val=0.05", "model=mlp"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.precision=64-true"],
        ["+callbacks.swa={_target_: lightning.pytorch.callbacks.GradientAccumulationScheduler, scheduling: {0: 3}}"],
        ["scheduler=plateau", "scheduler.patience=0"],
        ["scheduler=step", "scheduler.step_size=1"],
        ["scheduler=one_cycle"],
        ["optimizer=adamw"],
        ["monitor=null"],
        ["+trainer.reload_dataloaders_every_n_epochs=1"],
    ],
)
def test_settings_of_a_step_are_resumed_equal(resumes_equal: Any, options: list[str]) -> None:
    resumes_equal([*mine(), *options], 25)


# Case 4: averaged weights, by the callback and by hand.
def test_averaged_weights_are_resumed_equal_and_are_the_tested_ones(resumes_equal: Any, tmp_path: Path) -> None:
    average = "lightning.pytorch.callbacks.EMAWeightAveraging"
    resumes_equal([*mine(), f"+callbacks.ema={{_target_: {average}, decay: 0.9}}"], 13)
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    loaded = load_run(tmp_path / "run").model.state_dict()
    assert_equal(dict(loaded), dict(best["state_dict"]))
    assert not torch.equal(*(state["network.linear.weight"] for state in (loaded, best["current_model_state"])))


def test_what_a_module_does_after_a_batch_is_resumed_equal(resumes_equal: Any) -> None:
    task = ["~task", "+task={_target_: mine.Teacher, lr: 0.01}", "monitor=val_loss", "mode=min"]
    resumes_equal([*mine(), *task], 25)


# Case 5: a callback's state does not overrule what is typed.
EARLY = "+callbacks.early={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss, patience: 1, "
EARLY += "min_delta: 0.5}"


def test_a_patience_that_is_typed_counts(composed: Compose, tmp_path: Path) -> None:
    setting = [*mine(), "scheduler=none", "trainer.max_epochs=8"]
    stopped = train(composed(*setting, EARLY))
    assert stopped["epoch"] == 2
    assert train(composed(*setting, EARLY, "resume=auto")) == stopped
    longer = train(composed(*setting, EARLY.replace("patience: 1", "patience: 2"), "resume=auto"))
    assert longer["epoch"] == 6
    whole = train(composed(*setting, EARLY.replace("patience: 1", "patience: 2"), f"run_dir={tmp_path}/whole"))
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "whole"))
    assert whole["epoch"] == 6
    assert train(composed(*setting, "resume=auto"))["epoch"] == 8  # without it


def test_early_stopping_is_resumed_equal(resumes_equal: Any) -> None:
    assert resumes_equal([*mine(), "scheduler=none", "trainer.max_epochs=8", EARLY], 25)["epoch"] == 2


# Case 6: counted in batches, with two optimizers too.
def test_nan_stops_a_task_with_two_optimizers(quick_cli: Cli) -> None:
    answer = quick_cli(
        f"--config-dir={ROOT}/tests/tasks/conf", "task=gan", "data=gan", "task.g_lr=1e30", "trainer.log_every_n_steps=3"
    )  # fmt: skip
    assert answer.returncode == 1
    assert "g_loss is nan at optimizer step" in answer.stderr or "d_loss is nan" in answer.stderr


# Case 11
def test_a_run_without_a_test_set_ends_finished(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = train(composed(*mine("mine.Untested")))
    assert "nothing is tested: Untested has no test_dataloader" in capsys.readouterr().out
    assert {"train/loss", "val/loss", "val/acc"} < set(metrics)
    assert not [name for name in metrics if name.startswith("test")]
    assert load_run(tmp_path / "run").metrics == metrics


# Case 15
@pytest.mark.parametrize(
    ("options", "rates"),
    [
        (["scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "+scheduler.monitor=val/loss"], None),
        (["scheduler._target_=torch.optim.lr_scheduler.StepLR", "+scheduler.step_size=1"], [0.004, 0.0004]),
        (
            [
                "scheduler._target_=torch.optim.lr_scheduler.StepLR",
                "+scheduler.step_size=10",
                "+scheduler.interval=step",
            ],
            [0.0004, 0.000004],
        ),
        (["scheduler._target_=torch.optim.lr_scheduler.OneCycleLR", "+scheduler.max_lr=0.1"], None),
        (["scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR", "+scheduler.T_max=2"], [0.02, 0.0]),
        (["scheduler._target_=torch.optim.lr_scheduler.ExponentialLR", "+scheduler.gamma=0.5"], [0.02, 0.01]),
    ],
)
def test_any_scheduler_of_torch(composed: Compose, tmp_path: Path, options: list[str], rates: Any) -> None:
    found = []
    for epochs in (1, 2):
        run_dir = tmp_path / f"{epochs}"
        train(composed(*mine(), *options, f"trainer.max_epochs={epochs}", f"run_dir={run_dir}"))
        state = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"]
        found.append(state[0]["param_groups"][0]["lr"])
    assert rates is None or found == pytest.approx(rates, abs=1e-9)


def test_a_plateau_without_a_metric_is_a_line(composed: Compose) -> None:
    with pytest.raises(UserError, match=r"scheduler.monitor: ReduceLROnPlateau watches a metric"):
        train(composed(*mine(), "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"))


def test_a_schedule_that_cannot_be_extended_is_a_line(composed: Compose) -> None:
    setting = [*mine(), "scheduler=one_cycle"]
    train(composed(*setting))
    with pytest.raises(UserError, match="OneCycleLR ends after 40 optimizer steps and cannot be extended"):
        train(composed(*setting, "resume=auto", "trainer.max_epochs=4"))


def test_a_rate_that_jumps_is_said(composed: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    train(composed(*mine()))
    capsys.readouterr()
    train(composed(*mine(), "resume=auto", "trainer.max_epochs=4"))
    assert "the learning rate goes from 0 to 0.02 at optimizer step 40" in capsys.readouterr().err


def test_a_schedule_over_a_stream_needs_a_number_of_steps(composed: Compose) -> None:
    with pytest.raises(UserError, match=r"scheduler: needs the number of optimizer steps.*add trainer.max_steps=..."):
        train(composed(*mine("mine.Stream")))


@pytest.mark.parametrize("limit", ["trainer.max_steps=33", "+trainer.max_time=00:00:00:02"])
def test_a_run_without_a_number_of_epochs(composed: Compose, limit: str) -> None:
    setting = [*mine("mine.Stream"), "trainer.max_epochs=-1", limit]
    metrics = train(composed(*setting, "scheduler=linear" if "steps" in limit else "scheduler=none"))
    assert metrics["global_step"] == 33 or "time" in limit
    assert metrics["test/acc"] > 0


def test_a_run_without_an_end_is_a_line(composed: Compose) -> None:
    with pytest.raises(UserError, match=r"trainer.max_epochs=-1: has no end; add trainer.max_steps=... or"):
        train(composed(*mine(), "trainer.max_epochs=-1"))


# Cases 37 and 40: a run that steps or time have ended within an epoch.
@pytest.mark.parametrize(("steps", "more"), [(13, 33), (20, 30), (13, 40), (33, -1)])
def test_more_steps_are_the_steps_of_a_longer_run(composed: Compose, tmp_path: Path, steps: int, more: int) -> None:
    setting = [*mine(), "scheduler=none", "monitor=null"]
    train(composed(*setting, f"trainer.max_steps={steps}"))
    resumed = train(composed(*setting, f"trainer.max_steps={more}", "resume=auto"))
    straight = train(composed(*setting, f"trainer.max_steps={more}", f"run_dir={tmp_path}/whole"))
    assert_equal(contents(tmp_path / "run")[0], contents(tmp_path / "whole")[0])
    assert resumed | {"seconds": 0} == straight | {"seconds": 0}


# Case 41
def test_layers_that_were_thawed_stay_so(composed: Compose, tmp_path: Path) -> None:
    setting = [*mine(), "model=mlp", "scheduler=none", "optimizer.fused=false", "+callbacks.thaw._target_=mine.Thaw"]
    train(composed(*setting))
    train(composed(*setting, "resume=auto", "trainer.max_epochs=4"))
    train(composed(*setting, "trainer.max_epochs=4", f"run_dir={tmp_path}/whole"))
    assert_equal(contents(tmp_path / "run")[0], contents(tmp_path / "whole")[0])


# Case 45
def test_two_validation_and_two_test_loaders(composed: Compose, tmp_path: Path) -> None:
    metrics = train(composed(*mine("mine.TwoOfEach"), "monitor=val/acc/dataloader_idx_0"))
    names = {
        f"{stage}/{name}/dataloader_idx_{i}" for stage in ("val", "test") for name in ("loss", "acc") for i in (0, 1)
    }
    assert names < set(metrics)
    sizes = []
    for name in ("confusion_matrix.csv", "confusion_matrix_1.csv"):
        rows = (tmp_path / "run" / name).read_text().splitlines()[1:]
        sizes.append(sum(int(cell) for row in rows for cell in row.split(",")[1:]))
    assert sizes == [640, 320]


# Case 49
def test_an_override_of_a_resumed_run_is_one_of_its_own_options(quick_cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert quick_cli("logger=none", "trainer=debug", interrupt(2), f"hydra.run.dir={run}").returncode == 130
    wrong = quick_cli(f"resume={run}", "callbacks.interrupt.bach=-1")
    assert wrong.returncode == 1
    assert "callbacks.interrupt.bach=-1: the run to resume has no such option. Did you mean batch?" in wrong.stderr
    assert quick_cli(f"resume={run}", "callbacks.interrupt.batch=-1").returncode == 0


# Cases 28 to 30: killed between the last epoch and the end. An unhandled error leaves the disk as a kill does.
AT_THE_END = {
    "epochs": [],
    "no monitor": ["monitor=null"],
    "early stopping": [EARLY, "scheduler=none", "trainer.max_epochs=6"],
    "steps": ["trainer.max_steps=33", "scheduler=none"],
    "averaging": ["+callbacks.ema={_target_: lightning.pytorch.callbacks.EMAWeightAveraging, decay: 0.9}"],
}


LATER = [pytest.param(hook, marks=pytest.mark.slow) for hook in ("on_train_end", "on_test_start", "on_test_batch_end")]


@pytest.mark.parametrize("hook", ["between best and last", *LATER])
@pytest.mark.parametrize("options", AT_THE_END.values(), ids=AT_THE_END)
def test_a_kill_at_the_end_is_resumed_equal(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], hook: str
) -> None:
    owner: Any = LastCheckpoint
    name = "on_train_epoch_end" if hook == "between best and last" else hook
    original = getattr(owner, name)

    def kill(self: Any, trainer: Any, *rest: Any) -> None:
        if trainer.current_epoch >= 1:
            raise RuntimeError("killed")
        original(self, trainer, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, kill)
        with pytest.raises(RuntimeError, match="killed"):
            train(composed(*mine(), *options))
    assert not (tmp_path / "run/metrics.json").exists()
    train(composed(*mine(), *options, "resume=auto"))
    train(composed(*mine(), *options, f"run_dir={tmp_path}/straight"))
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))
