"""Several devices: one run, exact counts, all ranks end together; alone, in a sweep, and under torchrun."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Cli, Compose, readme, weights
from faults import fault
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from test_resume import assert_equal

from train import train

DDP = readme("python train.py trainer=ddp trainer.accelerator=cpu")
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=5", "logger=none"]


def counts(run_dir: Path) -> torch.Tensor:
    """The confusion matrix `(10, 10)` in a run folder."""
    lines = (run_dir / "confusion_matrix.csv").read_text().splitlines()[1:]
    return torch.tensor([[int(cell) for cell in line.split(",")[1:]] for line in lines])


def left_over(word: str) -> list[str]:
    """The command lines of the processes that have `word` in them."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended meanwhile
            continue
    return [command for command in commands if word in command]


def test_two_devices_are_one_run(cli: Cli, composed: Compose, tmp_path: Path) -> None:
    answer = cli(*DDP, "trainer.max_epochs=1", "data.batch_size=128", "data.eval_batch_size=999")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert [line.split()[0] for line in answer.stdout.splitlines()] == ["epoch", "test", "run", "dashboard"]
    run_dir = tmp_path / "run"
    assert counts(run_dir).sum() == 10_000
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["global_step"] == 215  # 55,000 / (2 devices * 128), as on one device with batches of 256
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert {path.name.partition(".")[0] for path in run_dir.iterdir()} >= {"events", "metrics", "checkpoints"}
    assert not list(run_dir.glob("*.log"))

    events = EventAccumulator(str(run_dir), size_guidance={"images": 0, "tensors": 0, "scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [49, 99, 149, 199]
    assert [event.step for event in events.Scalars("test/acc")] == [215]
    curve = make_ndarray(events.Tensors("test_pr/0")[0].tensor_proto)
    assert curve[:2, 0].tolist() == [980, 9020]  # above a threshold of 0 are all zeros and all others
    assert len(events.Images("test/mistakes")) == 1

    alone = train(composed("trainer.max_epochs=1", "logger=none", f"run_dir={tmp_path}/alone"))
    assert alone["global_step"] == 215
    assert metrics["test/acc"] == pytest.approx(
        alone["test/acc"], abs=0.01
    )  # same batches, their sums in another order
    assert metrics["test/loss"] == pytest.approx(alone["test/loss"], abs=0.01)


@pytest.mark.parametrize(
    ("how", "rank", "words"),
    [("raised", 1, "a fault of rank 1"), ("SIGKILL", 1, "another rank"), ("raised", 0, "a fault of rank 0")],
)
def test_a_rank_that_fails_ends_the_others(cli: Cli, tmp_path: Path, how: str, rank: int, words: str) -> None:
    answer = cli(*DDP, *SHORT, fault(how, rank))
    assert answer.returncode == 1
    assert words in answer.stderr
    assert left_over(str(tmp_path)) == []


def test_a_sweep_runs_each_job_on_both_ranks(cli: Cli, tmp_path: Path) -> None:
    answer = cli(*readme("-m seed=0,1 trainer=ddp"), *SHORT)
    assert answer.returncode == 0, answer.stderr
    folders = sorted(path.parent for path in (tmp_path / "sweep").glob("*/metrics.json"))
    assert [f"seed={seed}," in folder.name for seed, folder in enumerate(folders)] == [True, True]
    for seed, folder in enumerate(folders):
        assert counts(folder).sum() == 10_000
        assert json.loads((folder / "metrics.json").read_text())["global_step"] == 5
        assert f"- seed={seed}\n" in (folder / ".hydra/overrides.yaml").read_text()
    assert not torch.equal(*(weights(folder)["network.linear.weight"] for folder in folders))
    assert cli("seed=1", *DDP, *SHORT).returncode == 0
    assert_equal(weights(folders[1]), weights(tmp_path / "run"))


def test_a_parallel_sweep_over_the_number_of_devices(cli: Cli, tmp_path: Path) -> None:
    answer = cli("-m", "hydra/launcher=local", *DDP, "trainer.devices=1,2", *SHORT)
    assert answer.returncode == 0, answer.stderr
    for devices in (1, 2):
        [folder] = (tmp_path / "sweep").glob(f"*trainer.devices={devices},*")
        assert counts(folder).sum() == 10_000
        assert json.loads((folder / "metrics.json").read_text())["global_step"] == 5


def test_torchrun(tmp_path: Path) -> None:
    [line] = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("torchrun ")]
    options = shlex.split(line.partition(" train.py")[0])[1:]
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(ROOT / "train.py"), *readme("torchrun")]
    run = subprocess.run(
        [*command, *SHORT, f"data.root={ROOT}/data"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    [run_dir] = tmp_path.glob("runs/default/*")
    assert counts(run_dir).sum() == 10_000
    assert json.loads((run_dir / "metrics.json").read_text())["global_step"] == 5
