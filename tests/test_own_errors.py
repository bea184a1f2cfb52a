"""A mistake in the user's own code shows file, line and code; a wrong value in a config is answered in a line."""

from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PATH, Cli
from lightning import LightningModule

from runlab.config.resolvers import as_texts, flags_first, score

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

class Layer(Base):
    def __init__(self, hidden=32.5):
        super().__init__()
        self.hidden = nn.Linear(784, hidden)

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
        pytest.param(
            ["~task", "+task._target_=own_code.Layer"], "self.hidden = nn.Linear(784, hidden)", marks=pytest.mark.slow
        ),
        pytest.param(["~task", "+task._target_=own_code.Step"], 'return batch["image"]', marks=pytest.mark.slow),
    ],
)
def test_a_mistake_in_ones_own_code_shows_its_place(cli: Cli, tmp_path: Path, typed: list[str], place: str) -> None:
    (tmp_path / "own_code.py").write_text(CODE)
    answer = cli(*typed, "trainer=debug", "logger=none", env={"PYTHONPATH": f"{tmp_path}:{PATH}"})
    assert answer.returncode == 1
    line = 1 + CODE.splitlines().index(next(line for line in CODE.splitlines() if place in line))
    assert f'own_code.py", line {line}, in ' in answer.stderr
    assert place in answer.stderr


@pytest.mark.slow
def test_a_jobs_mistake_names_its_place_in_its_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "own_code.py").write_text(CODE)
    typed = ["-m", "seed=0", "~task", "+task._target_=own_code.Step", "trainer=debug", "logger=none"]
    answer = cli(*typed, f"hydra.sweep.dir={tmp_path}/sweep", env={"PYTHONPATH": f"{tmp_path}:{PATH}"})
    assert answer.returncode == 1
    line = 1 + CODE.splitlines().index('        return batch["image"]')
    [said] = [words for words in answer.stderr.splitlines() if " failed: " in words]
    assert "failed: TypeError: " in said
    assert said.endswith(f"own_code.py:{line})")


def test_a_slip_in_a_yaml_file_is_a_line(quick_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/slip.yaml").write_text("_target_: digits.networks.MLP\n  dropout: 0.1\n")
    answer = quick_cli(f"--config-dir={tmp_path}", "model=slip")
    place = f"{tmp_path}/model/slip.yaml, line 2, column 10: mapping values are not allowed here"
    assert (answer.returncode, answer.stderr) == (1, f"{place}\n")


def test_options_in_any_order(quick_cli: Cli) -> None:
    assert flags_first(["train.py", "a=1,2", "-m", "b=2"]) == ["train.py", "-m", "a=1,2", "b=2"]
    assert flags_first(["train.py", "--config-dir=x", "a=1"]) == ["train.py", "--config-dir=x", "a=1"]
    answer = quick_cli("model=mlp", "--seed=1")
    assert (answer.returncode, answer.stderr) == (1, "--seed=1: an override has no dashes, seed=1\n")


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("ckpt_path=runs/s/seed=0,optimizer.lr=0.1/last.ckpt", 'ckpt_path="runs/s/seed=0,optimizer.lr=0.1/last.ckpt"'),
        ("data.root=/tmp/a(1)", 'data.root="/tmp/a(1)"'),
        ("name=it's", 'name="it\'s"'),
        ('name=6"', 'name="6\\""'),
        *((word, word) for word in ("seed=0,1", "model=choice(mlp,lenet)", "~model", "a='b=c'", "b=", "c=[x,{y: 1}]")),
        *(
            (word, word)
            for word in ("data.root=/tmp/my data", "+a.b@c=${d}", "x=${oc.env:HOME,'(a)'}", "hydra/launcher=local")
        ),
    ],
)
def test_a_value_that_is_a_text_needs_no_quotes(word: str, read: str) -> None:
    assert as_texts(["train.py", word]) == ["train.py", read]
    assert as_texts(["train.py", "--config-dir", "/a=b(c", word]) == ["train.py", "--config-dir", "/a=b(c", read]


