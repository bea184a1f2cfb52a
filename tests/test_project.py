"""The project as a whole: its commands, its numbers, its size."""

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

PACKAGE = next((ROOT / "src").glob("*/__init__.py")).parent
FILES = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
).stdout.splitlines()


@pytest.mark.skipif(not FILES, reason="needs a git checkout to know which files are the project's")
def test_rename_makes_a_project_that_trains(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in FILES:
        if (ROOT / name).exists() and not name.endswith(".gz"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    subprocess.run(["make", "rename", "NAME=my_project"], cwd=copy, check=True, capture_output=True)
    assert (copy / "src/my_project/model.py").exists()
    assert not (copy / "src" / PACKAGE.name).exists()
    assert (copy / "README.md").read_text().startswith("# my_project\n")
    assert 'name = "my_project"' in (copy / "pyproject.toml").read_text()
    old = re.compile(rf"\b{PACKAGE.name}\.[a-z]|src/{PACKAGE.name}|from {PACKAGE.name}|import {PACKAGE.name}")
    for name in FILES:
        path = copy / name.replace(f"src/{PACKAGE.name}", "src/my_project")
        if path.suffix in {".py", ".yaml", ".toml", ".md"}:
            assert not old.search(path.read_text()), path

    run = subprocess.run(
        [sys.executable, "train.py", "trainer.max_epochs=1", f"data.root={ROOT}/data", "hydra.run.dir=run"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads((copy / "run/metrics.json").read_text())["global_step"] == 215


@pytest.mark.parametrize("name", ["", "My-Project", "1st", "json"])
def test_rename_refuses_what_is_no_new_package_name(tmp_path: Path, name: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    answer = subprocess.run(
        ["make", "rename", f"NAME={name}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode != 0
    assert f"NAME={name}:" in answer.stderr


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


def code_lines(path: Path) -> int:
    """Lines that hold code: neither blank, nor a comment, nor a docstring."""
    text = path.read_text()
    documented = ast.Module, ast.ClassDef, ast.FunctionDef
    docstrings = [n.body[0] for n in ast.walk(ast.parse(text)) if isinstance(n, documented) and ast.get_docstring(n)]
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    code = {line for t in tokens if t.type not in silent for line in range(t.start[0], t.end[0] + 1)}
    return len(code - {line for doc in docstrings for line in range(doc.lineno, (doc.end_lineno or 0) + 1)})


def test_project_stays_small() -> None:
    def lines(*paths: Path) -> int:
        return sum(len(path.read_text().splitlines()) for path in paths)

    assert lines(ROOT / "train.py", PACKAGE / "data.py", PACKAGE / "model.py") < 300
    sources = [*(ROOT / "src").rglob("*.py")]
    assert max(lines(path) for path in sources) <= 200
    assert sum(map(code_lines, sources)) < 1800  # more than the 1,000 that it should be: what can be deleted?
    assert lines(ROOT / "README.md") <= 170


def test_no_address_of_a_registry_is_committed() -> None:
    assert "://" not in (ROOT / "requirements.txt").read_text()
