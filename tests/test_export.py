"""`python -m runlab.export`: what is written gives the run's own probabilities, for batches of any size."""

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # ships no type information
import pytest
import test_predict
import torch
from conftest import ROOT

from runlab import export as exporting
from runlab.config.messages import UserError
from runlab.export import export
from runlab.load import load_run

run_dir, test_set, waves = test_predict.run_dir, test_predict.test_set, test_predict.waves  # fixtures
LARGEST = 1e-5  # difference of a probability between ONNX Runtime and torch; 2.6e-6 was measured, on 10,000 images


def probabilities(run_dir: Path, images: Any) -> Any:
    run = load_run(run_dir)
    with torch.inference_mode():
        return run.model.predict_step(run.data.on_after_batch_transfer(images, 0), 0).numpy()


def command(*arguments: str) -> int:
    """The exit status of `python -m runlab.export`, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["runlab.export", *arguments])
        patch.delitem(sys.modules, "runlab.export")  # so that it is not there twice
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        try:
            runpy.run_module("runlab.export", run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def test_the_page_s_commands(
    run_dir: Path, test_set: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/digits").symlink_to(run_dir)
    page = (ROOT / "docs/predict.md").read_text()
    commands = re.findall(r"^python -m runlab\.export (.*)$", page, re.MULTILINE)
    assert [command(*shlex.split(arguments)) for arguments in commands] == [0, 0]
    printed = [f"{path}: the network of runs/digits" for path in ("runs/digits/model.onnx", "model.pt2")]
    assert capsys.readouterr().out.splitlines()[-2:] == printed

    images = test_set.inputs
    expected = probabilities(run_dir, images)
    session = onnxruntime.InferenceSession("runs/digits/model.onnx", providers=["CPUExecutionProvider"])
    (takes,), (gives,) = session.get_inputs(), session.get_outputs()
    assert (takes.name, takes.type, takes.shape[1:]) == ("input", "tensor(uint8)", [1, 28, 28])
    assert (gives.name, gives.type, gives.shape[1:]) == ("output", "tensor(float)", [10])
    (found,) = session.run(None, {"input": images.numpy()})
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert np.trace(np.loadtxt(run_dir / "confusion_matrix.csv", int, delimiter=",", skiprows=1)[:, 1:]) == sum(
        found.argmax(axis=1) == test_set.targets.numpy()
    )
    print(f"largest difference on 10,000 images: {np.abs(found - expected).max():.1e}")
    assert np.abs(found - expected).max() < LARGEST
    for size in (1, 3, 1000):
        (part,) = session.run(None, {"input": images[:size].numpy()})
        assert part.shape == (size, 10)
        assert np.abs(part - expected[:size]).max() < LARGEST

    loaded = torch.export.load("model.pt2").module()
    for size in (1, 3, 1000, 10_000):
        with torch.inference_mode():
            assert (loaded(images[:size]).numpy() == probabilities(run_dir, images[:size])).all()


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_convolutional_network_with_a_transform_of_its_own(kind: str, composed: Any, tmp_path: Path) -> None:
    from train import train

    networks = [
        "model=lenet",
        "data.eval_transform.transforms.1.mean=[0.13]",
        "data.eval_transform.transforms.1.std=[0.3]",
    ]
    train(composed(*networks, "trainer=debug", "logger=none"))
    run = load_run(tmp_path / "run")
    export(run, kind, tmp_path / "new/model")
    images = torch.randint(256, (7, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = probabilities(tmp_path / "run", images)
    if kind == "torch":
        with torch.inference_mode():
            assert (torch.export.load(tmp_path / "new/model").module()(images).numpy() == expected).all()
    else:
        session = onnxruntime.InferenceSession(tmp_path / "new/model", providers=["CPUExecutionProvider"])
        assert np.abs(session.run(None, {"input": images.numpy()})[0] - expected).max() < LARGEST
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_a_foreign_task_is_exported_once_it_has_an_example(waves: Path, tmp_path: Path) -> None:
    run = load_run(waves)
    with pytest.raises(UserError, match="WavesData has no example_input: a batch of two or more samples"):
        export(run, "torch", tmp_path / "model.pt2")
    run.data.example_input = torch.zeros(2, 32)
    export(run, "torch", tmp_path / "model.pt2")
    batch = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.export.load(tmp_path / "model.pt2").module()(batch).equal(run.model.predict_step(batch))


def test_mistakes_are_answered_in_a_line(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(str(tmp_path), "--format", "torch") == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path}: no finished run")
    (tmp_path / "file").touch()
    assert command(str(run_dir), "--format", "torch", "--output", f"{tmp_path}/file/model.pt2") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    for arguments, line in (
        (("--format", "onnx"), "the following arguments are required: run; --help shows how"),
        (("r",), "the following arguments are required: --format; --help shows how"),
        (("r", "--frmat=onnx"), "--frmat: no such option. Did you mean --format? Choices: --help, --format, --output."),
        (("r", "--format", "onx"), "argument --format: invalid choice: 'onx' (choose from "),
        (("r", "s", "--format", "onnx"), "unrecognized arguments: s; --help shows how"),
    ):
        assert command(*arguments) == 1
        said = capsys.readouterr().err
        assert (said.startswith(line), len(said.splitlines())) == (True, 1), said
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)  # noqa: ARG005
    with pytest.raises(UserError, match="needs the package onnxscript: pip install onnxscript"):
        export(load_run(run_dir), "onnx", tmp_path / "model.onnx")