@pytest.mark.parametrize("word", ["lr", "=3", "optimizer,lr=3", "model."])
def test_a_word_that_is_no_override_is_said(word: str, quick_cli: Cli) -> None:
    answer = quick_cli("seed=1", word)
    line = f"{word}: no override; write key=value, as in optimizer.lr=0.01\n"
    assert (answer.returncode, answer.stderr) == (1, line)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr=0.1", "optimizer.lr"),
        ("epochs=3", "trainer.max_epochs"),
        ("batch_size=32", "data.batch_size"),
        ("workers=2", "data.num_workers"),
    ],
)
def test_a_key_without_its_group_is_known(word: str, meant: str, quick_cli: Cli) -> None:
    answer = quick_cli(word)
    key = word.partition("=")[0]
    assert (answer.returncode, answer.stderr) == (1, f"{key}: no such option. Did you mean {meant}?\n")
    assert " Choices: hydra, name, " in quick_cli("dropout=0.1").stderr  # nothing is near


@pytest.mark.parametrize("word", ["callbacks=null", "model=3", "+experiment=true"])
def test_a_group_without_a_name_is_said(word: str, quick_cli: Cli) -> None:
    answer = quick_cli(word)
    line = f"{word}: a group takes the name of one of its files; --help lists them\n"
    assert (answer.returncode, answer.stderr) == (1, line)


@pytest.mark.parametrize("value", ["[a,b", "{a", "'a", '"a'])
def test_half_a_bracket_is_said(value: str, quick_cli: Cli) -> None:
    answer = quick_cli(f"tags={value}")
    assert (answer.returncode, answer.stderr) == (1, f"tags={value}: a bracket or a quote in it has no other end\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0000"), (0.92224, "0.9222"), (0.001, "0.0010"), (3.14159e-5, "3.142e-05"), (2.5e7, "2.5e+07")],
)
def test_a_score_shows_its_figures(value: float, text: str) -> None:
    assert score(value) == text
    assert score(nan) == "nan"


def test_a_misspelt_class_is_one_line(quick_cli: Cli) -> None:
    answer = quick_cli("task._target_=digits.classifyer.ImageClassifier")
    assert answer.returncode == 1
    [line] = answer.stderr.splitlines()
    assert line.startswith("task: Error loading 'digits.classifyer.ImageClassifier': ModuleNotFoundError")
    assert "renamed.yaml" not in line  # it was typed now


class Refused(LightningModule):
    """Does what torch refuses in deterministic mode, or raises what it says on a GPU."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self.layer, self.said = torch.nn.Linear(784, 10), said

    def training_step(self, batch: Any) -> Any:
        if self.said:
            raise RuntimeError(self.said)
        return self.layer(batch[0].flatten(1)).sum() + torch.zeros(2).put_(torch.tensor([0]), torch.ones(1)).sum()

    def validation_step(self, batch: Any) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "",
            "an operation has no deterministic way on this device, so that equal seeds would not give equal bits;"
            " compute it otherwise, or take trainer.deterministic=warn, which names it",
        ),
        (
            "CUDA error: device-side assert triggered",
            "the GPU stopped at a value out of range, as the index of a class or a token that does not exist; run it on"
            " the CPU, which shows where (trainer.accelerator=cpu; predict.py has device=cpu)",
        ),
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB.",
            "the GPU's memory is full; take smaller batches or a lower precision, and see with nvidia-smi what else has"
            " a part of it",
        ),
    ],
)
def test_what_torch_refuses_says_the_way_out(said: str, line: str, quick_cli: Cli) -> None:
    own = ["~task", "+task._target_=test_own_errors.Refused", f"+task.said='{said}'", "monitor=null"]
    answer = quick_cli(*own, "trainer=debug", "logger=none")
    code = Path(__file__).read_text().splitlines()
    words = "raise RuntimeError(self.said)" if said else "torch.zeros(2).put_("
    place = 1 + next(number for number, text in enumerate(code) if words in text)
    assert answer.returncode == 1
    assert answer.stderr == f"{line} (tests/test_own_errors.py:{place})\n"


def test_a_fused_optimizer_that_cannot_be_clipped_is_a_line(quick_cli: Cli) -> None:
    answer = quick_cli("trainer=debug", "logger=none", "trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=0.1")
    line = "a fused optimizer cannot be clipped in mixed precision; take optimizer.fused=false, or leave out"
    assert (answer.returncode, answer.stderr) == (1, f"{line} trainer.gradient_clip_val\n")
