"""The project as a whole: its commands, its numbers, its size."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

OWN = "the template's own limit: rename the project, and it is yours"
PACKAGE = next(path.parent for path in (ROOT / "src").glob("*/data.py"))  # the example
ENGINE = ROOT / "src/runlab"
FILES = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
).stdout.splitlines()


def copied(folder: Path) -> Path:
    """A copy of the project without its data, as a clone would be."""
    for name in FILES:
        if (ROOT / name).exists() and not name.endswith(".gz"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def run_in(copy: Path, *command: str) -> str:
    """Run Python in a copy of the project, and return what it prints."""
    env = {**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, *command], cwd=copy, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


NEEDS_GIT = pytest.mark.skipif(not FILES, reason="needs a git checkout to know which files are the project's")


@pytest.mark.slow
@NEEDS_GIT
def test_a_task_of_ones_own_as_the_page_has_it(tmp_path: Path) -> None:
    page, copy = (ROOT / "docs/make-it-yours.md").read_text(), copied(tmp_path / "copy")
    section = page[page.index("## A task of your own") : page.index("## In a notebook")]
    for path, code in zip(
        re.findall(r"`(\S+/\S+\.(?:py|yaml))`", section),
        re.findall(r"```\w+\n(.*?)```", section, re.DOTALL),
        strict=False,
    ):
        (copy / path).write_text(code)
    commands = re.findall(r"^python (train\.py .*)$", section, re.MULTILINE)
    assert len(commands) == 2
    out = run_in(copy, *shlex.split(commands[0]), "hydra.run.dir=run")
    assert "nothing is tested: Points has no test_dataloader and Line has no test_step" in out
    metrics = json.loads((copy / "run/metrics.json").read_text())
    assert metrics["val_loss"] < 0.001
    out = run_in(copy, *shlex.split(commands[1]), "hydra.sweep.dir=sweep")
    assert "mean ± standard deviation over seed" in out
    assert len(list((copy / "sweep").glob("*/metrics.json"))) == 4


@NEEDS_GIT
@pytest.mark.slow
def test_files_of_ones_own_leave_the_tests_green(tmp_path: Path) -> None:
    copy, page = copied(tmp_path / "copy"), "# @package _global_\n"
    of_ones_own = {
        "src/points/points.py": "",
        "src/digits/line.py": "",
        "conf/data/points.yaml": "_target_: points.points.Points\nbatch_size: 20\n",
        "conf/task/line.yaml": f"{page}task:\n  _target_: points.points.Line\n  lr: 0.1\n",
        "conf/experiment/line.yaml": f"{page}defaults:\n  - override /task: line\n  - override /data: points\n",
    }
    for name, text in of_ones_own.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    run_in(copy, "schemas/make.py")
    files = ["tests/test_schemas.py", "tests/test_golden.py", "tests/test_project.py"]
    chosen = "make_schemas or each_config_is or left_over or resolved"
    assert " passed" in run_in(copy, "-m", "pytest", "-p", "no:xdist", *files, "-k", chosen, "-o", "addopts=")


@NEEDS_GIT
def test_rename_makes_a_project_that_trains(tmp_path: Path) -> None:
    copy = copied(tmp_path / "copy")
    run_in(copy, "train.py", "trainer=debug", "logger=none", f"data.root={ROOT}/data", "hydra.run.dir=before")
    subprocess.run(["make", "rename", "NAME=my_project"], cwd=copy, check=True, capture_output=True)
    assert (copy / "src/my_project/classifier.py").exists()
    assert not (copy / "src" / PACKAGE.name).exists()
    assert (copy / "README.md").read_text().startswith("# my_project\n")
    assert 'name = "my_project"' in (copy / "pyproject.toml").read_text()
    old = re.compile(rf"\b{PACKAGE.name}\.[a-z]|src/{PACKAGE.name}|from {PACKAGE.name}|import {PACKAGE.name}")
    for name in FILES:
        path = copy / name.replace(f"src/{PACKAGE.name}", "src/my_project")
        if path.suffix in {".py", ".yaml", ".toml", ".md"}:
            assert not old.search(path.read_text()), path

    run_in(copy, "train.py", "trainer.max_epochs=1", f"data.root={ROOT}/data", "hydra.run.dir=run")
    assert json.loads((copy / "run/metrics.json").read_text())["global_step"] == 215
    opens = "from runlab.load import load_run; print(type(load_run('before').model).__module__)"
    assert run_in(copy, "-c", opens) == "my_project.classifier\n"  # a run from before the rename
    assert "this run is finished" in run_in(
        copy,
        "train.py",
        "trainer=debug",
        "logger=none",
        f"data.root={ROOT}/data",
        "hydra.run.dir=before",
        "resume=auto",
        "rerun=false",
    )


@pytest.mark.parametrize(
    "name", ["", "My-Project", "1st", "json", "class", "runlab", "train", "tests", "cells", "lightning", "numpy"]
)
def test_rename_refuses_what_is_no_new_package_name(tmp_path: Path, name: str) -> None:
    for part in ("Makefile", "train.py", "predict.py", "requirements.txt"):
        shutil.copy(ROOT / part, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src")
    (tmp_path / "tests").mkdir()
    answer = subprocess.run(
        ["make", "rename", f"NAME={name}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode != 0
    assert f"NAME={name}:" in answer.stderr
    assert (tmp_path / "src" / PACKAGE.name / "data.py").exists()


def test_configs_state_the_accuracies_that_were_measured() -> None:
    results = json.loads((ROOT / "benchmarks/accuracy.json").read_text())["results"]
    for arguments, file in (("", "train.yaml"), ("experiment=notebook", "experiment/notebook.yaml")):
        result = results[arguments]
        stated = (
            f"{result['mean']:.2f} % ± {result['std']:.2f} (mean ± standard deviation, n = {len(result['correct'])}"
        )
        comment = "".join(line for line in (ROOT / "conf" / file).read_text().splitlines() if line.startswith("#"))
        assert stated in comment
    assert results[""]["mean"] >= 91.9


def test_readme_has_the_table_that_was_measured() -> None:
    from accuracy import rows

    results = json.loads((ROOT / "benchmarks/accuracy.json").read_text())["results"]
    assert rows(results) in (ROOT / "README.md").read_text()


def test_readme_has_the_speeds_that_were_measured() -> None:
    from bench import EVERY, SCALE, rows, summary

    results = json.loads((ROOT / "benchmarks/results.json").read_text())
    assert summary(results) in (ROOT / "README.md").read_text()
    assert rows(results, EVERY) in (ROOT / "benchmarks/README.md").read_text()
    assert rows(results, SCALE) in (ROOT / "docs/scale.md").read_text()


def test_bench_names_what_got_worse_by_more_than_a_fifth() -> None:
    from bench import worse

    def results(slower: float, faster: float) -> dict[str, Any]:
        cost = {"what": "cost", "ratio": slower, "more_is_better": False}
        return {"a": {"rows": [cost, {"what": "speed", "ratio": faster, "more_is_better": True}]}}

    assert worse(results(1.0, 10.0), results(1.19, 8.4)) == []
    assert worse(results(1.0, 10.0), results(0.5, 30.0)) == []
    assert worse(results(1.0, 10.0), results(1.21, 8.3)) == [
        "worse: cost: 1 before, 1.21 now",
        "worse: speed: 10 before, 8.3 now",
    ]
    assert worse({}, results(9.0, 0.1)) == []


FLOORS = ["config", "runs", "data", "tracking", "training", "sweeps"]  # of the engine, from the ground up


def imported(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_engine_imports_neither_the_example_nor_a_higher_floor() -> None:
    for path in ENGINE.rglob("*.py"):
        names = imported(path)
        assert not [name for name in names if name.startswith((PACKAGE.name, "train", "hydra_plugins.runlab"))], path
        folder = path.relative_to(ENGINE).parts[0]
        if folder in FLOORS:
            ours = {name.split(".")[1] for name in names if name.startswith("runlab.")}
            assert ours <= set(FLOORS[: FLOORS.index(folder) + 1]), path
    assert {path.name for path in ENGINE.iterdir() if path.is_dir()} - {"__pycache__"} == set(FLOORS)


def test_the_example_imports_its_figures_and_the_engine_but_the_figures_nothing_of_ours() -> None:
    names = imported(PACKAGE / "figures.py")
    assert not [name for name in names if name.startswith((PACKAGE.name, "runlab"))]
    for path in (PACKAGE / "networks.py", PACKAGE / "data.py"):  # data and networks do not know each other
        assert not [name for name in imported(path) if name.startswith(PACKAGE.name)], path


def test_the_engine_knows_no_image_class_or_accuracy() -> None:
    words = re.compile(r"\b(images?|class_names|num_classes|labels?|accurac\w+|mnist|digits)\b|/acc\b", re.IGNORECASE)
    for path in ENGINE.rglob("*.py"):
        text = path.read_text().replace("--samples_per_plugin images=0", "")  # an option of TensorBoard's
        assert not words.findall(text), path


def lines(*paths: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


@pytest.mark.slow  # not in a user's `make test`
def test_example_and_engine_stay_small() -> None:
    example, engine = sorted(PACKAGE.rglob("*.py")), sorted(ENGINE.rglob("*.py"))
    if PACKAGE.name != "digits":
        return  # a project of its own, which may be as large as it likes
    assert len(example) <= 7, OWN
    options = PACKAGE / "options.py"  # a line for each value of each choice
    assert lines(options) <= 250
    # More than the 650 that it should be: ten data sets, image folders, several loaders.
    assert lines(*example) - lines(options) <= 710, OWN
    # Far more than the 2,600 that it should be, for any task, loader, logger and argument: what can be deleted?
    assert lines(*engine) <= 7700
    assert lines(ROOT / "train.py") <= 80
    assert max(lines(path) for path in [*example, *engine] if path != options) <= 215
    for folder in FLOORS:  # no folder of one file
        assert len([path for path in (ENGINE / folder).glob("*.py") if path.name != "__init__.py"]) > 1
    assert lines(ROOT / "README.md") <= 120


def test_no_address_of_a_registry_is_committed() -> None:
    assert "://" not in (ROOT / "requirements.txt").read_text()
