"""`predict.py`: rows for the test set, files, arrays and tables, as the run's test found them; errors in a line."""

import csv
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from conftest import PATH, ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from tasks.autoencoder import AutoEncoder, Waves
from test_tasks import composed as composed_task
from torch.utils.data import DataLoader

from runlab.config.messages import UserError
from runlab.load import Run, load_run
from runlab.predict import Inputs, leaves, predict, write
from train import train

Predict = Callable[..., subprocess.CompletedProcess[str]]
COUNT = 40  # images that are written as files
MUST = ", but the run's images are (1, 28, 28), whole numbers from 0 to 255"


def status_of(*arguments: str) -> int:
    """The exit status of `python predict.py`, run in this process, which has imported torch already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["predict.py", *arguments])
        patch.setattr("runlab.config.startup.fast_exit", nullcontext)  # this process stays
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        try:
            runpy.run_path(str(ROOT / "predict.py"), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.fixture
def quick(capfd: pytest.CaptureFixture[str]) -> Predict:
    def quick(*arguments: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        status = status_of(*arguments)
        return subprocess.CompletedProcess(arguments, status, *capfd.readouterr())

    return quick


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on MNIST."""
    folder = tmp_path_factory.mktemp("mnist") / "run"
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        overrides = [f"run_dir={folder}", f"data.root={ROOT}/data", "trainer.max_epochs=1", "logger=none"]
        train(compose("train", overrides))
    return folder


@pytest.fixture(scope="module")
def test_set(run_dir: Path) -> Any:
    data = load_run(run_dir).data
    data.setup("test")
    return data.test_set


@pytest.fixture(scope="module")
def test_rows(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The rows of the test set, from a process as a user starts it."""
    output = tmp_path_factory.mktemp("rows") / "new/predictions.csv"
    command = [sys.executable, "predict.py", f"run={run_dir}", f"output={output}", "device=cpu"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATH}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{output}: predictions of {run_dir}\n"  # and no progress bar
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    return rows(output)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def as_test(found: list[dict[str, str]], key: str) -> list[dict[str, str]]:
    """Rows of an input as the test set's are, but for the true class."""
    return [{name: text for name, text in row.items() if name not in (key, "error")} for row in found]


def without_true(found: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: text for name, text in row.items() if name not in ("index", "true")} for row in found]


def test_the_test_set_has_the_counts_of_the_confusion_matrix(run_dir: Path, test_rows: list[dict[str, str]]) -> None:
    assert list(test_rows[0]) == ["index", "predicted", "true", *map(str, range(10))]
    assert [row["index"] for row in test_rows] == [str(index) for index in range(10_000)]
    counts = np.zeros((10, 10), int)
    np.add.at(counts, tuple(zip(*((int(row["true"]), int(row["predicted"])) for row in test_rows), strict=True)), 1)
    expected = np.loadtxt(run_dir / "confusion_matrix.csv", int, delimiter=",", skiprows=1)[:, 1:]
    assert (counts == expected).all()
    sums = [sum(float(row[str(number)]) for number in range(10)) for row in test_rows]
    assert sums == pytest.approx([1] * 10_000, abs=1e-6)
    assert all(row["predicted"] == max(map(str, range(10)), key=lambda name: float(row[name])) for row in test_rows)


def test_probabilities_are_written_to_the_bit(run_dir: Path, test_rows: list[dict[str, str]], test_set: Any) -> None:
    run = load_run(run_dir)
    with torch.inference_mode():
        expected = run.model.predict_step(run.data.on_after_batch_transfer(test_set.inputs[:1000], 0), 0)
    found = [[np.float32(row[str(number)]) for number in range(10)] for row in test_rows[:1000]]
    assert (np.array(found) == expected.numpy()).all()


def test_arrays_and_tables_have_the_rows_of_the_test_set(
    run_dir: Path, tmp_path: Path, quick: Predict, test_rows: list[dict[str, str]], test_set: Any
) -> None:
    images = test_set.inputs.numpy()
    np.save(tmp_path / "whole.npy", images[:, 0])
    np.save(tmp_path / "last.npy", images[:1000].transpose(0, 2, 3, 1).astype(np.int64))
    np.savez(tmp_path / "first.npz", images[:1000])
    table = images[:1000].reshape(1000, -1)
    np.savetxt(tmp_path / "table.csv", table, "%d", ",")
    np.savetxt(tmp_path / "named.csv", table, "%d", ",", header=",".join(f"pixel{i}" for i in range(784)), comments="")
    for name, count in (("whole.npy", 10_000), ("last.npy", 1000), ("first.npz", 1000), ("table.csv", 1000)):
        done = quick(f"run={run_dir}", f"input={tmp_path / name}", f"output={tmp_path}/p.csv", "batch_size=1000")
        assert (done.returncode, done.stderr) == (0, "")
        found = rows(tmp_path / "p.csv")
        assert [row["index"] for row in found] == [str(index) for index in range(count)]
        assert as_test(found, "index") == without_true(test_rows[:count])
        assert {row["error"] for row in found} == {""}
    assert (
        quick(f"run={run_dir}", f"input={tmp_path}/named.csv", f"output={tmp_path}/n.csv", "batch_size=1000").stderr
        == ""
    )
    assert rows(tmp_path / "n.csv") == found


