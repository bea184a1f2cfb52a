"""Several devices: one run, exact counts, all ranks end together; alone, in a sweep, and under torchrun."""

import json
import os
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
from torch.nn.functional import cross_entropy

from runlab.config.messages import UserError
from runlab.load import load_run
from runlab.training.build import build_trainer
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
    answer = cli(*DDP, "trainer.max_epochs=1", "data.batch_size=128", "data.eval_batch_size=999", "data.val_size=4999")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert [line.split()[0] for line in answer.stdout.splitlines()] == ["epoch", "test", "test", "run", "dashboard"]
    run_dir = tmp_path / "run"
    assert counts(run_dir).sum() == 10_000
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["global_step"] == 215  # 55,001 / (2 devices * 128), as on one device with batches of 256
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert {path.name.partition(".")[0] for path in run_dir.iterdir()} >= {"events", "metrics", "checkpoints"}
    assert {path.name: path.read_text() for path in run_dir.glob("*.log")} == {"run.log": ""}

    events = EventAccumulator(str(run_dir), size_guidance={"images": 0, "tensors": 0, "scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [49, 99, 149, 199]
    assert [event.step for event in events.Scalars("test/acc")] == [215]
    curve = make_ndarray(events.Tensors("test_pr/0")[0].tensor_proto)
    assert curve[:2, 0].tolist() == [980, 9020]  # above a threshold of 0 are all zeros and all others
    assert len(events.Images("test/mistakes")) == 1

    # Case 38: 2,500 samples on one device, 2,499 on the other; the mean is that of all.
    run = load_run(run_dir)
    run.data.prepare_data()
    run.data.setup("fit")
    batches = [run.data.on_after_batch_transfer(batch, 0) for batch in run.data.val_dataloader()]
    losses = [cross_entropy(run.model(images), labels, reduction="none") for images, labels in batches]
    assert torch.cat(losses).shape == (4999,)
    assert metrics["val/loss"] == pytest.approx(torch.cat(losses).double().mean().item(), rel=1e-6)

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
@pytest.mark.slow
def test_a_rank_that_fails_ends_the_others(cli: Cli, tmp_path: Path, how: str, rank: int, words: str) -> None:
    answer = cli(*DDP, *SHORT, fault(how, rank))
    assert answer.returncode == 1
    assert words in answer.stderr
    assert left_over(str(tmp_path)) == []


@pytest.mark.slow
def test_a_sweep_runs_each_job_on_both_ranks_goes_on_and_equals_torchrun(cli: Cli, tmp_path: Path) -> None:
    # One rank is told to stop in the second job: both do, and so does the sweep.
    command = [*readme("-m seed=0,1 trainer=ddp"), *SHORT, "trainer.log_every_n_steps=1", fault("SIGTERM", 1, seed=1)]
    stopped = cli(*command)
    assert stopped.returncode == 143
    assert stopped.stderr.startswith(
        "stopped at epoch 0, optimizer step 3; resume with: the same command and hydra.sweep"
    )
    assert [line.split()[0] for line in stopped.stdout.splitlines()[-3:-2]] == ["unfinished"]
    answer = cli(*command)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(f"2 jobs, 1 of them finished, in {tmp_path}/sweep\n")
    folders = sorted(path.parent for path in (tmp_path / "sweep").glob("*/metrics.json"))
    assert [f"seed={seed}," in folder.name for seed, folder in enumerate(folders)] == [True, True]

    [line] = [line for line in (ROOT / "docs/scale.md").read_text().splitlines() if line.startswith("torchrun ")]
    options = shlex.split(line.partition(" train.py")[0])[1:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *options, str(ROOT / "train.py"), *readme("torchrun")]
    run = subprocess.run(
        [*torchrun, *SHORT, "seed=1", f"hydra.run.dir={tmp_path}/alone"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    alone = tmp_path / "alone"

    for seed, folder in [*enumerate(folders), (1, alone)]:
        assert counts(folder).sum() == 10_000
        assert json.loads((folder / "metrics.json").read_text())["global_step"] == 5
        assert f"- seed={seed}\n" in (folder / ".hydra/overrides.yaml").read_text()
    assert not torch.equal(*(weights(folder)["network.linear.weight"] for folder in folders))
    assert_equal(weights(folders[1]), weights(alone))


def test_a_slurm_job_without_srun_is_told(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NTASKS", "2"), ("NTASKS_PER_NODE", "2"), ("JOB_NAME", "test"), ("JOB_ID", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name in ("PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    cfg = composed("trainer=ddp", "trainer.accelerator=cpu")
    with pytest.raises(UserError, match="that is 2 processes, but 1 started; give srun or torchrun the same numbers"):
        build_trainer(cfg, [])


@pytest.mark.slow
def test_a_parallel_sweep_over_the_number_of_devices(cli: Cli, tmp_path: Path) -> None:
    answer = cli("-m", "hydra/launcher=local", *DDP, "trainer.devices=1,2", *SHORT)
    assert answer.returncode == 0, answer.stderr
    for devices in (1, 2):
        [folder] = (tmp_path / "sweep").glob(f"*trainer.devices={devices},*")
        assert counts(folder).sum() == 10_000
        assert json.loads((folder / "metrics.json").read_text())["global_step"] == 5
