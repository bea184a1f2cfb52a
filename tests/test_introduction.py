"""The introduction: its cells run in order, their assertions hold, and it is committed with the outputs of a run."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import pytest
from conftest import ROOT
from matplotlib import pyplot as plt
from torchvision.datasets import MNIST

from runlab.data import archives

PATH = ROOT / "notebooks/introduction.ipynb"


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(PATH, as_version=nbformat.NO_CONVERT)


def test_is_short_and_committed_with_the_outputs_of_one_run(notebook: Any) -> None:
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) <= 40
    assert PATH.stat().st_size < 300_000
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 6
    assert not re.search(r"/home|/tmp/|/root|https?://", PATH.read_text())


def test_every_cell_runs_and_the_template_ends_at_the_number_by_hand(
    notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.prepare(MNIST, str(ROOT / "data"))  # other tests may be unpacking it
    monkeypatch.chdir(PATH.parent)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    backend, figures = matplotlib.get_backend(), 0
    plt.switch_backend("agg")
    names: dict[str, Any] = {"__name__": "introduction"}
    try:
        for cell in notebook.cells:
            if cell.cell_type == "code":  # its assertions are most of this test
                exec(compile(cell.source, f"{PATH.name}[{cell.id}]", "exec"), names)
                figures += len(plt.get_fignums())
                plt.close("all")
    finally:
        plt.switch_backend(backend)

    assert figures == 6
    assert 9150 <= names["correct"] <= 9270
    assert json.loads((tmp_path / names["workspace"].name / "run/metrics.json").read_text()) == names["metrics"]
    assert names["metrics"]["global_step"] == len(names["losses"]) == 4690
