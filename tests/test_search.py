"""The search: what its trials come to, after a kill as without one, and the command that it ends with."""

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import GenericAlias
from typing import Any

import optuna
import pytest
import torch
from conftest import ROOT, Cli, readme, status_of
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from PIL import Image

from runlab.sweeps import search, space

COMPLETE, FAIL, PRUNED, RUNNING = TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING
QUICK = ["trainer.max_epochs=3", "trainer.limit_train_batches=5", "trainer.limit_test_batches=1", "logger=none"]
QUICK += [f"~callbacks.{name}" for name in ("confusion_matrix", "weights", "train_batch", "mistakes", "pr_curves")]
FIVE = [*readme("sweep=optuna"), *QUICK, "scheduler=none", "callbacks.pruning.pruner.n_startup_trials=2"]
FIVE += ["hydra.sweeper.n_trials=5", "hydra.sweeper.sampler.n_startup_trials=3"]
SURELY_PRUNED = [
    "callbacks.pruning.pruner._target_=optuna.pruners.ThresholdPruner",
    "+callbacks.pruning.pruner.lower=2",
    "~callbacks.pruning.pruner.n_startup_trials",
]

# Kills the search where the storage knows of trial 1's second epoch, and the trial's folder does not yet.
KILLED = """
import os, runpy, signal, sys
from runlab.sweeps.pruning import HydraConfig, Pruning
prunes = Pruning._prunes
def killed(self, epoch, value):
    answer = prunes(self, epoch, value)
    if (HydraConfig.get().job.num, epoch) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
Pruning._prunes = killed
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


def said(*arguments: str) -> None:
    """Run train.py, which is to succeed."""
    assert status_of(*arguments) == 0


def study_in(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=search.database(f"sqlite:///{folder}/optuna.db"))


def stored(folder: Path) -> list[FrozenTrial]:
    return study_in(folder).trials


def outcome(folder: Path) -> list[Any]:
    """What must not depend on how often a search was stopped."""
    return [(trial.state, trial.value, trial.params, trial.intermediate_values) for trial in stored(folder)]


def metrics(run_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir / "metrics.json").read_text())
    return {key: value for key, value in content.items() if key != "seconds"}


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of five trials."""
    folder = tmp_path_factory.mktemp("search")
    said(*FIVE, f"hydra.sweep.dir={folder}")
    return folder


@pytest.mark.slow
def test_a_trial_is_a_folder(five: Path) -> None:
    assert [trial.state for trial in stored(five)] == [COMPLETE, COMPLETE, PRUNED, COMPLETE, PRUNED]
    assert sorted(path.name for path in five.iterdir() if path.is_dir()) == ["0", "1", "2", "3", "4"]
    values = []
    for trial in stored(five):
        overrides = (five / f"{trial.number}/.hydra/overrides.yaml").read_text()
        assert list(trial.params) == ["optimizer.lr", "optimizer.momentum", "data.batch_size"]  # scheduler is typed
        assert all(f"- {key}={value}\n" in overrides for key, value in trial.params.items())
        assert all(len(f"{value:.4g}") >= len(str(value)) for value in trial.params.values() if type(value) is float)
        assert (five / f"{trial.number}/metrics.json").exists() == (trial.state == COMPLETE)
        if trial.state == PRUNED:
            assert json.loads((five / f"{trial.number}/ended.json").read_text())["status"] == "pruned"
            assert list(trial.intermediate_values) == [0, 1]
        values.append(tuple(trial.params.values()))
    assert len(set(values)) == 5
    assert len((five / "results.csv").read_text().splitlines()) == 6


def test_the_best_value_is_the_best_checkpoints(five: Path) -> None:
    study = study_in(five)
    assert study.best_value == max(metrics(path.parent)["val/acc"] for path in five.glob("*/metrics.json"))
    for trial in study.trials:
        if trial.state == COMPLETE:
            checkpoint = torch.load(five / f"{trial.number}/checkpoints/best.ckpt", weights_only=True)
            assert trial.value == metrics(five / str(trial.number))["val/acc"]
            assert torch.tensor(trial.value) == torch.tensor(checkpoint["metrics"]["val/acc"])
            assert torch.tensor(trial.value) == torch.tensor(max(trial.intermediate_values.values()))


