"""`logger=csv`, `mlflow` and `wandb` with the real packages: what each has stored at the end of a run, offline."""

import csv
import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT, Cli, Compose, choices
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from digits import callbacks
from runlab.tracking import log
from train import train

LOGGERS = ["csv", "mlflow", "tensorboard", "wandb"]

# Runs train.py where the packages named first, with commas, are not installed.
HIDDEN = """
import importlib.metadata, runpy, sys
hidden = sys.argv[1].split(",")
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
found = importlib.metadata.Distribution.from_name.__func__
def from_name(cls, name):
    if name.partition("-")[0] in hidden:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(cls, name)
sys.meta_path.insert(0, Nowhere())
importlib.metadata.Distribution.from_name = classmethod(from_name)
sys.argv = ["train.py", *sys.argv[2:]]
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The pictures that a run gives to its loggers, by tag."""
    pictures: dict[str, np.ndarray] = {}
    log_image = log.log_image

    def noted(trainer: Any, tag: str, image: np.ndarray) -> None:
        pictures[tag] = image
        log_image(trainer, tag, image)

    monkeypatch.setattr(callbacks, "log_image", noted)
    return pictures


def logged(metrics: dict[str, Any]) -> dict[str, float]:
    """What a logger must have stored of `metrics.json`: float32 numbers, of which `test/acc` is the exact quotient."""
    return {name: float(np.float32(metrics[name])) for name in ("val/acc", "test/acc")}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "csv/version_0/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check_csv(run_dir: Path, metrics: dict[str, Any]) -> None:
    stored = rows(run_dir)
    assert [row["step"] for row in stored if row["train/loss"]] == ["0", "1", "2"]
    for name, value in logged(metrics).items():
        assert [float(row[name]) for row in stored if row[name]] == [value]
    hparams = yaml.safe_load((run_dir / "csv/version_0/hparams.yaml").read_text())
    assert (hparams["optimizer.lr"], hparams["trainer.max_epochs"]) == (0.04, 1)


def check_mlflow(root: Path, run_dir: Path, metrics: dict[str, Any], drawn: dict[str, np.ndarray]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("default")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name, run.data.tags["run_dir"]) == ("FINISHED", "run", str(run_dir))
    assert {name: run.data.metrics[name] for name in logged(metrics)} == logged(metrics)
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [0, 1, 2]
    assert (run.data.params["optimizer.lr"], run.data.params["model"]) == ("0.04", "LinearClassifier")
    stored = sorted((root / "artifacts" / run.info.run_id / "artifacts/images").glob("*.png"))
    assert [path.name.partition("+timestamp")[0] for path in stored] == [
        "test~confusion_matrix+step+3",
        "test~mistakes+step+3",
        "train~batch+step+0",
        "train~weights+step+3",
        "val~confusion_matrix+step+3",
    ]
    for path, tag in zip(stored, sorted(drawn), strict=True):
        assert np.array_equal(pixels(path), drawn[tag])


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of an offline run's log: LevelDB's format, after seven bytes of W&B's own."""
    data, position, parts = path.read_bytes(), 7, b""
    while position < len(data):
        if (rest := 32768 - position % 32768) < 7:  # a record's header is never split over two blocks
            position += rest
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)  # after a checksum
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def check_wandb(run_dir: Path, metrics: dict[str, Any], drawn: dict[str, np.ndarray]) -> None:
    record_type: Any = import_module("wandb.proto.wandb_internal_pb2").Record
    (folder,) = (run_dir / "wandb").glob("offline-run-*")
    for tag, image in drawn.items():
        (path,) = (folder / "files/media/images").glob(f"{tag}_*.png")
        assert np.array_equal(pixels(path), image)
    config: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    exits: list[int] = []
    (log,) = folder.glob("*.wandb")
    end = time.monotonic() + 10  # W&B's own process may write the last of it after `wandb.finish` has returned
    while (records := [*map(record_type.FromString, wandb_records(log))])[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < end
        time.sleep(0.05)
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            items = record.run.config.update if kind == "run" else record.config.update
            config |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
        if kind == "history":
            items = record.history.item
            history.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
        if kind == "exit":
            exits.append(record.exit.exit_code)
    assert (config["optimizer.lr"], config["data.batch_size"]) == (0.04, 256)
    for name, value in logged(metrics).items():
        assert [row[name] for row in history if name in row] == [value]
    assert [row["trainer/global_step"] for row in history if "test/confusion_matrix" in row] == [metrics["global_step"]]
    assert exits == [0]


def check_tensorboard(run_dir: Path, metrics: dict[str, Any]) -> None:
    events = EventAccumulator(str(run_dir)).Reload()
    assert {name: events.Scalars(name)[0].value for name in logged(metrics)} == logged(metrics)
    assert len(events.Images("test/confusion_matrix")) == 1


def test_every_logger_is_tried_here() -> None:
    assert choices("logger") == sorted([*LOGGERS, "none"])


def test_none(composed: Compose, tmp_path: Path) -> None:
    train(composed("trainer=debug", "logger=none"))
    names = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(("provenance", "."))}
    assert names == {"checkpoints", "confusion_matrix.csv", "confusion_matrix.png", "metrics.json", "run.log"}


