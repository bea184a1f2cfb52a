"""A mistake in the user's own code shows file, line and code; a wrong value in a config is answered in a line."""

from pathlib import Path

import pytest
from conftest import PATH, Cli

CODE = """
import torch
from torch import nn
from lightning import LightningModule

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = self.oops

class Base(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 10)
    def training_step(self, batch):
        return self.layer(batch[0].flatten(1)).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

class Setup(Base):
    def setup(self, stage):
        self.more = undefined

class Optimizer(Base):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parametrs(), 0.1)

class Step(Base):
    def training_step(self, batch):
        return batch["image"]
"""


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        (["~model", "+model._target_=own_code.Network"], "self.layer = self.oops"),
        pytest.param(["~task", "+task._target_=own_code.Setup"], "self.more = undefined", marks=pytest.mark.slow),
        pytest.param(
            ["~task", "+task._target_=own_code.Optimizer"],
            "return torch.optim.SGD(self.parametrs(), 0.1)",
            marks=pytest.mark.slow,
        ),
        (["~task", "+task._target_=own_code.Step"], 'return batch["image"]'),
    ],
)
def test_a_mistake_in_ones_own_code_shows_its_place(cli: Cli, tmp_path: Path, typed: list[str], place: str) -> None:
    (tmp_path / "own_code.py").write_text(CODE)
    answer = cli(*typed, "trainer=debug", "logger=none", env={"PYTHONPATH": f"{tmp_path}:{PATH}"})
    assert answer.returncode == 1
    line = 1 + CODE.splitlines().index(next(line for line in CODE.splitlines() if place in line))
    assert f'own_code.py", line {line}, in ' in answer.stderr
    assert place in answer.stderr
