"""The table of results: what synthetic run folders come to, in `results.csv` and on the screen."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from runlab.sweeps import compare, results
from runlab.sweeps import table as results_table

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Make a run folder in the current, temporary one: its overrides, and its metrics or how else it ended."""
    monkeypatch.chdir(tmp_path)

    def put(name: str, *overrides: str, ended: tuple[str, str] | None = None, **metrics: float) -> Path:
        folder = tmp_path / "sweep" / name
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra/overrides.yaml").write_text(json.dumps(overrides))
        if metrics:
            names = {key.replace("_", "/"): value for key, value in metrics.items()}
            rest = {"epoch": 1, "global_step": 9, "seconds": 1.25, "best_checkpoint": "checkpoints/best.ckpt"}
            (folder / "metrics.json").write_text(json.dumps({**names, **rest}))
        if ended:
            content = {"status": ended[0], "message": ended[1], "traceback": ["..."]}
            (folder / "ended.json").write_text(json.dumps(content))
        return folder

    return put


@pytest.fixture
def monitoring(tmp_path: Path) -> Callable[[str, str], None]:
    """Write what the sweep monitors, and which way it gets better."""

    def monitoring(monitor: str, mode: str) -> None:
        (tmp_path / "sweep").mkdir(exist_ok=True)
        (tmp_path / "sweep/multirun.yaml").write_text(f"monitor: {monitor}\nmode: {mode}\n")

    return monitoring


def table(folder: str = "sweep") -> list[str]:
    return "\n".join(results_table.lines(*results.rows(Path(folder)))).splitlines()


