"""`python train.py ...` as a user types it: what it answers, how quickly, with which exit status."""

import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Cli, choices, readme
from omegaconf import OmegaConf

from runlab.config.messages import report_errors

# Prints the heavy modules that a command has imported by its end.
PROBE = """
import runpy, sys
heavy = {"torch", "lightning", "torchvision", "matplotlib", "optuna"}
sys.argv = ["train.py", *sys.argv[1:]]
try:
    runpy.run_path("train.py", run_name="__main__")
finally:
    print("IMPORTED", sorted(heavy & set(sys.modules)))
"""

# What is typed -> its exit status, the words of its answer.
QUICK_ANSWERS = [
    (["--help"], 0, ["experiment=notebook", "model: lenet, linear, mlp", "trainer.accelerator=gpu"]),
    (
        ["--help", "optimizer"],
        0,
        ["adamw or sgd", "optimizer.lr ", " 0.04 ", " number > 0 ", " Learning rate at the start."],
    ),
    (["--help", "data", "data=null"], 0, ["data=cifar10 or "]),
    (["--help", "model", "model=mlp"], 0, ["model.dropout", " 0.1 ", " number >= 0 < 1 "]),
    (["--help", "trainer"], 0, ["+trainer.gradient_clip_val"]),
    (["--help", "train"], 0, ["resume ", "text or null", "Run folder to resume"]),
    (["--help", "logger"], 0, ["TensorBoardLogger", "logger.tensorboard.flush_secs"]),
    (["--help", "optimzer"], 1, ["--help optimzer: no such group. Did you mean optimizer?"]),
    (["--cfg", "job"], 0, ["batch_size: 256", "lr: 0.04", "max_epochs: 5"]),
    (["--cfg", "job", "sweep=optuna"], 0, ["lr: 0.04", "optuna.pruners.MedianPruner"]),
    (["optimzer.lr=1"], 1, ["optimzer: no such option. Did you mean optimizer?"]),
    (["optimizer.lrr=1"], 1, ["optimizer.lrr: no such option. Did you mean optimizer.lr?", "optimizer.momentum"]),
    (["sed=1"], 1, ["sed: no such option. Did you mean seed?"]),
    (["model=mpl"], 1, ["model=mpl: no such choice. Did you mean mlp? Choices: lenet, linear, mlp."]),
    (["experiment=notbook"], 1, ["experiment=notbook: no such choice. Did you mean notebook?"]),
    (["optimizer.lr"], 1, ["optimizer.lr"]),
    (["optimizer.lr=-1"], 1, ["optimizer.lr=-1: must be number > 0"]),
    (["optimizer.lr=nan"], 1, ["optimizer.lr=nan: must be number > 0"]),
    (["data.batch_size=0"], 1, ["data.batch_size=0: must be integer >= 1"]),
    (["name=../x"], 1, ["name=../x: must be matching"]),
    (["fit=false"], 1, ["fit=false: nothing to evaluate; add resume=runs/..., or ckpt_path="]),
]


@pytest.mark.parametrize(
    ("arguments", "status", "words"), QUICK_ANSWERS, ids=[" ".join(answer[0]) for answer in QUICK_ANSWERS]
)
def test_answers_without_torch(tmp_path: Path, arguments: list[str], status: int, words: list[str]) -> None:
    folder = [] if arguments[0].startswith("--") else [f"hydra.run.dir={tmp_path}/run"]
    command = [sys.executable, "-c", PROBE, *arguments, *folder]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == status, answer.stderr
    assert "IMPORTED []" in answer.stdout
    text = answer.stdout if status == 0 else answer.stderr
    assert all(word in text for word in words), text
    if status:
        assert len(text.splitlines()) <= 2
        assert "Traceback" not in text


def test_full_traceback_on_request(cli: Cli) -> None:
    answer = cli("optimizer.lr=-1", env={"HYDRA_FULL_ERROR": "1"})
    assert answer.returncode == 1
    assert "Traceback" in answer.stderr
    assert "UserError: optimizer.lr=-1" in answer.stderr


def test_an_error_of_the_code_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(ZeroDivisionError), report_errors():
        _ = 1 / 0
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_a_run_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    answer = cli("seed=0", "trainer=debug")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    lines = answer.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "test", "test", "run", "dashboard"]
    assert lines[1].startswith("test accuracy  ")
    assert "/3000 = " in lines[1]
    run_dir = tmp_path / "run"
    assert (run_dir / ".hydra/overrides.yaml").read_text() == "- seed=0\n- trainer=debug\n"
    assert OmegaConf.load(run_dir / ".hydra/config.yaml").seed == 0
    command = json.loads((run_dir / "provenance.json").read_text())["command"]
    assert command[:3] == ["train.py", "seed=0", "trainer=debug"]


def test_a_sweep_gives_each_job_a_folder(quick_cli: Cli, tmp_path: Path) -> None:
    answer = quick_cli("-m", "seed=0,1", "trainer=debug", "logger=none")
    assert answer.returncode == 0, answer.stderr
    folders = sorted(path.parent.name for path in (tmp_path / "sweep").glob("*/metrics.json"))
    assert len(folders) == 2
    assert [f"seed={seed}" in folder for seed, folder in enumerate(folders)] == [True, True]


def test_cross_validation_ends_with_mean_and_deviation_over_folds(quick_cli: Cli, tmp_path: Path) -> None:
    quick = ["trainer.max_epochs=1", "trainer.limit_train_batches=20", "trainer.limit_test_batches=2", "logger=none"]
    answer = quick_cli(*readme("sweep=folds"), "data.folds=3", *quick)
    assert answer.returncode == 0, answer.stderr
    files = sorted((tmp_path / "sweep").glob("*/metrics.json"))
    assert [path.parent.name.split(",")[0] for path in files] == [f"data.fold={fold}" for fold in range(3)]
    metrics = [json.loads(path.read_text()) for path in files]
    assert len({scores["val/acc"] for scores in metrics}) == 3
    means = [
        f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
        for values in ([scores[name] for scores in metrics] for name in ("val/acc", "test/acc"))
    ]
    blocks = answer.stdout.split("\n\n")
    assert blocks[-2].splitlines()[0] == "mean ± standard deviation over data.fold"
    assert blocks[-2].splitlines()[2].split("  ") == [*means, "3"]
    with (tmp_path / "sweep/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    best_first = sorted(range(3), key=lambda fold: -metrics[fold]["val/acc"])
    assert [int(row["data.fold"]) for row in rows] == best_first
    assert [float(row["val/acc"]) for row in rows] == [metrics[fold]["val/acc"] for fold in best_first]
    spelt_out = quick_cli("-m", "data.folds=3", "data.fold=range(0,3)", *quick)
    assert spelt_out.stdout.startswith(f"3 jobs, 3 of them finished, in {tmp_path}/sweep\n")


def test_help_lists_every_choice(cli: Cli) -> None:
    text = cli("--help").stdout
    for group in ("data", "model", "optimizer", "scheduler", "trainer", "logger", "experiment"):
        assert f"{group}: {', '.join(choices(group))}" in text