def test_the_best_epoch_counts_and_not_the_last(tmp_path: Path) -> None:
    worse_and_worse = ["optimizer.lr=interval(0.1,0.3)", "optimizer.momentum=0.95", "data.batch_size=16"]
    few = ["trainer.limit_train_batches=2", "monitor=val/loss", "mode=min", "hydra.sweeper.n_trials=2"]
    said(*FIVE, *worse_and_worse, *few, f"hydra.sweep.dir={tmp_path}")
    study = study_in(tmp_path)
    best = [min(trial.intermediate_values.values()) for trial in study.trials]
    assert all(2 * value < trial.intermediate_values[2] for value, trial in zip(best, study.trials, strict=True))
    assert [trial.value for trial in study.trials] == pytest.approx(best, rel=1e-6)
    assert study.best_value == min(metrics(tmp_path / name)["val/loss"] for name in ("0", "1"))


def test_a_finished_search_says_again_how_to_repeat_its_best(
    five: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in five.glob("*/**/*")}
    said(*FIVE, f"hydra.sweep.dir={five}")
    assert {path: path.stat().st_mtime_ns for path in five.glob("*/**/*")} == before
    out = capfd.readouterr().out
    assert out.startswith(f"5 trials, 5 of them done, in {five}\n")
    best = max(stored(five), key=lambda trial: (trial.state == COMPLETE, trial.value))
    answer = re.fullmatch(r"best     val/acc (\S+)  python train.py (.+)", out.splitlines()[-1])
    assert answer
    assert float(answer[1]) == best.value
    assert "sweep" not in answer[2]
    said(*shlex.split(answer[2]), f"hydra.run.dir={tmp_path}/alone")
    assert metrics(tmp_path / "alone") == metrics(five / str(best.number))


def test_the_history_is_a_picture(five: Path) -> None:
    with Image.open(five / "optimization_history.png") as image:
        assert image.format == "PNG"
        assert image.width >= 640
        assert image.height >= 480
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50


