"""A sweep: jobs that fail alone, go on where they stopped, and equal the single run; its table."""

import csv
import json
import os
import signal
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest
import submitit
import torch
from conftest import Cli, Compose, readme, weights
from faults import fault
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from lightning import Callback
from omegaconf import OmegaConf
from test_resume import assert_equal

from runlab.config import resolvers
from runlab.sweeps import jobs as sweep_jobs
from runlab.sweeps import workers
from train import train

SHORT = ["trainer.max_epochs=2", "trainer.limit_train_batches=5", "trainer.limit_test_batches=1", "logger=none"]


def job(sweep: Path, *overrides: str) -> Path:
    """The folder of the job with these overrides."""
    [found] = [path for path in sweep.iterdir() if set(overrides) <= set(path.name.split(","))]
    return found


def test_every_combination_equals_the_single_run(quick_cli: Cli, composed: Compose, tmp_path: Path) -> None:
    answer = quick_cli(*readme("seed=0,1,2 optimizer.lr=0.01,0.04"), *SHORT)
    assert (answer.returncode, answer.stderr) == (0, "")
    lines = answer.stdout.splitlines()
    assert lines[0] == f"6 jobs, 0 of them finished, in {tmp_path}/sweep"
    pairs = [(seed, lr) for seed in (0, 1, 2) for lr in (0.01, 0.04)]
    wanted = [[f"{n}", f"seed={seed}", f"optimizer.lr={lr}"] for n, (seed, lr) in enumerate(pairs, start=1)]
    assert [line.split()[:3] for line in lines[1:7]] == wanted
    for seed, lr in pairs:
        run_dir = job(tmp_path / "sweep", f"seed={seed}", f"optimizer.lr={lr}")
        assert f"- seed={seed}\n- optimizer.lr={lr}\n" in (run_dir / ".hydra/overrides.yaml").read_text()
    for seed, lr in (pairs[0], pairs[5]):
        train(composed(f"seed={seed}", f"optimizer.lr={lr}", *SHORT, f"run_dir={tmp_path}/{seed}"))
        assert_equal(
            weights(job(tmp_path / "sweep", f"seed={seed}", f"optimizer.lr={lr}")), weights(tmp_path / str(seed))
        )


def test_jobs_fail_alone_and_are_not_repeated(quick_cli: Cli, tmp_path: Path) -> None:
    sweep, command = tmp_path / "sweep", ["-m", "seed=0,1", "optimizer.lr=0.04,-1,1e38", "trainer.log_every_n_steps=2"]
    first = quick_cli(*command, *SHORT)
    assert first.returncode == 1
    [head, *lines] = first.stdout.splitlines()
    assert head == f"6 jobs, 0 of them finished, in {sweep}"
    progress, table = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert [line.split()[:3] for line in progress] == [
        [f"{n}", f"seed={s}", "optimizer.lr=0.04"] for n, s in ((1, 0), (4, 1))
    ]
    assert table[0].split() == ["val/acc", "test/acc", "status", "seconds", "seed", "optimizer.lr"]
    assert [line.split()[0] for line in table[3:7]] == ["diverged", "diverged", "failed", "failed"]
    failures = first.stderr.splitlines()
    assert [line.split()[1:3] for line in failures[:4]] == [
        [f"seed={s}", f"optimizer.lr={lr}"] for s in (0, 1) for lr in ("-1", "1e+38")
    ]
    assert all("failed: optimizer.lr=-1: must be number > 0" in failures[n] for n in (0, 2))
    assert all("diverged: train/loss is nan at optimizer step 2" in failures[n] for n in (1, 3))
    assert failures[4] == "4 of this sweep's jobs: diverged, failed, see above"
    assert len(failures) == 5

    with (sweep / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished"] * 2 + ["diverged"] * 2 + ["failed"] * 2
    for row in rows[:2]:
        metrics = json.loads((sweep / row["folder"] / "metrics.json").read_text())
        assert {name: float(row[name]) for name in metrics if "/" in name or name == "seconds"} == {
            name: value for name, value in metrics.items() if "/" in name or name == "seconds"
        }
    assert float(rows[0]["val/acc"]) >= float(rows[1]["val/acc"])
    ended = json.loads((job(sweep, "seed=0", "optimizer.lr=-1") / "ended.json").read_text())
    assert (ended["status"], ended["message"]) == ("failed", "optimizer.lr=-1: must be number > 0")

    finished = job(sweep, "seed=1", "optimizer.lr=0.04")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in finished.rglob("*") if path.is_file()}
    again = quick_cli(*command, *SHORT)
    assert again.returncode == 1
    assert again.stdout.splitlines()[0] == f"6 jobs, 2 of them finished, in {sweep}"
    assert len(again.stderr.splitlines()) == 5
    assert {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in finished.rglob("*") if path.is_file()
    } == before