@pytest.fixture
def store(tmp_path: Path) -> list[str]:
    """What puts MLflow's store into a temporary folder."""
    return [
        f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/mlflow.db",
        f"logger.mlflow.artifact_location={tmp_path}/artifacts",
    ]


def test_csv(composed: Compose, tmp_path: Path) -> None:
    check_csv(tmp_path / "run", train(composed("trainer=debug", "logger=csv")))
    assert not list((tmp_path / "run").glob("events.*"))


@pytest.mark.slow
def test_mlflow(composed: Compose, tmp_path: Path, drawn: dict[str, np.ndarray], store: list[str]) -> None:
    metrics = train(composed("trainer=debug", "logger=mlflow", *store))
    check_mlflow(tmp_path, tmp_path / "run", metrics, drawn)


@pytest.mark.slow
def test_wandb(composed: Compose, tmp_path: Path, drawn: dict[str, np.ndarray]) -> None:
    # Two runs in one process, as in a sweep: each has a W&B run of its own.
    metrics = train(composed("trainer=debug", "logger=wandb"))
    train(composed("trainer=debug", "logger=wandb", f"run_dir={tmp_path}/other", "~callbacks.confusion_matrix"))
    check_wandb(tmp_path / "run", metrics, drawn)


def test_several_at_once(composed: Compose, tmp_path: Path, drawn: dict[str, np.ndarray], store: list[str]) -> None:
    cfg = composed("trainer=debug", f"logger=[{','.join(LOGGERS)}]", *store)
    assert list(cfg.logger) == LOGGERS
    metrics, run_dir = train(cfg), tmp_path / "run"
    check_csv(run_dir, metrics)
    check_mlflow(tmp_path, run_dir, metrics, drawn)
    check_tensorboard(run_dir, metrics)
    check_wandb(run_dir, metrics, drawn)


def test_a_resumed_run_adds_to_its_rows(composed: Compose, tmp_path: Path) -> None:
    train(composed("trainer=debug", "logger=csv"))
    before = rows(tmp_path / "run")
    hparams = (tmp_path / "run/csv/version_0/hparams.yaml").read_text()
    train(composed("trainer=debug", "trainer.max_epochs=2", "resume=auto", "logger=csv"))
    after = rows(tmp_path / "run")
    assert [{name: row[name] for name in before[0]} for row in after[: len(before)]] == before
    assert (tmp_path / "run/csv/version_0/hparams.yaml").read_text() == hparams
    steps = {name: [int(row["step"]) for row in after[len(before) :] if row[name]] for name in after[0]}
    assert steps["train/loss"] == steps["train/lr"] == [3, 4, 5]
    assert steps["val/acc"] == steps["test/acc"] == [6]


def test_hyperparameters_say_what_was_typed(quick_cli: Cli, tmp_path: Path) -> None:
    assert quick_cli("experiment=notebook", "trainer=debug", "logger=csv", "data.batch_size=64").returncode == 0
    hparams = yaml.safe_load((tmp_path / "run/csv/version_0/hparams.yaml").read_text())
    assert hparams | {"experiment": "notebook", "trainer": "debug", "logger": "csv", "data.batch_size": 64} == hparams
    assert hparams | {"model": "LinearClassifier", "optimizer": "SGD", "scheduler": "none"} == hparams
    assert hparams["overrides"] == "experiment=notebook trainer=debug logger=csv data.batch_size=64"


@pytest.mark.slow
def test_nothing_is_said_or_left_beside_the_run(cli: Cli, tmp_path: Path, store: list[str]) -> None:
    before = set(ROOT.iterdir())
    answer = cli("trainer=debug", "logger=[csv,mlflow,wandb]", *store)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert [line.split()[0] for line in answer.stdout.splitlines()] == ["epoch", "test", "test", "run"]
    assert set(ROOT.iterdir()) <= before | {ROOT / "__pycache__"}
    assert {path.name for path in tmp_path.iterdir()} == {"run", "mlflow.db", ".mlflow.db.lock", "artifacts"}


@pytest.mark.parametrize(
    ("hidden", "logger", "words"),
    [
        ("wandb", "wandb", "logger.wandb: needs the package wandb: pip install wandb"),
        pytest.param(
            *("mlflow", "mlflow", "logger.mlflow: needs the package mlflow: pip install mlflow, or only"),
            marks=pytest.mark.slow,
        ),
        pytest.param("sqlalchemy,alembic", "mlflow", "logger.mlflow: needs ", marks=pytest.mark.slow),
    ],
)
def test_a_missing_package_is_one_line(tmp_path: Path, hidden: str, logger: str, words: str) -> None:
    command = [sys.executable, "-c", HIDDEN, hidden, f"logger={logger}", f"hydra.run.dir={tmp_path}/run"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    lines = [line for line in answer.stderr.splitlines() if not line.startswith("Error executing job")]  # Hydra's own
    assert len(lines) == 1
    assert lines[0].startswith(words)
    assert answer.stdout == ""


def test_an_unknown_logger_among_several(cli: Cli) -> None:
    answer = cli("logger=[csv,foo]")
    assert (answer.returncode, answer.stderr) == (1, "logger=foo: no such choice. --help lists the choices.\n")
