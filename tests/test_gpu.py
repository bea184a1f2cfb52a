"""Runs on a GPU, on a machine that has one: `make test-gpu`. All other tests hide it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Cli, status_of
from lightning import Callback, LightningModule
from test_resume import assert_equal, contents
from torch import Tensor, nn

from runlab.load import load_run
from runlab.predict import predict

pytestmark = pytest.mark.gpu

# Two epochs of 55 steps.
SETTING = ["trainer.accelerator=gpu", "trainer.max_epochs=2", "data.batch_size=1000", "trainer.log_every_n_steps=20"]


def train(run_dir: Path, *overrides: str) -> Path:
    assert status_of(*SETTING, *overrides, f"hydra.run.dir={run_dir}") == 0
    return run_dir


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("gpu") / "run")


def test_a_run_is_on_the_gpu_and_says_so(straight: Path) -> None:
    assert json.loads((straight / "provenance.json").read_text())["device"] == torch.cuda.get_device_name()
    checkpoint: Any = torch.load(straight / "checkpoints/best.ckpt", weights_only=True)
    assert {value.device.type for value in checkpoint["state_dict"].values()} == {"cuda"}
    assert json.loads((straight / "metrics.json").read_text())["test/acc"] > 0.85


@pytest.mark.parametrize("option", ["seed=0", "fast_loop=false", "data.device_resident=false", "data.num_workers=2"])
def test_it_is_repeated_bit_for_bit(option: str, straight: Path, tmp_path: Path) -> None:
    assert_equal(contents(train(tmp_path / "run", option)), contents(straight))


@pytest.mark.parametrize("option", ["model=mlp", "trainer.precision=bf16-mixed", "trainer.precision=16-mixed"])
def test_it_is_stopped_and_resumed_bit_for_bit(option: str, tmp_path: Path) -> None:
    expected, run_dir = contents(train(tmp_path / "straight", option)), tmp_path / "run"
    kill = "+callbacks.kill={_target_:faults.InterruptAt,batch:70}"
    assert status_of(*SETTING, option, kill, f"hydra.run.dir={run_dir}") == 130
    assert status_of(f"resume={run_dir}") == 0
    assert_equal(contents(run_dir), expected)


class NeverWaits(Callback):
    """Has CUDA refuse to wait for the GPU in the steps between two that are logged."""

    watched = 0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        between = 5 <= batch_idx % 50 < 45
        torch.cuda.set_sync_debug_mode("error" if between else "default")
        NeverWaits.watched += between


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")  # torch says it once
@pytest.mark.parametrize("option", ["seed=0", "data.device_resident=false", "trainer.precision=bf16-mixed"])
def test_nothing_waits_for_the_gpu_between_two_logged_steps(option: str, tmp_path: Path) -> None:
    NeverWaits.watched = 0
    more = ["data.batch_size=256", "trainer.limit_train_batches=100", "trainer.max_epochs=1"]
    try:
        train(
            tmp_path / "run", *more, option, "trainer.log_every_n_steps=50", "+callbacks.w._target_=test_gpu.NeverWaits"
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert NeverWaits.watched == 80


def test_the_cpu_is_a_choice_without_a_word(quick_cli: Cli, tmp_path: Path) -> None:
    answer = quick_cli("trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads((tmp_path / "run/provenance.json").read_text())["device"].startswith("cpu (")


def test_predictions_are_those_of_the_cpu(straight: Path) -> None:
    parts = [predict(load_run(straight), None, device, ".npz") for device in ("cuda", "cpu")]
    gpu, cpu = (np.concatenate([part["output"] for part in found]) for found in parts)
    assert gpu.shape == (10_000, 10)
    np.testing.assert_allclose(gpu, cpu, atol=1e-5)


class Wrong(LightningModule):
    """Does on a GPU what only a GPU refuses: `how` says which."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.network, self.how = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), how

    def training_step(self, batch: Any) -> Tensor:
        logits, labels = self.network(batch[0]), batch[1]
        if self.how == "label":
            labels = labels + 1
        if self.how == "memory":
            torch.empty(2**44, dtype=torch.uint8, device=self.device)
        if self.how == "undetermined":
            logits, labels = logits.unsqueeze(2).expand(-1, -1, 2), labels.unsqueeze(1).expand(-1, 2)
        return nn.functional.cross_entropy(logits, labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("label", "the GPU stopped at a value out of range"),
        ("memory", "the GPU's memory is full; take smaller batches"),
        ("undetermined", "an operation has no deterministic way on this device"),
    ],
)
def test_what_a_gpu_refuses_is_said_in_a_line(how: str, line: str, cli: Cli) -> None:
    own = ["~task", "+task._target_=test_gpu.Wrong", f"+task.how={how}", "monitor=null"]
    answer = cli(*SETTING, *own)  # a process of its own: after the first of them CUDA does nothing more
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith(line)
    assert "Traceback" not in answer.stderr


def test_workers_and_processes(cli: Cli, tmp_path: Path, straight: Path) -> None:
    sweep = cli("-m", "seed=0,1", "hydra/launcher=local", "hydra.launcher.n_jobs=2", *SETTING)
    assert sweep.returncode == 0, sweep.stderr
    [job] = (tmp_path / "sweep").glob("*seed=0*")
    assert_equal(contents(job), contents(straight))
    nccl = cli(*SETTING, "trainer=ddp", "trainer.devices=1", "trainer.accelerator=gpu")
    assert nccl.returncode == 0, nccl.stderr
    accuracies = [json.loads((path / "metrics.json").read_text())["test/acc"] for path in (tmp_path / "run", straight)]
    assert abs(accuracies[0] - accuracies[1]) < 0.02
