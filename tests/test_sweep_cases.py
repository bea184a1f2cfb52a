"""Sweeps over choices, lists and files: all jobs run, or a line says why before the first one begins."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Cli

from runlab.config.resolvers import for_each_choice
from runlab.sweeps import grid, table
from runlab.sweeps.results import Row


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The jobs of a sweep, which are not run."""
    asked: list[list[str]] = []

    def launch(_: Any, jobs: list[list[str]], first: int) -> list[Any]:  # noqa: ARG001
        asked.extend(map(list, jobs))
        return [0.5] * len(jobs)

    monkeypatch.setattr(grid.Grid, "launch", launch)
    return asked


@pytest.fixture
def experiments(tmp_path: Path) -> str:
    """A folder of configs beside the project's, with experiments of a user's own."""
    files = {
        "deep": "defaults:\n  - override /model: mlp\nmodel:\n  dropout: 0.3\n",
        "parallel": "defaults:\n  - override /hydra/launcher: local\n",
        "own_sweep": "hydra:\n  sweeper:\n    params:\n      seed: range(3)\n",
        "seeded": "defaults:\n  - override /sweep: seeds\n",
    }
    (tmp_path / "own/experiment").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / f"own/experiment/{name}.yaml").write_text(f"# @package _global_\n{text}")
    return f"--config-dir={tmp_path}/own"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["model=mlp,lenet"], 2),
        (["model=mlp,lenet", "seed=0,1"], 4),
        (["optimizer=sgd,adamw", "optimizer.weight_decay=0.1"], 2),
        (["optimizer=adamw,sgd", "optimizer.lr=0.1,0.2", "optimizer.weight_decay=0.1"], 4),
        (["sweep=[seeds,folds]", "data.folds=2"], 10),
        (["callbacks.progress.refresh_rate=1", "+tags=[a,b],[c]"], 2),
        (["+tag='a,b','c d'"], 2),
        (["hyperparameters=[model,seed],[seed]", "+tag={a: 1, b: 2},{a: 3}"], 4),
        (["model=mlp,choice(mlp)"], None),
    ],
    ids=str,
)
def test_all_jobs(quick_cli: Cli, launched: list[list[str]], typed: list[str], expected: int | None) -> None:
    answer = quick_cli("-m", *typed)
    if expected is None:
        assert (answer.returncode, len(answer.stderr.splitlines()), launched) == (1, 1, [])
        return
    assert answer.returncode == 0, answer.stderr
    assert len(launched) == expected
    assert answer.stdout.startswith(f"{expected} jobs, 0 of them finished")


def test_every_experiment_there_is(quick_cli: Cli, launched: list[list[str]]) -> None:
    assert quick_cli("-m", "experiment=glob(*)").returncode == 0
    there = sorted(path.stem for path in (ROOT / "conf/experiment").glob("*.yaml"))
    assert sorted(job[0] for job in launched) == [f"experiment={name}" for name in there]


def test_a_value_of_the_choice_that_an_experiment_makes(
    quick_cli: Cli, launched: list[list[str]], experiments: str
) -> None:
    answer = quick_cli(experiments, "-m", "experiment=deep", "model.dropout=0.1,0.2")
    assert (answer.returncode, len(launched)) == (0, 2), answer.stderr
    answer = quick_cli(experiments, "-m", "experiment=deep,notebook", "model.channels=1")
    assert (answer.returncode, len(launched)) == (0, 4), answer.stderr


REFUSED = [
    (["model=mlp,lenet", "model.dropout=0.2"], ["model=lenet", "model.dropout: no such option", "model.channels"]),
    (["experiment=deep,notebook", "model.dropout=0.2"], ["experiment=notebook", "model.dropout: no such option"]),
    (["sweep=seeds,folds"], ["sweep=seeds,folds: one sweep a command", "'sweep=[seeds,folds]'"]),
    (["experiment=parallel,notebook"], ["experiment=parallel", "sets the launcher", "hydra/launcher=local"]),
    (["experiment=notebook,seeded"], ["experiment=seeded", "cannot name a sweep; type it, as in sweep=seeds"]),
    (["experiment=own_sweep,notebook"], ["experiment=own_sweep", "sets the sweeper", "sweep=seeds"]),
    (["model=mlp,mpl"], ["model=mpl: no such choice"]),
    (
        ["sweep=optuna", "optimizer=choice(sgd,adamw)", "optimizer.momentum=interval(0,1)"],
        ["optimizer=adamw", "optimizer.momentum: no such option"],
    ),
    (["sweep=optuna", "optimizer=choice(sgd,adamw)"], ["optimizer=adamw", "optimizer.momentum: no such option"]),
]


