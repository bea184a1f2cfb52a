"""README and docs/: their commands run as they stand there, their links lead somewhere, their make targets exist."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, status_of
from PIL import Image
from torchvision.datasets import MNIST, FashionMNIST

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
ELSEWHERE = re.findall(r'readme\("(.*?)"\)', TESTS)  # the words by which other tests find the command that they run
TINY = {f"trainer.limit_{stage}_batches": "2" for stage in ("train", "val", "test")}


def commands(page: Path) -> list[list[str]]:
    """The arguments of each `python train.py` in a page's code blocks, but those that other tests run."""
    blocks = re.findall(r"^```\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("python train.py")]
    left = [line for line in lines if not any(words in line for words in ELSEWHERE)]
    return [shlex.split(line.removeprefix("python train.py"), comments=True) for line in left]


def shortened(arguments: list[str], folder: Path) -> list[str]:
    """The arguments, and others that make the run short and are not among them; relative folders are in `folder`."""
    if any(argument.startswith("--") for argument in arguments):
        return arguments
    moved = [re.sub(r"=(runs/|photos)", rf"={folder}/\1", argument) for argument in arguments]
    more = {"hydra.run.dir": f"{folder}/run", "hydra.sweep.dir": f"{folder}/sweep", "trainer.max_epochs": "1", **TINY}
    more |= {"logger": "none", "data.root": f"{folder}/data", "data.val_size": "10"}
    if any(argument.startswith("resume=/") for argument in moved):  # the rest is in the run folder
        more = TINY | ({"hydra.run.dir": f"{folder}/run"} if "fit=false" in moved else {})
    given = {argument.split("=")[0] for argument in arguments}
    return [*moved, *(f"{name}={value}" for name, value in more.items() if name not in given)]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_commands_run_as_they_stand_there(
    page: Path, tmp_path: Path, small_archives: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_archives / "FashionMNIST", small_archives / "MNIST")
    monkeypatch.setattr(MNIST, "resources", FashionMNIST.resources)
    for number, name in enumerate("ab" * 20):
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(tmp_path / "photos" / name / f"{number}.png")
    for arguments in commands(page):
        if "task=line" not in arguments:  # it needs files of its own: test_project.py runs it
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            assert status_of(*shortened(arguments, tmp_path)) == 0, (arguments, capfd.readouterr().err)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_make_targets_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)|src=\"([^\"]+)\"", text):
        assert (page.parent / (link[0] or link[1])).exists(), link
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= set(targets)
    for path in re.findall(r"`((?:src|conf|tests|notebooks|benchmarks|docs)/[\w/]+(?:\.\w+)?)`", text):
        assert (ROOT / path).exists() or path.endswith(("line.py", "line.yaml")), path
