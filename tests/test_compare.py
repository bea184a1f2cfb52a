"""The options of `python -m runlab.results`, and the picture at the end of a sweep."""

import csv
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Cli
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from runlab.config.messages import UserError
from runlab.sweeps import compare, picture
from runlab.sweeps.results import Row

CONFIG = "monitor: val/acc\nmode: max\noptimizer: {lr: 0.04}\nfit: true\nseed: 0\n"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five runs: three learning rates and the default's, one of which failed."""
    monkeypatch.chdir(tmp_path)
    for name, overrides, score in (
        ("a", ["optimizer.lr=0.1", "model=mlp"], 0.5),
        ("b", ["optimizer.lr=0.04", "model=linear"], 0.75),
        ("c", ["optimizer.lr=1e-2", "model=mlp"], 0.25),
        ("d", ["model=mlp"], 0.6),
        ("e", ["optimizer.lr=0.2", "model=lenet"], None),
    ):
        folder = tmp_path / "runs" / name
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra/overrides.yaml").write_text(json.dumps(overrides))
        (folder / ".hydra/config.yaml").write_text(CONFIG)
        if score:
            metrics = {"val/acc": score, "test/acc": score / 2, "epoch": 1, "global_step": 9, "seconds": 1.25}
            (folder / "metrics.json").write_text(json.dumps(metrics | {"best_checkpoint": "x"}))
        else:
            (folder / "ended.json").write_text(json.dumps({"status": "failed", "message": "no", "traceback": []}))
    return tmp_path / "runs"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    compare.main(["runs", *arguments])
    return [line.split() for line in capsys.readouterr().out.splitlines() if line]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--columns val/acc,optimizer.lr", "0.75 0.04, 0.6 0.04, 0.5 0.1, 0.25 1e-2, 0.2"),  # best first
        ("--columns folder --sort optimizer.lr", "runs/c, runs/b, runs/d, runs/a, runs/e"),
        ("--columns folder --sort optimizer.lr --reverse", "runs/e, runs/a, runs/d, runs/b, runs/c"),
        ("--columns folder --sort val/acc", "runs/c, runs/a, runs/d, runs/b, runs/e"),
        ("--columns folder --sort val/acc --reverse", "runs/b, runs/d, runs/a, runs/c, runs/e"),
        ("--columns folder --sort model", "runs/e, runs/b, runs/d, runs/a, runs/c"),
        ("--columns folder --reverse", "runs/e, runs/c, runs/a, runs/d, runs/b"),
        ("--columns folder,fit --where optimizer.lr=0.04", "runs/b true, runs/d true"),  # also where it is the default
        ("--columns folder --where optimizer.lr=0.010", "runs/c"),
        ("--columns folder --where model=mlp --where fit=true --sort folder", "runs/a, runs/c, runs/d"),
        ("--columns folder,seconds --where status=failed", "runs/e"),
    ],
)
def test_what_is_asked_for(sweep: Path, capsys: Any, arguments: str, expected: str) -> None:  # noqa: ARG001
    assert printed(capsys, *arguments.split())[1:] == [line.split() for line in expected.split(", ")]


def test_the_table_of_the_chosen_runs(sweep: Path, capsys: Any) -> None:  # noqa: ARG001
    assert printed(capsys, "--where", "model=mlp", "--sort", "optimizer.lr") == [
        ["val/acc", "test/acc", "status", "seconds", "optimizer.lr"],
        ["0.2500", "0.1250", "finished", "1.2", "1e-2"],
        ["0.6000", "0.3000", "finished", "1.2"],
        ["0.5000", "0.2500", "finished", "1.2", "0.1"],
    ]


def test_csv(sweep: Path, capsys: Any) -> None:
    compare.main(["runs", "--csv", "-", "--columns", "val/acc,folder", "--where", "model=mlp"])
    assert capsys.readouterr().out == "val/acc,folder\n0.6,runs/d\n0.5,runs/a\n0.25,runs/c\n"
    compare.main(["runs", "--csv", "new/all.csv"])
    assert capsys.readouterr().out == ""
    with (sweep.parent / "new/all.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    header = ["optimizer.lr", "model", "val/acc", "test/acc", "status", "seconds", "folder", "message"]
    assert rows[:2] == [header, ["0.04", "linear", "0.75", "0.375", "finished", "1.25", "b", ""]]
    assert len(rows) == 6


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", "the following arguments are required: folder; --help shows how"),
        ("none", "none: holds no run; name a folder of runs, as in runs/default"),
        ("runs --srot x", "--srot: no such option. Did you mean --sort? Choices: --help, --where"),
        ("runs --sort", "argument --sort: expected one argument; --help shows how"),
        (
            "runs --sort val/ac",
            "val/ac: no run has such a value. Did you mean val/acc? Choices: optimizer.lr, model, val",
        ),
        ("runs --columns sed", "sed: no run has such a value. Did you mean seed? Choices: "),
        ("runs --where optimiser.lr=1", "optimiser.lr: no run has such a value. Did you mean optimizer.lr? Choices: "),
        ("runs --where optimizer=1", "optimizer: no run has such a value. Did you mean optimizer.lr? Choices: "),
        ("runs --where optimizer.lr=7", "--where optimizer.lr=7: there is no such run"),
    ],
)
def test_mistakes_are_answered_in_a_line(sweep: Path, arguments: str, line: str) -> None:  # noqa: ARG001
    with pytest.raises(UserError) as raised:
        compare.main(arguments.split())
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


def runs(values: dict[str, list[str]], scores: list[float]) -> list[Row]:
    settings = [dict(zip(values, setting, strict=True)) for setting in zip(*values.values(), strict=True)]
    found = zip(settings, scores, strict=True)
    return [Row(Path(str(i)), setting, {"val/acc": score}) for i, (setting, score) in enumerate(found)]


