"""The notebook that explores a run: committed without outputs, it runs on a fresh run and shows that run's numbers."""

import ast
import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT, Compose
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from train import train

PATH = ROOT / "notebooks/explore_a_run.ipynb"


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(PATH, as_version=nbformat.NO_CONVERT)


def pick(notebook: Any) -> Path:
    """The run folder that the notebook's first code cell picks, run here."""
    names: dict[str, Any] = {}
    exec(next(cell.source for cell in notebook.cells if cell.id == "pick"), names)
    return Path(names["run_dir"])


def test_is_committed_as_it_is_written(notebook: Any) -> None:
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code] == ["pick", "load", "curves", "matrix", "mistakes"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert not [word for word in ("://", str(ROOT)) if word in PATH.read_text()]


@pytest.mark.slow
def test_shows_a_run(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notebook: Any) -> None:
    quick = ["trainer.max_epochs=1", "trainer.limit_train_batches=10", "trainer.log_every_n_steps=1"]
    train(composed(*quick, "trainer.accelerator=cpu"))  # a GPU's last bits may be other ones than the notebook's
    monkeypatch.setenv("RUN", str(tmp_path / "run"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the tests run in parallel
    for folder in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(folder, str(tmp_path / "jupyter"))  # nothing is taken from or left in the home folder

    # With no folder to find kernels in, the one left is ipykernel's own, on this interpreter.
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(notebook, manager, timeout=60, resources={"metadata": {"path": str(PATH.parent)}})
    client.execute(cleanup_kc=True)  # raises what a cell raises

    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    text = {name: "".join(output.get("text", "") for output in outputs[name]) for name in outputs}
    data = {name: [output.data for output in outputs[name] if "data" in output] for name in outputs}
    assert not [output for name in outputs for output in outputs[name] if output.get("name") == "stderr"]
    assert text["pick"] == f"{tmp_path}/run\n"

    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert [ast.literal_eval(shown["text/plain"]) for shown in data["load"]] == [metrics]
    correct = round(metrics["test/acc"] * 10_000)
    assert 3000 < correct < 10_000
    assert text["matrix"] == f"test accuracy  {correct}/10000 = {correct / 100:.2f}%\n"

    pictures = {name: [shown["text/plain"] for shown in data[name] if "image/png" in shown] for name in outputs}
    assert pictures == {
        "pick": [],
        "load": [],
        "curves": ["<Figure size 1000x320 with 2 Axes>"],
        "matrix": ["<Figure size 700x700 with 1 Axes>"],
        "mistakes": ["<Figure size 800x740 with 20 Axes>"],
    }


def test_picks_the_newest_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notebook: Any) -> None:
    monkeypatch.delenv("RUN", raising=False)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    (tmp_path / "train.py").touch()
    with pytest.raises(FileNotFoundError, match="make train"):
        pick(notebook)
    for name, finished in (("a/1", 10), ("a/2", 30), ("b/3", 20)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").touch()
        os.utime(folder / "metrics.json", (finished, finished))
    (tmp_path / "runs/b/4").mkdir()  # not finished
    assert pick(notebook) == Path("runs/a/2")
    assert Path.cwd() == tmp_path
    monkeypatch.setenv("RUN", "runs/a/1")
    assert pick(notebook) == Path("runs/a/1")