@pytest.mark.parametrize(("typed", "words"), REFUSED, ids=lambda value: value[-1])
def test_a_line_before_the_first_job(
    quick_cli: Cli, tmp_path: Path, launched: list[list[str]], experiments: str, typed: list[str], words: list[str]
) -> None:
    answer = quick_cli(experiments, "-m", *typed)
    assert (answer.returncode, len(answer.stderr.splitlines())) == (1, 1), answer.stderr
    assert all(word in answer.stderr for word in words), answer.stderr
    assert launched == []
    assert not list(tmp_path.glob("sweep/*/.hydra"))


def test_a_search_over_choices_with_what_each_has(quick_cli: Cli, launched: list[list[str]]) -> None:
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optimizer.weight_decay=0.1"]
    answer = quick_cli("-m", "optimizer=choice(sgd,adamw)", "optimizer.lr=interval(0,1)", *search)
    assert answer.returncode == 0, answer.stderr
    assert len(launched) == 2
    assert all("optimizer.weight_decay=0.1" in job for job in launched)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("-m model=mlp,lenet model.dropout=0.2", "-m model=mlp,lenet model.dropout=choice(0.2)"),
        ("-m model=mlp,lenet optimizer.lr=0.2", None),
        ("-m experiment=a,b optimizer.lr=0.2 +x.y=1", "-m experiment=a,b optimizer.lr=choice(0.2) +x.y=1"),
        ("-m model=choice(mlp) +model.x=[1,2]", "-m model=choice(mlp) +model.x=choice([1,2])"),
        ("logger=[csv,tensorboard] logger.csv.name=x", None),
        ("-m model=mlp,lenet model.dropout=0.2,0.3", None),
        ("-m model=mlp,lenet ~model.dropout model.dropout=", None),
    ],
)
def test_single_values_of_swept_choices(typed: str, expected: str | None) -> None:
    assert for_each_choice(typed.split()) == (expected or typed).split()


def finished(folder: str, seed: int, lr: str, status: str = "finished") -> Row:
    metrics = {"val/acc": 0.5 + seed / 10} if status == "finished" else {}
    return Row(Path(folder), {"seed": str(seed), "optimizer.lr": lr}, metrics, status)


def test_the_mean_of_an_incomplete_sweep_is_marked() -> None:
    rows = [finished(f"a{seed}", seed, "0.1") for seed in range(3)]
    rows += [finished("b0", 0, "0.2"), finished("b1", 1, "0.2"), finished("b2", 2, "0.2", "unfinished")]
    lines = list(table.lines(rows, "val/acc", -1))
    means = lines[lines.index("\nmean ± standard deviation over seed") + 2 :]
    assert [line.split("  ")[1].strip() for line in means] == ["3", "2 of 3, incomplete"]


def test_a_stopped_sweep_shows_what_has_not_begun(quick_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise SystemExit(130)

    monkeypatch.setattr(grid.Grid, "launch", stopped)
    answer = quick_cli("-m", "seed=0,1,2")
    assert answer.returncode == 130
    assert answer.stdout.count("unfinished") == 3


# A job of a cluster in a process of its own, as submitit runs it: it fails, and hands its result over.
JOB = """
import sys
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from runlab.sweeps import jobs
hydra = {"mode": RunMode.MULTIRUN, "launcher": {"_target_": "hydra_plugins.hydra_submitit_launcher.SlurmLauncher"},
         "job": {"num": 0}, "overrides": {"task": ["seed=0"]}}
HydraConfig.instance().cfg = OmegaConf.create({"hydra": hydra})
def train(cfg):
    raise getattr(jobs, sys.argv[2])("it broke") if sys.argv[2] != "ValueError" else ValueError("it broke")
cfg = OmegaConf.create({"run_dir": sys.argv[1], "resume": None, "trainer": {"devices": 1}, "monitor": None})
print("result", jobs.run_job(train, cfg))
"""


@pytest.mark.parametrize(
    ("error", "result", "status"), [("ValueError", "failed", 1), ("Diverged", "diverged", 1), ("Pruned", "pruned", 0)]
)
def test_a_failed_job_is_failed_for_the_cluster(tmp_path: Path, error: str, result: str, status: int) -> None:
    command = [sys.executable, "-c", JOB, str(tmp_path), error]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (status, f"result {result}\n"), ended.stderr
    assert ended.stderr.count("Traceback") == status
    assert (tmp_path / "run.log").read_text().count("Traceback") == 1


def test_a_job_is_finished_where_a_path_was_typed_from_here(quick_cli: Cli) -> None:
    quick = [f"~callbacks.{name}" for name in ("confusion_matrix", "weights", "train_batch", "mistakes", "pr_curves")]
    sweep = ["-m", "seed=0,1", "data.root=data", "trainer=debug", "logger=none", *quick]
    assert quick_cli(*sweep).stdout.startswith("2 jobs, 0 of them finished")
    assert quick_cli(*sweep).stdout.startswith("2 jobs, 2 of them finished")
