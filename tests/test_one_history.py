"""A run that is stopped and resumed is one run in CSV, MLflow and W&B, and looks as if it had never been stopped."""

import csv
import json
import os
import signal
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Compose
from faults import fault
from lightning import Callback
from omegaconf import DictConfig
from test_loggers import wandb_records
from test_tasks import composed as composed_task

from runlab.config.messages import Diverged
from train import train

Points = dict[str, list[tuple[int, float]]]  # (step, value) by a metric's name, in the order in which they were logged


def of_csv(run_dir: Path) -> Points:
    points: Points = {}
    with (run_dir / "csv/version_0/metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name in [name for name, text in row.items() if text and name not in ("step", "epoch")]:
                points.setdefault(name, []).append((int(row["step"]), float(row[name])))
    assert [path.name for path in (run_dir / "csv").iterdir()] == ["version_0"]
    return points


def of_mlflow(store: Path, run_dir: Path) -> tuple[str, Points, list[str]]:
    """The status of the one run that a folder has in MLflow, its metrics, its pictures."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    [run] = client.search_runs(["1"], f"tags.run_dir = '{run_dir}'")
    names = sorted(name for name in run.data.metrics if name != "epoch")
    history = {name: client.get_metric_history(run.info.run_id, name) for name in names}
    points = {name: [(point.step, point.value) for point in history[name]] for name in names}
    pictures = (store / "artifacts" / run.info.run_id / "artifacts/images").glob("*.png")
    return run.info.status, points, sorted(path.name.partition("+timestamp")[0] for path in pictures)


def of_wandb(run_dir: Path, *expected: int) -> tuple[list[int], Points]:
    """The exit codes of the one run that a folder has in W&B, and what `wandb sync` will send of it.

    W&B's own process may write the last of it after `wandb.finish` has returned: the expected codes are waited for.
    """
    end = time.monotonic() + 10
    while (found := wandb_files(run_dir))[0] != [*expected] and time.monotonic() < end:
        time.sleep(0.05)
    return found


def wandb_files(run_dir: Path) -> tuple[list[int], Points]:
    record_type: Any = import_module("wandb.proto.wandb_internal_pb2").Record
    ids, exits, points = set(), [], {}  # type: ignore[var-annotated]
    for folder in sorted((run_dir / "wandb").glob("offline-run-*")):
        [log] = folder.glob("*.wandb")
        for record in map(record_type.FromString, wandb_records(log)):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add(record.run.run_id)
            if kind == "exit":
                exits.append(record.exit.exit_code)
            if kind == "history":
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                for name in row.keys() - {"epoch", "_step", "_runtime", "_timestamp", "trainer/global_step"}:
                    value = row[name] if isinstance(row[name], float | int) else 0.0
                    points.setdefault(name, []).append((row["trainer/global_step"], value))
    assert len(ids) == 1
    return exits, points


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of MLflow's store, whose tables take seconds to make."""
    return tmp_path_factory.mktemp("mlflow")


def in_store(store: Path) -> list[str]:
    places = [f"tracking_uri=sqlite:///{store}/mlflow.db", f"artifact_location={store}/artifacts"]
    return ["logger=[csv,mlflow,wandb]", "name=default", *(f"logger.mlflow.{place}" for place in places)]


def few(store: Path, root: Path, *more: str) -> DictConfig:
    """A run of three epochs of three batches, of a task that draws nothing."""
    limits = [f"trainer.limit_{part}_batches=3" for part in ("train", "val", "test")]
    return composed_task("autoencoder", root, "trainer.log_every_n_steps=1", *limits, *in_store(store), *more)


def check(store: Path, root: Path, straight: tuple[Points, Points, Points], status: str, *exits: int) -> None:
    """That the one run in MLflow and W&B has ended so, and what is there if it is finished."""
    found, points, _ = of_mlflow(store, root)
    codes, sent = of_wandb(root, *exits)
    assert (found, codes) == (status, list(exits))
    if status == "FINISHED":
        assert (of_csv(root), points, sent) == straight


@pytest.fixture(scope="module")
def straight(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Points, Points, Points]:
    """What the three hold of a run that nobody stopped."""
    root = tmp_path_factory.mktemp("straight")
    train(few(store, root))
    points = of_mlflow(store, root)[1]
    assert [step for step, _ in points["train_loss"]] == list(range(9))
    assert [step for step, _ in points["val_loss"]] == [2, 5, 8]
    return of_csv(root), points, of_wandb(root, 0)[1]


@pytest.mark.parametrize("batch", [2, 4, 9])
def test_ctrl_c(store: Path, tmp_path: Path, straight: Any, batch: int) -> None:
    with pytest.raises(SystemExit, match="130"):
        train(few(store, tmp_path, f"+callbacks.stop={{_target_: faults.InterruptAt, batch: {batch}}}"))
    check(store, tmp_path, straight, "KILLED", 255)
    train(few(store, tmp_path, "resume=auto"))
    check(store, tmp_path, straight, "FINISHED", 255, 0)


def spoil(self: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG001
    if self.trainer.global_step == 4:
        self.network[0].bias.data.fill_(float("nan"))


def test_a_loss_that_is_nan(store: Path, tmp_path: Path, straight: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tasks.autoencoder.AutoEncoder.on_train_batch_start", spoil, raising=False)
        with pytest.raises(Diverged):
            train(few(store, tmp_path))
    check(store, tmp_path, straight, "FAILED", 1)
    train(few(store, tmp_path, "resume=auto"))
    check(store, tmp_path, straight, "FINISHED", 1, 0)


def test_an_error_before_the_first_checkpoint(store: Path, tmp_path: Path, straight: Any) -> None:
    with pytest.raises(RuntimeError, match="a fault"):
        train(few(store, tmp_path, fault("raised", step=2)))
    check(store, tmp_path, straight, "FAILED", 1)
    train(few(store, tmp_path, "resume=auto"))
    check(store, tmp_path, straight, "FINISHED", 1, 0)


def test_a_run_that_begins_anew_in_the_folder_of_a_failed_one(store: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        with pytest.raises(RuntimeError, match="a fault"):
            train(few(store, tmp_path, f"seed={seed}", fault("raised", step=2).replace("seed: 0", f"seed: {seed}")))
    assert [step for step, _ in of_csv(tmp_path)["train_loss"]] == [0]
    assert len({path.name[-8:] for path in (tmp_path / "wandb").glob("offline-run-*")}) == 2


class KillAfter(Callback):
    """Kills its process after an optimizer step, once W&B has had the time to write down what it was told."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_kill_9(cli: Cli, composed: Compose, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second epoch, with pictures of the first."""
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # the tests above have started one, which nobody kills
    overrides, run_dir = ["trainer=debug", "trainer.max_epochs=3", *in_store(store)], tmp_path / "run"
    kill = "+callbacks.kill={_target_: test_one_history.KillAfter, step: 5}"
    assert cli(*overrides, kill).returncode == -9
    status, points, _ = of_mlflow(store, run_dir)
    assert (status, [step for step, _ in points["train/loss"]]) == ("RUNNING", [0, 1, 2, 3])
    train(composed(*overrides, "resume=auto"))
    status, points, pictures = of_mlflow(store, run_dir)
    exits, sent = of_wandb(run_dir, 0)
    assert (status, exits) == ("FINISHED", [0])
    for found in (of_csv(run_dir), points, sent):
        assert [step for step, _ in found["train/loss"]] == list(range(9))
        assert [step for step, _ in found["val/acc"]] == [3, 6, 9]
    drawn = [name for name in pictures if name.startswith("val")]
    assert drawn == [f"val~confusion_matrix+step+{step}" for step in (3, 6, 9)]
    assert len(pictures) == len(set(pictures))