def in_csv() -> list[list[str]]:
    path = results_table.write_csv(Path("sweep"), results.rows(Path("sweep"))[0])
    assert path == Path("sweep/results.csv")
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_sweep_with_every_status(put: Put, monitoring: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monitoring("val/acc", "max")
    put("a", "optimizer.lr=0.1", "seed=0", "logger=none", val_acc=0.5, test_acc=0.25)
    put("b", "optimizer.lr=0.1", "seed=1", "logger=none", val_acc=0.75, test_acc=0.5)
    put("c", "optimizer.lr=0.1", "seed=2", "logger=none", ended=("failed", "RuntimeError: no, not this\nand more"))
    put("d", "optimizer.lr=9", "seed=0", "logger=none", ended=("diverged", "Diverged: train/loss is nan"))
    put("e", "optimizer.lr=9", "seed=1", "logger=none", ended=("pruned", "Pruned: others did better"))
    put("f", "optimizer.lr=9", "seed=2", "logger=none")
    put(".hidden", "optimizer.lr=1", val_acc=1.0)
    printed = [
        "val/acc  test/acc  status      seconds  optimizer.lr  seed",
        "0.7500   0.5000    finished    1.2      0.1           1",
        "0.5000   0.2500    finished    1.2      0.1           0",
        "                   diverged             9             0     Diverged: train/loss is nan",
        "                   failed               0.1           2     RuntimeError: no, not this",
        "                   pruned               9             1     Pruned: others did better",
        "                   unfinished           9             2",
        "",
        "mean ± standard deviation over seed",
        "val/acc          test/acc         n                   optimizer.lr",
        "0.6250 ± 0.1768  0.3750 ± 0.1768  2 of 3, incomplete  0.1",
    ]
    compare.main(["sweep"])
    assert capsys.readouterr().out.splitlines() == ["", *printed]
    header = ["optimizer.lr", "seed", "logger", "val/acc", "test/acc", "status", "seconds", "folder", "message"]
    assert in_csv() == [
        header,
        ["0.1", "1", "none", "0.75", "0.5", "finished", "1.25", "b", ""],
        ["0.1", "0", "none", "0.5", "0.25", "finished", "1.25", "a", ""],
        ["9", "0", "none", "", "", "diverged", "", "d", "Diverged: train/loss is nan"],
        ["0.1", "2", "none", "", "", "failed", "", "c", "RuntimeError: no, not this"],
        ["9", "1", "none", "", "", "pruned", "", "e", "Pruned: others did better"],
        ["9", "2", "none", "", "", "unfinished", "", "f", ""],
    ]


def test_less_is_better_and_what_is_no_number_comes_last(put: Put, monitoring: Any) -> None:
    monitoring("val/loss", "min")
    put("a", "seed=0", val_loss=2.0, test_acc=0.1)
    put("b", "seed=1", test_acc=0.2)  # without validation
    put("c", "seed=2", val_loss=float("nan"), test_acc=0.3)
    put("d", "seed=3", val_loss=0.5, test_acc=0.4)
    put("e", "seed=4", val_loss=float("inf"), test_acc=0.5)
    assert table() == [
        "val/loss  test/acc  status    seconds  seed",
        "0.5000    0.4000    finished  1.2      3",
        "2.0000    0.1000    finished  1.2      0",
        "inf       0.5000    finished  1.2      4",
        "          0.2000    finished  1.2      1",
        "nan       0.3000    finished  1.2      2",
        "",
        "mean ± standard deviation over seed",
        "val/loss   test/acc         n",
        "nan ± nan  0.3000 ± 0.1581  5",
    ]


def test_settings_are_sorted_by_their_means(put: Put, monitoring: Any) -> None:
    monitoring("val/acc", "max")
    for lr, scores in (("0.1", (0.9, 0.1)), ("0.2", (0.6, 0.8)), ("0.3", (0.5, 0.5))):
        for seed, score in enumerate(scores):
            for fold in (0, 1):
                overrides = f"optimizer.lr={lr}", f"seed={seed}", f"data.fold={fold}"
                put(",".join(overrides), *overrides, val_acc=score, test_acc=0.5)
    assert table()[-5:] == [
        "mean ± standard deviation over seed and data.fold",
        "val/acc          test/acc         n  optimizer.lr",
        "0.7000 ± 0.1155  0.5000 ± 0.0000  4  0.2",
        "0.5000 ± 0.4619  0.5000 ± 0.0000  4  0.1",
        "0.5000 ± 0.0000  0.5000 ± 0.0000  4  0.3",
    ]


def test_without_a_monitor_the_folders_are_in_order(put: Put, monitoring: Any) -> None:
    monitoring("null", "max")
    put("b", "data.fold=1", val_acc=0.9, test_acc=0.5)
    put("a", "data.fold=0", val_acc=0.1, test_acc=0.5)
    assert table() == [
        "val/acc  test/acc  status    seconds  data.fold",
        "0.1000   0.5000    finished  1.2      0",
        "0.9000   0.5000    finished  1.2      1",
        "",
        "mean ± standard deviation over data.fold",
        "val/acc          test/acc         n",
        "0.5000 ± 0.5657  0.5000 ± 0.0000  2",
    ]


@pytest.mark.parametrize("overrides", [(), ("seed=1",)])
def test_one_run(put: Put, overrides: tuple[str, ...]) -> None:
    folder = put("a", *overrides, val_acc=0.5, test_acc=0.25)
    (folder / ".hydra/config.yaml").write_text("monitor: val/acc\nmode: max\n")
    expected = ["val/acc  test/acc  status    seconds", "0.5000   0.2500    finished  1.2"]
    assert table() == expected
    assert table("sweep/a") == expected


def test_what_monitors_the_test_metric_shows_it_once(put: Put, monitoring: Any) -> None:
    monitoring("test/acc", "max")
    put("a", val_acc=0.5, test_acc=0.25)
    assert table() == ["test/acc  status    seconds", "0.2500    finished  1.2"]


def test_nothing_finished(put: Put, monitoring: Any) -> None:
    monitoring("val/acc", "max")
    put("a", "seed=0", ended=("failed", ""))
    put("b", "seed=1")
    assert table() == ["status      seconds  seed", "failed               0", "unfinished           1"]
    assert in_csv()[0] == ["seed", "status", "seconds", "folder", "message"]


def test_single_runs_in_nested_folders_are_told_apart(put: Put) -> None:
    for name, score in (("default/20260101", 0.2), ("default/20260102", 0.4), ("mine/20260103", 0.6)):
        overrides = ["name=mine"] if name.startswith("mine") else []
        folder = put(name, *overrides, val_acc=score, test_acc=score)
        (folder / ".hydra/config.yaml").write_text("monitor: val/acc\nmode: max\n")
    assert table() == [
        "val/acc  test/acc  status    seconds  name  folder",
        "0.6000   0.6000    finished  1.2      mine  sweep/mine/20260103",
        "0.4000   0.4000    finished  1.2            sweep/default/20260102",
        "0.2000   0.2000    finished  1.2            sweep/default/20260101",
    ]
    assert [row[5] for row in in_csv()[1:]] == ["mine/20260103", "default/20260102", "default/20260101"]


def test_of_a_run_that_was_repeated_the_later_one_counts(put: Put, monitoring: Any) -> None:
    monitoring("val/acc", "max")
    put("20260101", "seed=0", val_acc=0.9, test_acc=0.9)
    put("20260102", "seed=0", val_acc=0.2, test_acc=0.2)
    put("20260103", "seed=1", val_acc=0.4, test_acc=0.4)
    assert table()[-1] == "0.3000 ± 0.1414  0.3000 ± 0.1414  2"


def test_values_with_commas_and_keys_with_signs(put: Put, monitoring: Any) -> None:
    monitoring("val/acc", "max")
    transform = "[{_target_:torchvision.transforms.v2.RandomRotation,degrees:10},${data.eval_transform}]"
    put("a", f"data.train_transform.transforms={transform}", "+x.y=1", val_acc=0.3, test_acc=0.5)
    put("b", "x.y='1, 2'", "~callbacks.mistakes", "logger=[tensorboard,csv]", val_acc=0.2, test_acc=0.5)
    put("c", "++x.y=3", val_acc=0.1, test_acc=0.5)
    keys = ["data.train_transform.transforms", "x.y", "callbacks.mistakes", "logger"]
    assert [row[:4] for row in in_csv()] == [
        keys,
        [transform, "1", "", ""],
        ["", "'1, 2'", "~", "[tensorboard,csv]"],
        ["", "3", "", ""],
    ]
    assert table()[1].split() == ["0.3000", "0.5000", "finished", "1.2", transform[:37] + "...", "1"]
    assert table()[2].split() == ["0.2000", "0.5000", "finished", "1.2", "'1,", "2'", "~", "[tensorboard,csv]"]


def test_many_columns_and_rows(put: Put, monitoring: Any) -> None:
    monitoring("val/acc", "max")
    for job in range(30):
        put(f"{job:02}", *(f"key{key}={job + key}" for key in range(200)), f"seed={job}", val_acc=job, test_acc=0.5)
    printed = table()
    assert len(printed) == 1 + 20 + 1
    assert printed[-1] == "... and 10 more"
    assert printed[1].split()[:6] == ["29.0000", "0.5000", "finished", "1.2", "29", "30"]
    rows = in_csv()
    assert (len(rows), len(rows[0])) == (31, 200 + 1 + 2 + 4)


def test_more_settings_than_are_shown(put: Put, monitoring: Any) -> None:
    monitoring("val/acc", "max")
    for job in range(46):
        put(f"{job:02}", f"optimizer.lr={job // 2}", f"seed={job % 2}", val_acc=job // 2, test_acc=0.5)
    assert table()[-2:] == ["3.0000 ± 0.0000   0.5000 ± 0.0000  2  3", "... and 3 more"]


def test_a_damaged_file_does_not_hide_the_others(put: Put, monitoring: Any) -> None:
    monitoring("val/acc", "max")
    (put("a", "seed=0", val_acc=0.9, test_acc=0.5) / "metrics.json").write_text("{")
    (put("b", val_acc=0.7, test_acc=0.5) / ".hydra/overrides.yaml").write_text("")
    put("c", "seed=1", val_acc=0.5, test_acc=0.5)
    assert table() == [
        "val/acc  test/acc  status    seconds  seed",
        "0.5000   0.5000    finished  1.2      1",
        "                   damaged            0     metrics.json: damaged; restore it, or remove it and resume the"
        " run, which is then tested again",
        "                   damaged                  .hydra/overrides.yaml: damaged; restore it, or run the job anew in"
        " another folder",
    ]


def test_the_command_prints_the_same_and_its_errors_in_a_line(put: Put, monitoring: Any) -> None:
    monitoring("val/acc", "max")
    put("a", "seed=0", val_acc=0.5, test_acc=0.5)
    put("b", "seed=1", val_acc=0.4, test_acc=0.5)
    (Path("empty") / "not a run").mkdir(parents=True)
    expected = "\n".join(["", *table(), ""])
    for arguments, status, out, err in (
        (["sweep"], 0, expected, ""),
        ([], 1, "", "the following arguments are required: folder; --help shows how\n"),
        (["missing"], 1, "", "missing: holds no run; name a folder of runs, as in runs/default\n"),
        (["sweep", "sweep"], 1, "", "unrecognized arguments: sweep; --help shows how\n"),
        (["empty"], 1, "", "empty: holds no run; name a folder of runs, as in runs/default\n"),
    ):
        command = [sys.executable, "-m", "runlab.results", *arguments]
        path = {"PYTHONPATH": f"{ROOT}/src", "PYTHONUTF8": "1"}
        done = subprocess.run(command, env=path, capture_output=True, text=True, encoding="utf-8", check=False)
        assert (done.returncode, done.stdout, done.stderr) == (status, out, err)
