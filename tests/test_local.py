"""A sweep in parallel processes is what it is in one: its results, its failures, its end by a signal."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Compose, readme, weights

from train import train

QUICK = ["trainer.limit_train_batches=60", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "logger=none"]


@contextmanager
def begun(sweep: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A sweep of two workers as on a machine of two cores, in a process group of its own, that ends with the block."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    process = subprocess.Popen(
        [sys.executable, "train.py", *arguments, "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={sweep}"],
        cwd=ROOT,
        env={**env, "LOKY_MAX_CPU_COUNT": "2"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:  # the test has failed: its jobs would go on for long
            os.killpg(process.pid, signal.SIGKILL)


def folder_of(sweep: Path, override: str) -> Path:
    """The folder of the job that has an override."""
    return next(path for path in sweep.iterdir() if override in path.name.split(","))


@pytest.mark.slow
def test_the_jobs_of_a_sweep_start_workers_for_their_data(tmp_path: Path) -> None:
    quick = ["trainer=debug", "logger=none", "data.num_workers=2", f"data.root={ROOT}/data"]
    with begun(tmp_path / "sweep", "-m", "hydra/launcher=local", "seed=0,1", *quick) as process:
        err = process.communicate(timeout=120)[1]
    assert (process.returncode, err) == (0, "")
    assert len(list((tmp_path / "sweep").glob("*/metrics.json"))) == 2


@pytest.mark.slow
def test_failures_table_and_weights_are_those_of_one_process(composed: Compose, tmp_path: Path) -> None:
    sweep, setting = tmp_path / "sweep", [*QUICK, "trainer.max_epochs=1"]
    with begun(sweep, "-m", "hydra/launcher=local", "optimizer.lr=0.04,-1,1e38,0.01", *setting) as process:
        out, err = process.communicate(timeout=60)
    lines = [re.sub(r"  +", "  ", line) for line in out.splitlines()]
    scores = {}
    for lr in ("0.04", "0.01"):
        run_dir = folder_of(sweep, f"optimizer.lr={lr}")
        assert json.loads((run_dir / "provenance.json").read_text())["threads"] == 1
        metrics = json.loads((run_dir / "metrics.json").read_text())
        scores[lr] = f"{metrics['val/acc']:.4f}  {metrics['test/acc']:.4f}  finished  {metrics['seconds']:.1f}  {lr}"
    table = lines.index("val/acc  test/acc  status  seconds  optimizer.lr")
    diverged = "train/loss is nan at optimizer step 50; lower optimizer.lr?"
    assert sorted(lines[table + 1 : table + 3]) == sorted(scores.values())
    assert lines[table + 3 : -3] == [
        f"  diverged  1e+38  {diverged}",
        "  failed  -1  optimizer.lr=-1: must be number > 0",
    ]
    assert lines[-2:] == [f"results  {sweep}/results.csv", f"picture  {sweep}/results.png"]
    assert sorted(re.sub(r".*  ", "", line) for line in err.splitlines()[:2]) == [
        f"diverged: {diverged}",
        "failed: optimizer.lr=-1: must be number > 0",
    ]
    assert err.splitlines()[2:] == ["2 of this sweep's jobs: diverged, failed, see above"]
    with (sweep / "results.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["finished", "finished", "diverged", "failed"]

    logs = {lr: (folder_of(sweep, f"optimizer.lr={lr}") / "run.log").read_text() for lr in ("0.04", "-1", "1e+38")}
    assert [text.count("Traceback") for text in logs.values()] == [0, 1, 1]

    assert torch.get_num_threads() == 1
    train(composed("optimizer.lr=0.01", *setting))
    for name, tensor in weights(tmp_path / "run").items():
        assert torch.equal(weights(folder_of(sweep, "optimizer.lr=0.01"))[name], tensor)


def steps(sweep: Path) -> list[int]:
    """The optimizer steps that each job has saved."""
    saved = sorted(sweep.glob("*/checkpoints/last.ckpt"))
    return [torch.load(path, weights_only=True)["global_step"] for path in saved]


def until(ready: Callable[..., bool], *arguments: Any) -> None:
    end = time.monotonic() + 60
    while not ready(*arguments):
        assert time.monotonic() < end
        time.sleep(0.02)


def both_have_saved(sweep: Path, since: float) -> bool:
    return sum(path.stat().st_mtime > since for path in sweep.glob("*/checkpoints/last.ckpt")) == 2


def gone(group: int) -> bool:
    """Whether a process group has no process any more."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def workers(group: int) -> list[int]:
    """The process numbers of a sweep's workers."""
    command = ["pgrep", "-g", str(group), "-f", "popen_loky"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # status 1: none yet
    return [int(number) for number in found.stdout.split()]


def test_a_worker_that_is_killed_ends_the_sweep(tmp_path: Path) -> None:
    endless = [*readme("hydra/launcher=local"), *QUICK, "trainer.max_epochs=10000"]
    with begun(tmp_path / "sweep", *endless) as process:
        until(lambda: len(workers(process.pid)) == 2)
        os.kill(workers(process.pid)[0], signal.SIGKILL)  # as the system does it where memory runs out
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The exit codes of the workers are {SIGKILL(-9)}" in err.splitlines()[-1]
    assert "Traceback" not in err
    until(gone, process.pid)


INTERRUPTS: list[tuple[Callable[[int], None], int]] = [
    (lambda group: os.killpg(group, signal.SIGINT), 130),  # Ctrl-C on a terminal
    (lambda group: os.kill(group, signal.SIGTERM), 143),  # to the sweep's own process alone
]


@pytest.mark.slow
def test_an_interrupted_sweep_saves_leaves_nobody_and_goes_on(tmp_path: Path) -> None:
    sweep, before = tmp_path / "sweep", [0, 0]
    for interrupt, status in INTERRUPTS:
        since = time.time()
        with begun(sweep, *readme("hydra/launcher=local"), *QUICK, "trainer.max_epochs=10000") as process:
            until(both_have_saved, sweep, since)
            interrupt(process.pid)
            out, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert (err.count("stopped at epoch"), "Traceback" in err) == (2, False), err
        assert out.count("unfinished") == 4, out  # also what has not begun
        until(gone, process.pid)
        now = steps(sweep)
        assert all(ours > theirs for ours, theirs in zip(now, before, strict=True))  # and so no third job has begun
        before = now