def test_files_have_the_rows_of_the_test_set_and_broken_ones_their_error(
    run_dir: Path, tmp_path: Path, quick: Predict, test_rows: list[dict[str, str]], test_set: Any
) -> None:
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / ".hidden/x.png").touch()
    names = [f"{'more/' * (i % 2)}{i:03}.png" for i in range(COUNT)]
    for name, image in zip(names, test_set.inputs[:COUNT, 0].numpy(), strict=True):
        Image.fromarray(image).convert("RGB" if name.endswith("8.png") else "L").save(folder / name)
    arguments = (f"run={run_dir}", f"input={folder}", f"output={tmp_path}/p.csv")
    done = quick(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    by_name = dict(zip(names, without_true(test_rows), strict=False))
    found = rows(tmp_path / "p.csv")
    assert [row["file"] for row in found] == sorted(names)
    for row in found:
        expected = by_name[row["file"]]
        assert row["predicted"] == expected["predicted"]
        assert all(abs(float(row[str(i)]) - float(expected[str(i)])) < 1e-6 for i in range(10))  # another batch size

    whole = (folder / names[3]).read_bytes()
    (folder / "a_cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "b_text.txt").write_text("no image")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(
        folder / "c_colour.png"
    )
    Image.fromarray(np.full((28, 28), 40_000, np.uint16)).save(folder / "d_deep.png")
    for size in ("1", "2", "256"):
        done = quick(*arguments, f"batch_size={size}")
        assert (done.returncode, done.stdout) == (1, "")
        line = f"{tmp_path}/p.csv: 4 of {COUNT + 4} inputs could not be read, see error there; the first is a_cut.png: "
        assert done.stderr.startswith(line)
        assert len(done.stderr.splitlines()) == 1
        again = rows(tmp_path / "p.csv")
        wrong = {row.pop("file"): row for row in again if row["error"]}
        assert list(wrong) == ["a_cut.png", "b_text.txt", "c_colour.png", "d_deep.png"]
        assert re.fullmatch(
            rf"uint8 \(28, 28, 3\) from \d+ to \d+{re.escape(MUST)}", wrong["c_colour.png"].pop("error")
        )
        assert wrong["d_deep.png"].pop("error").startswith("mode I;16 has more than 8 bits a channel")
        assert "cannot identify image file" in wrong["b_text.txt"].pop("error")
        assert all(set(row.values()) == {""} for name, row in wrong.items() if name in ("c_colour.png", "d_deep.png"))
        right = [row for row in again if "file" in row]
        assert [(row["file"], row["predicted"]) for row in right] == [(row["file"], row["predicted"]) for row in found]

    done = quick(f"run={run_dir}", f"input={folder / names[7]}", f"output={tmp_path}/one.csv")
    assert [(row["file"], row["predicted"]) for row in rows(tmp_path / "one.csv")] == [
        ("007.png", test_rows[7]["predicted"])
    ]
    done = quick(f"run={run_dir}", f"input={folder}/b_text.txt", f"output={tmp_path}/none.csv")
    assert done.returncode == 1
    assert [list(row) for row in rows(tmp_path / "none.csv")] == [["file", "error"]]


def test_rows_that_are_no_image_have_their_error(run_dir: Path, tmp_path: Path, quick: Predict) -> None:
    lines = [["0"] * 784, ["7"] * 783, ["256"] + ["0"] * 783, ["x"] + ["0"] * 783, ["0.5"] + ["0"] * 783, ["255"] * 784]
    (tmp_path / "table.csv").write_text("\n".join(map(",".join, lines)) + "\n")
    assert quick(f"run={run_dir}", f"input={tmp_path}/table.csv", f"output={tmp_path}/p.csv").returncode == 1
    assert [row["error"] for row in rows(tmp_path / "p.csv")] == [
        "",
        "int64 (783,) from 7 to 7" + MUST,
        "int64 (784,) from 0 to 256" + MUST,
        "could not convert string 'x' to float64 at row 0, column 1.",
        "float64 (784,) from 0.0 to 0.5" + MUST,
        "",
    ]
    output = tmp_path / "p.npz"
    assert quick(f"run={run_dir}", f"input={tmp_path}/table.csv", f"output={output}").returncode == 1
    with np.load(output) as arrays:
        assert arrays["output"].shape == (2, 10)
        assert arrays["input.name"].tolist() == [0, 5]
        assert arrays["input.error"][0] == "1: int64 (783,) from 7 to 7" + MUST
        assert len(arrays["input.error"]) == 4


def test_a_folder_of_classes_is_predicted_by_name(tmp_path: Path, quick: Predict) -> None:
    rng = np.random.default_rng(0)
    for number, name in enumerate(("error", "plain")):  # one that is also a column's
        for i in range(8):
            path = tmp_path / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(100 * number, 100 * number + 99, (20, 30, 3), dtype=np.uint8)).save(path)
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        names = ["data=image_folder", f"data.root={tmp_path}/photos", "data.channels=1", "data.size=12"]
        overrides = ["trainer.max_epochs=1", "logger=none", "trainer.precision=bf16-mixed"]
        train(compose("train", [f"run_dir={tmp_path}/run", *names, *overrides]))
    arguments = (f"run={tmp_path}/run", f"output={tmp_path}/p.csv")
    done = quick(*arguments, f"input={tmp_path}/photos")  # colour is converted, as it was for training
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(tmp_path / "p.csv")
    assert list(found[0]) == ["file", "predicted", "P(error)", "plain", "error"]
    assert [row["file"] for row in found] == [f"{name}/{i}.png" for name in ("error", "plain") for i in range(8)]
    assert {row["predicted"] for row in found} <= {"error", "plain"}
    assert quick(*arguments).returncode == 0
    found = rows(tmp_path / "p.csv")
    assert list(found[0]) == ["index", "predicted", "true", "P(error)", "plain"]
    counts = [
        [sum((row["true"], row["predicted"]) == (a, b) for row in found) for b in ("error", "plain")]
        for a in ("error", "plain")
    ]
    matrix = rows(tmp_path / "run/confusion_matrix.csv")
    assert counts == [[int(row["error"]), int(row["plain"])] for row in matrix]


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a foreign task, an autoencoder."""
    folder = tmp_path_factory.mktemp("waves") / "run"
    train(composed_task("autoencoder", folder, "trainer.max_epochs=1", "logger=none"))
    return folder


def test_a_foreign_task_writes_what_predict_step_returns(waves: Path, tmp_path: Path, quick: Predict) -> None:
    for output in ("a.npz", "b.npz", "p.csv"):
        done = quick(f"run={waves}", f"output={tmp_path / output}")
        assert (done.returncode, done.stderr) == (0, "")
    with np.load(tmp_path / "a.npz") as first, np.load(tmp_path / "b.npz") as second:
        assert (list(first), first["output"].shape, first["output"].dtype) == (["output"], (100, 32), np.float32)
        assert (first["output"] == second["output"]).all()  # the noise that is drawn while reading is the same
        found = [[np.float32(row[f"output_{i}"]) for i in range(32)] for row in rows(tmp_path / "p.csv")]
        assert (np.array(found) == first["output"]).all()
    run = load_run(waves)
    lightning.seed_everything(0, workers=True, verbose=False)
    with torch.inference_mode():
        expected = torch.cat([run.model.predict_step(batch) for batch in run.data.test_dataloader()])
    assert (np.array(found) == expected.numpy()).all()
    done = quick(f"run={waves}", f"input={waves}", f"output={tmp_path}/p.csv")
    assert done.stderr == f"input={waves}: WavesData has no read_input(source); leave input= out\n"


def test_tensors_in_mappings_and_tuples_are_written_as_arrays(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(waves)

    def returns(value: Callable[[Any], Any]) -> Run:
        monkeypatch.setattr(type(run.model), "predict_step", lambda self, batch: value(batch))  # noqa: ARG005
        return run

    batches = predict(returns(lambda x: {"wave": x.bfloat16(), "more": (x.mean(1), x.sum())}), None, "cpu", ".npz")
    write(tmp_path / "p.npz", ".npz", batches, None)
    with np.load(tmp_path / "p.npz") as arrays:
        shapes = {name: arrays[name].shape for name in arrays}
    assert shapes == {"wave": (100, 32), "more.0": (100,), "more.1": (7,)}
    batches = predict(returns(lambda x: x.mean(1)), None, "cpu", ".csv")
    write(tmp_path / "p.csv", ".csv", batches, None)
    assert list(rows(tmp_path / "p.csv")[99]) == ["index", "output"]
    with pytest.raises(UserError, match=r"a \.csv takes a tensor"):
        predict(returns(lambda x: {"wave": x}), None, "cpu", ".csv")
    with pytest.raises(UserError, match="predict_step returns list"):
        predict(returns(lambda x: [x]), None, "cpu", ".npz")
    with pytest.raises(UserError, match="predict_step returned output, then wave"):
        predict(returns(lambda x: x if len(x) == 16 else {"wave": x}), None, "cpu", ".npz")
    assert list(leaves((torch.zeros(1), {"a": torch.zeros(1)}))) == ["0", "1.a"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("gan", "GAN has no predict_step of its own, which says what is predicted"),
        ("regression", "Regressor has no predict_step of its own, which says what is predicted"),
    ],
)
def test_a_task_that_offers_nothing_is_answered(tmp_path: Path, quick: Predict, name: str, line: str) -> None:
    train(composed_task(name, tmp_path / "run", "trainer.max_epochs=1", "logger=none"))
    done = quick(f"run={tmp_path}/run", f"output={tmp_path}/p.csv")
    assert (done.returncode, done.stderr) == (1, f"{line}\n")
    assert not (tmp_path / "p.csv").exists()


def test_mistakes_are_answered_in_a_line(run_dir: Path, tmp_path: Path, quick: Predict) -> None:
    run, output = f"run={run_dir}", f"output={tmp_path}/p.csv"
    np.savez(tmp_path / "two.npz", x=np.zeros(3), y=np.zeros(3))
    (tmp_path / "broken.npy").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "unfinished/.hydra").mkdir(parents=True)
    (tmp_path / "unfinished/.hydra/config.yaml").write_text((run_dir / ".hydra/config.yaml").read_text())
    for arguments, words in {
        (): "run=: name the folder of a finished run; --help shows how",
        ("rum=x",): "rum=x: no such option. Did you mean run?",
        (run, "extra"): "extra: no such option.",
        (f"run={tmp_path}/none", output): f"{tmp_path}/none: no finished run",
        (f"run={tmp_path}/unfinished", output): f"{tmp_path}/unfinished: no finished run",
        (run, output, f"input={tmp_path}/none"): f"input={tmp_path}/none: no such file or folder, or nothing in it",
        (run, output, f"input={tmp_path}/none.csv"): f"input={tmp_path}/none.csv: ",
        (run, output, f"input={tmp_path}/none.npy"): f"input={tmp_path}/none.npy: ",
        (run, output, f"input={tmp_path}/empty"): f"input={tmp_path}/empty: no such file or folder, or nothing in it",
        (run, output, f"input={tmp_path}/two.npz"): f"input={tmp_path}/two.npz: holds x, y; save one array alone",
        (run, output, f"input={tmp_path}/broken.npy"): f"input={tmp_path}/broken.npy: ",
        (run, f"output={tmp_path}/p.txt"): f"output={tmp_path}/p.txt: name a file that ends in .csv or .npz",
        (run, f"output={tmp_path}/file/p.csv"): f"output={tmp_path}/file/p.csv: ",
        (run, "output=/proc/none/p.csv"): "output=/proc/none/p.csv: /proc/none: No such file or directory; mend that",
        (run, output, "device=tpu"): "device=tpu: no such choice. Did you mean cpu?",
        (run, output, "batch_size=0"): "batch_size=0: give a whole number from 1",
    }.items():
        done = quick(*arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.startswith(words), arguments
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "p.csv").exists()
    assert quick("--help").stdout.startswith("Predict with a finished run's best weights.")


def test_a_gpu_that_is_not_there_is_answered(run_dir: Path, tmp_path: Path, quick: Predict) -> None:
    done = quick(f"run={run_dir}", f"output={tmp_path}/p.csv", "device=cuda")
    assert done.stderr == "device=cuda: no GPU can be used on this machine; take device=cpu\n"


def test_an_error_in_the_users_own_code_shows_its_place(tmp_path: Path) -> None:
    class Own:
        def read_input(self, source: Any) -> Any:
            return source.no_such_thing

    np.save(tmp_path / "x.npy", np.zeros(2))
    inputs = Inputs(Own(), tmp_path / "x.npy", 2)
    assert list(inputs) == []
    assert "return source.no_such_thing" in inputs.errors[0]
    assert str(Path(__file__)) in inputs.errors[0]


def test_a_predict_step_that_returns_another_number_of_samples_is_no_table(run_dir: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 28, 28), np.uint8))
    inputs = Inputs(load_run(run_dir).data, tmp_path / "x.npy", 2)
    for count in (2, 4):
        with pytest.raises(UserError, match=f"predict_step returned {count} values for 3 inputs"):
            write(tmp_path / "p.csv", ".csv", [{"output": np.zeros(count)}], inputs)


def test_a_run_of_several_gpus_predicts_on_the_cpu(
    run_dir: Path, tmp_path: Path, quick: Predict, test_rows: list[dict[str, str]]
) -> None:
    shutil.copytree(run_dir, tmp_path / "run")
    record = tmp_path / "run/.hydra/config.yaml"
    config = OmegaConf.load(record)
    config.trainer.update(accelerator="gpu", devices=4, num_nodes=2, strategy="ddp")
    config.data.device_resident = True
    OmegaConf.save(config, record)
    assert quick(f"run={tmp_path}/run", f"output={tmp_path}/p.csv", "device=cpu").stderr == ""
    assert rows(tmp_path / "p.csv") == test_rows


def test_a_misspelt_option_is_answered_without_torch() -> None:
    code = """