def drawn(monkeypatch: pytest.MonkeyPatch, folder: Path, table: list[Row]) -> Any:
    """The figure of which `results.png` is made."""
    from matplotlib.figure import Figure

    kept = []
    savefig = Figure.savefig

    def keep(self: Any, *args: Any, **kwargs: Any) -> None:
        kept.append(self)
        savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    assert picture.write(folder, table, "val/acc") == folder / "results.png"
    return kept[0]


def test_numbers_and_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "optimizer.lr": ["0.001", "0.01", "0.1"] * 4,
        "model": ["mlp"] * 6 + ["lenet"] * 6,
        "data.batch_size": ["100"] * 3 + ["110"] * 3 + ["120"] * 6,
        "seed": ["0", "0", "0", "1", "1", "1"] * 2,
        "name": ["same"] * 12,
    }
    figure = drawn(monkeypatch, tmp_path, runs(values, [i / 16 for i in range(12)]))
    assert [axis.get_xlabel() for axis in figure.axes] == ["optimizer.lr", "model", "data.batch_size"]
    assert [axis.get_xscale() for axis in figure.axes] == ["log", "linear", "linear"]
    assert [[text.get_text() for text in axis.get_xticklabels()] for axis in figure.axes] == [
        ["0.001", "0.01", "0.1"],
        ["lenet", "mlp"],
        ["100", "110", "120"],
    ]
    points = figure.axes[1].lines[0]
    assert (list(points.get_xdata()), list(points.get_ydata())) == ([0] * 6, [i / 16 for i in range(6, 12)])
    [bar] = figure.axes[1].containers[0].lines[2][0].get_segments()
    assert bar[:, 1] == pytest.approx(
        [8.5 / 16 - np.std(range(6), ddof=1) / 16, 8.5 / 16 + np.std(range(6), ddof=1) / 16]
    )


def test_runs_without_the_metric_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(monkeypatch, tmp_path, runs({"x": ["1", "2", "3"]}, [0.1, 0.2, float("nan")]))
    assert "2 runs, 1 more without val/acc;" in figure.get_suptitle()


def test_a_logarithmic_interval_gets_a_logarithmic_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = runs({"optimizer.lr": ["0.2", "0.3"]}, [0.1, 0.2])
    assert drawn(monkeypatch, tmp_path, table).axes[0].get_xscale() == "linear"
    (tmp_path / "multirun.yaml").write_text("  optimizer.lr: tag(log,interval(0.001,1.0))\n")
    monkeypatch.undo()
    assert drawn(monkeypatch, tmp_path, table).axes[0].get_xscale() == "log"


def test_numbers_that_are_near_each_other_do_not_hide_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = runs({"lr": ["0.01612", "0.04244", "0.2171", "0.2474"]}, [0.1, 0.2, 0.3, 0.4])
    [axis] = drawn(monkeypatch, tmp_path, table).axes
    assert axis.get_xscale() == "log"
    assert "0.2171" not in [text.get_text() for text in axis.get_xticklabels()]


@pytest.mark.parametrize("count", [2, 200])
def test_every_size_is_drawn_in_a_bounded_picture(tmp_path: Path, count: int) -> None:
    values = {key: [f"{key}{i}" for i in range(count)] for key in "abcd"}
    picture.write(tmp_path, runs(values, list(range(count))), "val/acc")
    with Image.open(tmp_path / "results.png") as image:
        assert image.size == (1400, 770)


@pytest.mark.parametrize("table", [[], runs({"x": ["1"]}, [0.1]), runs({"x": ["1", "1"]}, [0.1, 0.2])])
def test_nothing_to_compare(tmp_path: Path, table: list[Row]) -> None:
    assert picture.write(tmp_path, table, "val/acc") is None
    assert picture.write(tmp_path, runs({"x": ["1", "2"]}, [0.1, 0.2]), None) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_end_of_a_sweep(quick_cli: Cli, tmp_path: Path) -> None:
    quick = ["-m", "optimizer.lr=0.01,0.1", "trainer=debug", "seed=0,1"]
    for _ in range(2):
        answer = quick_cli(*quick)
        assert answer.returncode == 0
        assert re.search(r"\nresults  \S+/results.csv\npicture  \S+/results.png\n", answer.stdout)
    sweep = tmp_path / "sweep"
    events = EventAccumulator(str(sweep), size_guidance={"images": 0}).Reload()
    [image] = events.Images("results")
    with Image.open(sweep / "results.png") as drawn, Image.open(io.BytesIO(image.encoded_image_string)) as shown:
        assert (np.asarray(drawn.convert("RGB")) == np.asarray(shown.convert("RGB"))).all()


def test_the_page_s_commands(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep.parent / "runs/default").mkdir()
    for folder in sorted(sweep.glob("?")):
        folder.rename(sweep / "default" / folder.name)
    page = (ROOT / "docs/sweeps.md").read_text()
    commands = re.findall(r"^python -m runlab\.results (.*)$", page, re.MULTILINE)
    answers = []
    for command in commands:
        compare.main(shlex.split(command, comments=True))
        answers.append([line.split()[0] for line in capsys.readouterr().out.splitlines() if line])
    assert answers == [
        ["val/acc", "0.7500", "0.6000", "0.5000", "0.2500", "failed"],
        ["val/acc", "0.7500", "0.6000"],
        [],
    ]
    assert Path("runs.csv").read_text().splitlines()[:2] == ["val/acc,optimizer.lr,folder", "0.75,0.04,runs/default/b"]