@pytest.mark.slow
def test_a_killed_search_comes_out_as_the_uninterrupted(five: Path, tmp_path: Path) -> None:
    command = [*FIVE, f"hydra.sweep.dir={tmp_path}"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [trial.state for trial in stored(tmp_path)] == [COMPLETE, RUNNING]
    assert list(stored(tmp_path)[1].intermediate_values) == [0, 1]
    said(*command)
    assert outcome(tmp_path) == outcome(five)
    assert len(json.loads((tmp_path / "1/provenance.json").read_text())["resumed"]) == 1
    for number in (0, 1, 3):
        assert metrics(tmp_path / str(number)) == metrics(five / str(number))


def test_a_stop_leaves_its_trial_to_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise SystemExit(143)

    arguments = [*FIVE, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=3", f"hydra.sweep.dir={tmp_path}"]
    monkeypatch.setattr(search.Search, "launch", stopped)
    for _ in range(2):
        assert status_of(*arguments) == 143
        assert [trial.state for trial in stored(tmp_path)] == [RUNNING, RUNNING]
    firsts = []

    def launched(_: Any, jobs: list[list[str]], first: int) -> list[float]:
        firsts.append((first, len(jobs)))
        return [0.5] * len(jobs)

    monkeypatch.setattr(search.Search, "launch", launched)
    said(*arguments)
    assert firsts == [(0, 2), (2, 1)]
    assert [trial.value for trial in stored(tmp_path)] == [0.5] * 3


def test_pruned_and_diverged_trials_do_not_end_a_search(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rates = ["optimizer.lr=choice(1e37,0.01)", "hydra.sweeper.n_trials=3", f"hydra.sweep.dir={tmp_path}"]
    said(*FIVE, *SURELY_PRUNED, *rates)
    states = {trial.params["optimizer.lr"]: trial.state for trial in stored(tmp_path)}
    assert states == {"1e+37": FAIL, "0.01": PRUNED}
    assert all(trial.value is None for trial in stored(tmp_path) if trial.state == FAIL)
    out = capfd.readouterr().out
    assert "diverged" in out
    assert "best     " not in out


def test_a_failed_trial_is_an_error_at_the_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert status_of(*FIVE, "hydra.sweeper.n_trials=2", "data.batch_size=0", f"hydra.sweep.dir={tmp_path}") == 1
    assert [trial.state for trial in stored(tmp_path)] == [FAIL, FAIL]
    assert "2 of this sweep's jobs: failed, see above" in capfd.readouterr().err
    assert status_of(*FIVE, "hydra.sweeper.n_trials=2", "data.batch_size=0", f"hydra.sweep.dir={tmp_path}") == 1


def test_an_added_option_is_searched(tmp_path: Path) -> None:
    said(*FIVE, "+trainer.gradient_clip_val=interval(0,1)", "hydra.sweeper.n_trials=1", f"hydra.sweep.dir={tmp_path}")
    [trial] = stored(tmp_path)
    value = trial.params["+trainer.gradient_clip_val"]
    assert f"- +trainer.gradient_clip_val={value}\n" in (tmp_path / "0/.hydra/overrides.yaml").read_text()


@pytest.mark.slow
def test_trials_at_a_time(cli: Cli, tmp_path: Path) -> None:
    together = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2"]
    answer = cli(*FIVE, *together, "hydra.sweeper.n_trials=2", "trainer.max_epochs=1")
    assert answer.returncode == 0, answer.stderr
    assert [trial.state for trial in stored(tmp_path / "sweep")] == [COMPLETE] * 2
    assert sorted(path.parent.name for path in (tmp_path / "sweep").glob("*/metrics.json")) == ["0", "1"]


def test_what_still_runs_is_waited_for(tmp_path: Path) -> None:
    search.wait(tmp_path / "new")
    handle = (tmp_path / ".lock").open("w")
    fcntl.flock(handle, fcntl.LOCK_EX)
    timer, start = threading.Timer(0.2, handle.close), time.perf_counter()
    timer.start()
    search.wait(tmp_path)
    assert time.perf_counter() - start >= 0.2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["seed=1"], "a search that differs in seed=1; name another hydra.sweep.dir"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: must be integer >= 1"),
        (["optimizer.lr=tag(log,interval(0,1))"], "optimizer.lr=tag(log,interval(0,1)): "),
        (["hydra.sweeper.storage=sqlite:////sys/optuna.db"], "sqlite:////sys/optuna.db: "),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_answered_in_a_line(
    five: Path, capfd: pytest.CaptureFixture[str], changed: list[str], words: str
) -> None:
    assert status_of(*FIVE, f"hydra.sweep.dir={five}", *changed) == 1
    err = capfd.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1
    assert [trial.state for trial in stored(five)] == [COMPLETE, COMPLETE, PRUNED, COMPLETE, PRUNED]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("x=interval(0,1)", FloatDistribution(0, 1)),
        ("x=tag(log,interval(1e-4,1))", FloatDistribution(1e-4, 1, log=True)),
        ("x=int(interval(1,9))", IntDistribution(1, 9)),
        ("x=range(1,10,2)", IntDistribution(1, 9, step=2)),
        ("x=range(5)", IntDistribution(0, 4)),
        ("x=range(0,0.3,0.1)", CategoricalDistribution(["0.0", "0.1", "0.2"])),
        ("x=choice(16,none,cosine)", CategoricalDistribution(["16", "none", "cosine"])),
        ("x=1,2", CategoricalDistribution(["1", "2"])),
    ],
)
def test_the_values_are_given_in_hydras_words(word: str, expected: BaseDistribution) -> None:
    assert space.distribution(OverridesParser.create().parse_override(word)) == expected


def test_a_sweeper_is_registered_once() -> None:
    names = [plugin.__name__ for plugin in Plugins.instance().discover(Sweeper)]
    assert sorted(name for name in names if name in ("Grid", "Search")) == ["Grid", "Search"]
    # On Python 3.10 an alias as dict[str, int] passes for a class, at which Hydra, looking for sweepers, fails.
    assert not [name for name, value in vars(search).items() if isinstance(value, GenericAlias)]