import sys, runpy
sys.argv = ["predict.py", "rum=x"]
try:
    runpy.run_path("predict.py", run_name="__main__")
finally:
    print("torch" in sys.modules, flush=True)
"""
    env = {**os.environ, "PYTHONPATH": PATH}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "False\n"


def test_the_page_s_commands(
    run_dir: Path, tmp_path: Path, quick: Predict, test_set: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/digits").symlink_to(run_dir)
    (tmp_path / "scans").mkdir()
    Image.fromarray(test_set.inputs[0, 0].numpy()).save("scans/0.png")
    np.save("images.npy", test_set.inputs[:5].numpy())
    commands = re.findall(r"^python predict\.py (.*)$", (ROOT / "docs/predict.md").read_text(), re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = quick(*shlex.split(command))
        assert (done.returncode, done.stderr) == (0, "")
    assert [len(rows(tmp_path / name)) for name in ("predictions.csv", "scans.csv")] == [10_000, 1]
    with np.load("images.npz") as arrays:
        assert arrays["output"].shape == (5, 10)


def test_batches_of_different_shapes_are_a_line(waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run(waves)
    monkeypatch.setattr(type(run.model), "predict_step", lambda self, batch: batch[:, : len(batch)])  # noqa: ARG005
    batches = predict(run, None, "cpu", ".npz")
    with pytest.raises(UserError, match="output: the batches of predict_step have different shapes"):
        write(tmp_path / "p.npz", ".npz", batches, None)


@pytest.mark.parametrize(
    ("first", "samples"), [("label,1x1,1x2", 1), ("a,b,c", 1), ("nan,1,2", 2), ("x,1,2", 2), (".5,1,2", 2)]
)
def test_a_table_s_header(tmp_path: Path, first: str, samples: int) -> None:
    class Takes:
        def read_input(self, source: Any) -> Any:
            return source

    (tmp_path / "rows.csv").write_text(f"{first}\n0,1,2\n")
    assert len(Inputs(Takes(), tmp_path / "rows.csv", 8).sources) == samples


class WithLoaders(AutoEncoder):
    """A module that brings its own data."""

    def train_dataloader(self) -> Any:
        return DataLoader(Waves(8, 32, 0, 0), 4)

    def val_dataloader(self) -> Any:
        return DataLoader(Waves(4, 32, 0, 0), 4)

    def test_dataloader(self) -> Any:
        return DataLoader(Waves(12, 32, 0, 0), 4)


def test_a_run_without_a_data_module_predicts_its_modules_data(tmp_path: Path, quick: Predict) -> None:
    own = ["task._target_=test_predict.WithLoaders", "~data", "monitor=null", "trainer.max_epochs=1", "logger=none"]
    train(composed_task("autoencoder", tmp_path / "run", *own))
    done = quick(f"run={tmp_path}/run", f"output={tmp_path}/p.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(rows(tmp_path / "p.csv")) == 12
    done = quick(f"run={tmp_path}/run", f"input={tmp_path}", f"output={tmp_path}/p.csv")
    assert done.stderr == f"input={tmp_path}: NoneType has no read_input(source); leave input= out\n"
