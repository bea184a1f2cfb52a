"""The engine on five tasks that it does not know, written as strangers would: `tests/tasks/`. A sixth is an entry."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PATH, ROOT, Cli, status_of
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_resume import assert_equal, wait_for

from runlab.load import load_run
from train import train

CONF = ROOT / "tests/tasks/conf"


@dataclass
class Task:
    """What is known of a foreign task: how long an epoch is, which metrics it logs, how the monitored one falls."""

    batches: int  # in an epoch
    steps: int  # optimizer steps in an epoch
    monitor: str
    better: float  # the monitored metric after three epochs is less than this share of that after one
    logs: tuple[str, ...]  # in training and validation
    tests: tuple[str, ...]  # in the test
    mode: str = "min"
    resumable: bool = True  # within an epoch
    ddp: list[str] = field(default_factory=list)  # what it needs on two processes


TASKS = {
    "autoencoder": Task(19, 19, "val_loss", 0.6, ("train_loss", "val_loss"), ("test_loss",)),
    "gan": Task(
        *(25, 50, "val_distance", 0.7, ("g_loss", "d_loss", "val_distance"), ()),
        ddp=["+trainer.strategy.find_unused_parameters=true"],
    ),
    "regression": Task(19, 19, "val_loss", 0.3, ("val_loss",), ("test_loss", "test_mae")),
    "colour": Task(25, 25, "val/loss", 0.6, ("train/loss", "val/loss", "val/acc"), ("test/acc",)),
    "characters": Task(
        *(20, 20, "val_loss/dataloader_idx_0", 0.8),
        logs=("train_loss", "val_loss/dataloader_idx_0", "val_loss/dataloader_idx_1"),
        tests=("test_loss/dataloader_idx_0", "test_loss/dataloader_idx_1"),
        resumable=False,
    ),
}


def setting(name: str, *overrides: str) -> list[str]:
    task = TASKS[name]
    monitor = [f"monitor={task.monitor}", f"mode={task.mode}"]
    return [f"task={name}", f"data={name}", *monitor, "trainer.max_epochs=3", *overrides]


def composed(name: str, run_dir: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        search = f"hydra.searchpath=[file://{CONF}]"
        return compose("train", [search, f"run_dir={run_dir}", *setting(name, *overrides)])


def contents(run_dir: Path) -> dict[str, Any]:
    """What must be equal, bit for bit, however often a run was interrupted."""
    found: dict[str, Any] = {}
    for name in ("best", "last"):
        checkpoint: Any = torch.load(run_dir / f"checkpoints/{name}.ckpt", weights_only=True)
        keys = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "metrics")
        found[name] = [checkpoint[key] for key in keys]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    found["metrics"] = {name: value for name, value in metrics.items() if name != "seconds"}
    return found


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of a task that nobody interrupted, made once."""
    made: dict[str, Path] = {}

    def straight(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "run"
            train(composed(name, made[name]))
        return made[name]

    return straight


def slow_but(quick: str) -> list[Any]:
    """The tasks, of which all but one are left to `make test-all`."""
    return [pytest.param(name, marks=[] if name == quick else pytest.mark.slow) for name in TASKS]


@pytest.mark.parametrize("name", TASKS)
class TestTask:
    def test_trains(self, name: str, straight: Any) -> None:
        run_dir, task = straight(name), TASKS[name]
        metrics = json.loads((run_dir / "metrics.json").read_text())
        assert set(metrics) == {*task.logs, *task.tests, "epoch", "global_step", "seconds", "best_checkpoint"}
        assert (metrics["epoch"], metrics["global_step"]) == (3, 3 * task.steps)
        events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
        assert set(events.Tags()["scalars"]) >= {*task.logs, *task.tests, "train/lr"}
        for tag in ({*task.logs} - {tag for tag in task.logs if tag.startswith("val")}) | {"train/lr"}:
            logged = [event.step for event in events.Scalars(tag)]  # at least once an epoch, which is shorter than 50
            assert logged == [task.batches * epoch - 1 for epoch in (1, 2, 3)] if task.resumable else True
        values = [event.value for event in events.Scalars(task.monitor)]
        assert len(values) == 3
        assert values[2] < task.better * values[0]

    @pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
    def test_is_stopped_within_an_epoch_and_resumed(
        self, name: str, straight: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
    ) -> None:
        if workers and not TASKS[name].resumable:
            pytest.skip("each worker draws the whole stream: another epoch")
        step = TASKS[name].batches + 7
        kill = f"+callbacks.kill={{_target_:faults.InterruptAt,batch:{step}}}"
        options = [f"data.num_workers={workers}"]
        with pytest.raises(SystemExit) as caught:
            train(composed(name, tmp_path / "run", *options, kill))
        assert caught.value.code == 130
        begun = capsys.readouterr().err
        saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"]
        train(composed(name, tmp_path / "run", *options, "resume=auto"))
        resumed = capsys.readouterr().err
        for text in (begun, resumed):
            assert ("cannot be resumed within an epoch" in text) != TASKS[name].resumable
        per_batch = TASKS[name].steps // TASKS[name].batches
        assert saved == (step if TASKS[name].resumable else TASKS[name].batches) * per_batch
        assert_equal(contents(tmp_path / "run"), contents(straight(name)))

    def test_sweeps_over_seeds(self, name: str, straight: Any, quick_cli: Cli, tmp_path: Path) -> None:
        task = TASKS[name]
        answer = quick_cli(f"--config-dir={CONF}", "-m", *setting(name, "seed=0,1"))
        assert answer.returncode == 0, answer.stderr
        blocks = answer.stdout.split("\n\n")
        header = blocks[-2].splitlines()[1].split()
        counterpart = "test" + task.monitor.removeprefix("val")
        tests = [counterpart] if counterpart in task.tests else list(task.tests)
        assert header[: 1 + len(tests)] == [task.monitor, *tests]
        assert blocks[-2].startswith("mean ± standard deviation over seed")
        [first] = (tmp_path / "sweep").glob("*seed=0*")
        assert_equal(contents(first), contents(straight(name)))

    def test_opens(self, name: str, straight: Any) -> None:
        run = load_run(straight(name))
        best = torch.load(straight(name) / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
        assert_equal(dict(run.model.state_dict()), dict(best))
        assert not run.model.training
        run.data.prepare_data()
        run.data.setup("fit")
        assert next(iter(run.data.train_dataloader())) is not None

    def test_reproduces(self, name: str, straight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import reproduce

        monkeypatch.chdir(tmp_path)
        assert reproduce.main(straight(name)) == 0

    def test_imports_nothing_of_ours(self, name: str) -> None:
        from test_project import PACKAGE, imported

        path = ROOT / f"tests/tasks/{name}.py"
        assert not [module for module in imported(path) if module.startswith(("runlab", PACKAGE.name))]
        assert len(path.read_text().splitlines()) <= 60


def test_the_engine_forgets_nothing_of_a_moved_run(tmp_path: Path) -> None:
    kill = "+callbacks.kill={_target_:faults.InterruptAt,batch:30}"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        train(composed("regression", tmp_path / "run", kill))
    shutil.move(tmp_path / "run", tmp_path / "moved")
    train(composed("regression", tmp_path / "moved", "resume=auto"))
    train(composed("regression", tmp_path / "whole"))
    assert_equal(contents(tmp_path / "moved"), contents(tmp_path / "whole"))
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_is_killed_and_resumed(name: str, straight: Any, tmp_path: Path) -> None:
    arguments = setting(name, f"hydra.run.dir={tmp_path}/run", "+callbacks.slow._target_=faults.Slow")
    command = [sys.executable, "train.py", f"--config-dir={CONF}", *arguments]
    env = {"PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    wait_for("epoch 2/3", process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "run/metrics.json").exists()
    assert status_of(f"--config-dir={CONF}", f"resume={tmp_path}/run") == 0
    assert_equal(contents(tmp_path / "run"), contents(straight(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but("colour"))
def test_on_two_processes(name: str, cli: Cli, tmp_path: Path) -> None:
    task, run_dir = TASKS[name], tmp_path / "run"
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", *task.ddp]
    answer = cli(f"--config-dir={CONF}", *setting(name, *ddp))
    if not task.resumable:  # a stream that nobody shares out
        assert answer.returncode == 1
        assert "all 2 processes get the same batches" in answer.stderr
        return
    assert answer.returncode == 0, answer.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    batches = -(-task.batches // 2)  # the samples are shared out
    assert metrics["global_step"] == 3 * batches * (task.steps // task.batches)
    if task.tests:  # each sample is counted once: one process comes to the same means
        evaluation = ["fit=false", f"resume={run_dir}", "trainer.devices=1", f"run_dir={tmp_path}/again"]
        again = cli(f"--config-dir={CONF}", *evaluation)
        assert again.returncode == 0, again.stderr
        alone = json.loads((tmp_path / "again/metrics.json").read_text())
        for test in task.tests:
            tolerance = 0.1 if name == "autoencoder" else 1e-5  # it draws noise, each process its own
            assert metrics[test] == pytest.approx(alone[test], rel=tolerance)
