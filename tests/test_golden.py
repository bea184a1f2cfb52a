"""Equal from commit to commit: first losses, test counts and resolved configs, as they stand in `tests/golden/`.

`make golden` measures and writes them anew, for a change that is meant: the difference then shows in review.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import MAKERS
from conftest import ROOT, Compose, choices, of_the_example
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from test_datasets import photos

from train import train

GOLDEN = ROOT / "tests/golden"
STEPS = GOLDEN / "steps.json"  # machine, and by "data model" ten losses and the counts of the confusion matrix
RENEW = "RENEW_GOLDEN" in os.environ  # `make golden` sets it
LOSS, COUNT = 1e-3, 0.01  # elsewhere: relative difference of a loss, share of the samples that are counted otherwise
FIGURES = ("confusion_matrix", "weights", "train_batch", "mistakes", "pr_curves")
SHORT = ["trainer.max_epochs=-1", "trainer.max_steps=10", "trainer.accelerator=cpu", "monitor=null", "logger=none"]
SHORT += ["+callbacks.steps._target_=test_golden.Steps", *(f"~callbacks.{name}" for name in FIGURES)]
CONFIGS = ["default", *of_the_example("experiment")]


def machine() -> str:
    """What the last bits depend on: the processor, torch, the number of threads."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = ("model name", "cpu family", "model")
    found = [re.search(rf"^{name}\s*: (.*)", info, re.MULTILINE) for name in names]
    cpu = ", ".join(f"{name} {match[1]}" for name, match in zip(names, found, strict=True) if match)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{cpu}, {capability}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)"


class Steps(Callback):
    """Writes into the run folder each step's loss, as the shortest decimal of its float32, and the test's counts."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *batch: Any) -> None:  # noqa: ARG002
        self.losses.append(float(str(np.float32(outputs["loss"].item()))))

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        counts = written(pl_module.counts["test"][0].compute().numpy())
        found = {"losses": self.losses, "counts": counts}
        Path(trainer.default_root_dir, "steps.json").write_text(json.dumps(found))


def written(counts: np.ndarray) -> str:
    """The counts that are not zero: `true>predicted:count`, separated by spaces."""
    return " ".join(f"{true}>{predicted}:{counts[true, predicted]}" for true, predicted in np.argwhere(counts))


def read(text: str) -> Counter[tuple[str, str]]:
    found = re.findall(r"(\d+)>(\d+):(\d+)", text)
    return Counter({(true, predicted): int(count) for true, predicted, count in found})


def write(entry: dict[str, Any]) -> None:
    """Put entries into the file: a line each."""
    content = json.loads(STEPS.read_text()) if STEPS.exists() else {}
    content = dict(sorted((content | entry | {"machine": machine()}).items()))
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    STEPS.write_text(f"{{\n{lines}\n}}\n")


def of_data(name: str, root: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Sequence[str]:
    """The overrides for a data set: the real MNIST, of any other a small archive, which is made here."""
    if name == "mnist":
        return [f"data.root={ROOT}/data"]
    if name in ("fashion_mnist", "kmnist"):
        root = request.getfixturevalue("small_archives")
    elif name in MAKERS:
        MAKERS[name](root, monkeypatch)
    else:
        photos(root)
    sizes = ["data.test_size=20"] if name == "image_folder" else []
    return [f"data.root={root}", "data.val_size=20", "data.batch_size=8", *sizes]


@pytest.mark.parametrize("model", choices("model"))
@pytest.mark.parametrize("data", of_the_example("data"))
def test_ten_steps_are_those_of_earlier_commits(
    composed: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    data: str,
    model: str,
) -> None:
    key, sizes = f"{data} {model}", of_data(data, tmp_path / "data", monkeypatch, request)
    train(composed(f"data={data}", f"model={model}", *sizes, *SHORT))
    found = json.loads((tmp_path / "run/steps.json").read_text())
    assert len(found["losses"]) == 10
    if RENEW:
        write({key: found})
    golden = json.loads(STEPS.read_text())
    assert key in golden, f"{key}: not measured yet; `make golden` does it"
    if golden["machine"] == machine():
        assert found == golden[key]
        return
    before, now = read(golden[key]["counts"]), read(found["counts"])
    assert found["losses"] == pytest.approx(golden[key]["losses"], rel=LOSS)
    assert before.total() == now.total()
    assert (before - now).total() <= max(1, COUNT * now.total())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_resolved_config_is_that_of_earlier_commits(composed: Compose, name: str) -> None:
    choice = [] if name == "default" else [f"experiment={name}"]
    cfg = composed(*choice, "run_dir=runs/example", "data.root=data")
    text, path = OmegaConf.to_yaml(cfg, resolve=True), GOLDEN / f"{name}.yaml"
    if RENEW:
        path.write_text(text)
    assert path.exists(), f"{path}: missing; `make golden` writes it"
    assert path.read_text() == text, f"{path}: not so any more; `make golden` writes it anew, if that is meant"


def test_nothing_golden_is_left_over() -> None:
    keys = {f"{data} {model}" for data in of_the_example("data") for model in choices("model")}
    assert set(json.loads(STEPS.read_text())) == keys | {"machine"}, "`make golden` measures what is new"
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(CONFIGS)
