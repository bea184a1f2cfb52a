"""What is typed later and more specifically counts: presets beside experiments, and what is said where it does not."""

from pathlib import Path

import pytest
from conftest import Cli, Compose

import runlab.sweeps.grid  # noqa: F401  # it keeps what it imports: not what a test here puts in its place

DEBUG = {"max_epochs": 1, "max_steps": -1, "accelerator": "cpu", "devices": 1, "num_nodes": 1}
DEBUG |= {"limit_train_batches": 3, "limit_val_batches": 3, "limit_test_batches": 3}
OWN = """# @package _global_
defaults:
  - override /trainer: ddp
  - override /optimizer: adamw
optimizer:
  lr: 0.5
trainer:
  max_epochs: 9
  max_steps: 7
  accelerator: gpu
  devices: 4
  num_nodes: 2
  limit_train_batches: 1.0
"""


@pytest.mark.parametrize("experiment", ["seed=0", "experiment=notebook", "experiment=own"])
@pytest.mark.parametrize("first", [True, False])
def test_debug_holds_beside_any_experiment(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: str, first: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/own.yaml").write_text(OWN)
    words = ["trainer=debug", experiment][:: 1 if first else -1]
    trainer = composed(*words, f"hydra.searchpath=[file://{tmp_path}]").trainer
    assert {key: trainer[key] for key in DEBUG} == DEBUG
    assert composed(*words, "trainer.max_epochs=2", f"hydra.searchpath=[file://{tmp_path}]").trainer.max_epochs == 2


QUICK = ["logger=none", "trainer=debug"]
QUICK += [f"~callbacks.{name}" for name in ("confusion_matrix", "weights", "train_batch", "mistakes", "pr_curves")]
SAID = [
    ([], []),
    (["experiment=notebook"], []),
    (["seed=1", "seed=2"], ["seed=1: overruled by seed=2, which is typed later"]),
    (
        ["experiment=notebook", "optimizer=sgd", "data=mnist", "data.batch_size=16"],
        [
            "optimizer=sgd: its optimizer.lr=0.04 is overruled by experiment=notebook, 0.001; or type it",
            "data=mnist: its data.val_size=5000 is overruled by experiment=notebook, 0; or type it",
            "data=mnist: its data.eval_batch_size=1000 is overruled by experiment=notebook, 24; or type it",
        ],
    ),
    (["experiment=notebook", "optimizer=sgd", "optimizer.lr=0.04"], []),
    (["sweep=null", "optimizer=sgd", "optimizer.lr=0.01"], []),
]


@pytest.mark.parametrize(("typed", "lines"), SAID, ids=str)
def test_what_is_overruled_is_said(
    quick_cli: Cli, monkeypatch: pytest.MonkeyPatch, typed: list[str], lines: list[str]
) -> None:
    monkeypatch.setattr("runlab.config.overruled._said", set())
    monkeypatch.setattr("runlab.runs.record.finished_metrics", lambda *_: {"best_checkpoint": None})
    answer = quick_cli(*typed, *QUICK, "resume=auto")  # which is taken as finished
    assert (answer.returncode, answer.stderr.splitlines()) == (0, lines)


def test_a_number_with_an_exponent_is_a_number(quick_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runlab.runs.record.finished_metrics", lambda *_: {"best_checkpoint": None})
    (file := tmp_path / "own/optimizer/mine.yaml").parent.mkdir(parents=True)
    file.write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 1e-3\n")
    answer = quick_cli(f"--config-dir={tmp_path}/own", "optimizer=mine", *QUICK, "resume=auto")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_no_logger_by_either_word(quick_cli: Cli, tmp_path: Path) -> None:
    assert quick_cli("trainer=debug", "logger=null").returncode == 0
    assert not list((tmp_path / "run").glob("events*"))


def test_a_task_with_data_of_its_own_is_not_mixed_with_the_default(quick_cli: Cli, tmp_path: Path) -> None:
    (file := tmp_path / "own/task/line.yaml").parent.mkdir(parents=True)
    file.write_text("# @package _global_\ntask:\n  _target_: probe.Probe\n  lr: 0.1\ndata:\n  _target_: probe.Rows\n")
    own = [f"--config-dir={tmp_path}/own", "task=line", "trainer=debug", "logger=none", "monitor=null"]
    line = "task=line: has data of its own, probe.Rows; add data=null, or it gets digits.data.ImageDataModule\n"
    answer = quick_cli(*own)
    assert (answer.returncode, answer.stderr) == (1, line)
    assert not list(tmp_path.rglob("*.ckpt"))
    assert quick_cli(*own, "data=null", "+data.batch_size=4").returncode == 0