@pytest.mark.slow
def test_a_stopped_sweep_goes_on(quick_cli: Cli, composed: Compose, tmp_path: Path) -> None:
    sweep, command = tmp_path / "sweep", ["-m", "seed=0,1,2", fault("SIGINT", step=7, seed=1), *SHORT]
    stopped = quick_cli(*command)
    assert stopped.returncode == 130
    assert stopped.stderr.startswith(
        "stopped at epoch 1, optimizer step 7; resume with: the same command and hydra.sweep"
    )
    statuses = [line.split() for line in stopped.stdout.splitlines()[-5:-2]]
    assert [words["finished" in words and 2] for words in statuses] == ["finished", "unfinished", "unfinished"]
    first = (job(sweep, "seed=0") / "metrics.json").read_bytes()

    again = quick_cli(*command)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines()[0] == f"3 jobs, 1 of them finished, in {sweep}"
    assert (job(sweep, "seed=0") / "metrics.json").read_bytes() == first
    assert len(json.loads((job(sweep, "seed=1") / "provenance.json").read_text())["resumed"]) == 1
    for seed in (1, 2):
        train(composed(f"seed={seed}", *SHORT, f"run_dir={tmp_path}/{seed}"))
        assert_equal(weights(job(sweep, f"seed={seed}")), weights(tmp_path / str(seed)))


def test_a_job_at_a_time_is_stopped_as_by_the_default_launcher(quick_cli: Cli, tmp_path: Path) -> None:
    one = ["hydra/launcher=local", "hydra.launcher.n_jobs=1"]
    stopped = quick_cli("-m", "seed=0,1", *one, fault("SIGTERM", step=2), *SHORT)
    assert stopped.returncode == 143
    [begun] = [path.parents[1] for path in (tmp_path / "sweep").glob("*/.hydra/config.yaml")]
    assert "seed=0" in begun.name.split(",")
    assert stopped.stdout.splitlines()[-3].startswith("unfinished")


def test_a_sweep_over_names_stays_in_its_folder(quick_cli: Cli, tmp_path: Path) -> None:
    place = f"hydra.run.dir={tmp_path}/${{name}}"
    for finished in (0, 2):
        answer = quick_cli("-m", "name=a,b", place, *SHORT)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert answer.stdout.startswith(f"2 jobs, {finished} of them finished, in {tmp_path}/default\n")
        assert len((tmp_path / "default/results.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("optimizer.lr=0.1,seed=0", "optimizer.lr=0.1,seed=0"),
        ("ckpt_path=/a/.b/'c d'.ckpt", "ckpt_path=_a_.b__c_d_.ckpt-760a5e45"),
        (".x=1", "_x=1-dc4ae538"),
        ("x=" + 300 * "a", "x=" + 198 * "a" + "-a541fbce"),
        ("x=" + 200 * "ä", "x=" + 198 * "_" + "-cfc3680a"),
    ],
)
def test_overrides_as_a_folder(overrides: str, name: str) -> None:
    assert resolvers.job_folder(overrides) == name


def test_a_job_that_slurm_has_killed_fails_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 1)  # for which it waits for a file system to show a result

    def ended(number: int) -> JobReturn:
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)  # as where memory runs out
        return JobReturn(status=JobStatus.COMPLETED, _return_value=0.5)

    class Launcher:
        """As the one for SLURM, with processes of this machine."""

        def launch(self, jobs: list[list[str]], first: int) -> list[JobReturn]:
            executor = submitit.LocalExecutor(tmp_path)
            submitted = [executor.submit(ended, first + place) for place, _ in enumerate(jobs)]
            return [job.results()[0] for job in submitted]

    results = submitit.Job.results
    assert workers.launch_slurm_jobs(Launcher(), [["seed=0"], ["seed=1"]], 0) == ["unfinished", 0.5]
    assert submitit.Job.results is results
    assert "unfinished: Job " in capfd.readouterr().err


class Edits(Callback):
    """The user edits a config file while the sweep runs."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_start(self, *_: Any) -> None:
        self.path.write_text(self.path.read_text().replace("0.01", "0.5"))


def test_a_file_edited_meanwhile_is_of_the_next_sweep(quick_cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "conf/experiment/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\noptimizer:\n  lr: 0.01\n")
    edits = f"+callbacks.edits={{_target_:test_sweeps.Edits,path:{path}}}"
    answer = quick_cli("-m", f"--config-dir={tmp_path}/conf", "experiment=mine", "seed=0,1", edits, *SHORT)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "0.5" in path.read_text()
    configs = [OmegaConf.load(job(tmp_path / "sweep", f"seed={seed}") / ".hydra/config.yaml") for seed in (0, 1)]
    assert [config.optimizer.lr for config in configs] == [0.01, 0.01]


def test_a_config_of_a_class_that_has_no_module(quick_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_dataclass("Made", [("hidden", int, 3)])  # as hydra-zen makes them; pickle cannot find such a class
    monkeypatch.setattr(ConfigStore.instance(), "repo", {**ConfigStore.instance().repo})
    ConfigStore.instance().store(group="mine", name="made", node=made)
    answer = quick_cli("-m", "seed=0,1", "+mine=made", *SHORT)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("2 jobs, 0 of them finished")


def test_torchrun_and_srun_start_no_sweep(quick_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    answer = quick_cli("-m", "seed=0,1")
    assert (answer.returncode, len(answer.stderr.splitlines())) == (1, 1)
    assert "leave out torchrun or srun, or leave out -m" in answer.stderr


@pytest.mark.slow
def test_seeds_end_in_a_mean(quick_cli: Cli, tmp_path: Path) -> None:
    answer = quick_cli(*readme("sweep=seeds"), *SHORT)
    assert answer.returncode == 0, answer.stderr
    values = [json.loads(path.read_text())["val/acc"] for path in (tmp_path / "sweep").glob("*/metrics.json")]
    mean, std = torch.tensor(values, dtype=torch.float64).mean(), torch.tensor(values, dtype=torch.float64).std()
    lines = answer.stdout.splitlines()
    place = lines.index("mean ± standard deviation over seed")
    assert lines[place + 2].startswith(f"{mean:.4f} ± {std:.4f}  ")
    assert lines[place + 2].endswith("  5")


def test_workers_share_the_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workers: list[list[Any]] = [[], [], []]
    seen = []
    for worker in workers:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
        monkeypatch.setattr(sweep_jobs, "gpu", worker)
        sweep_jobs.reserve_gpu(tmp_path)
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        sweep_jobs.reserve_gpu(tmp_path)  # its next job
        assert os.environ["CUDA_VISIBLE_DEVICES"] == seen[-1]
    assert seen == ["4", "7", "4"]
    workers[1][0].release()  # its process has ended
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr(sweep_jobs, "gpu", [])
    sweep_jobs.reserve_gpu(tmp_path)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
