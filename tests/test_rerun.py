"""A finished run is taken instead of training again only where config and code are the same."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Cli

from runlab.runs import code

QUICK = ["trainer=debug", "logger=none"]
QUICK += [f"~callbacks.{name}" for name in ("confusion_matrix", "weights", "train_batch", "mistakes", "pr_curves")]
CHANGED = "src/digits/data.py"


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From here on a file of the project is another one than before."""
    monkeypatch.setattr(code, "_said", set())

    def change() -> None:
        after = code.code_md5() | {CHANGED: "other"}
        monkeypatch.setattr(code, "code_md5", lambda: after)

    return change


def test_the_code_is_that_of_the_project() -> None:
    names = set(code.code_md5())
    assert {"train.py", CHANGED, "src/runlab/runs/code.py"} <= names
    assert not [name for name in names if name.startswith(("tests", "conf", ".venv"))]


def test_a_run_with_other_code(quick_cli: Cli, tmp_path: Path, change: Callable[[], None]) -> None:
    run_dir, command = tmp_path / "run", [*QUICK, "resume=auto"]
    assert quick_cli(*command).returncode == 0
    first = (run_dir / "metrics.json").read_bytes()
    assert "this run is finished" in quick_cli(*command).stdout
    change()
    refused = quick_cli(*command)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert f"finished with other code, {CHANGED} changed since; rerun=true runs it anew" in refused.stderr
    taken = quick_cli(*command, "rerun=false")
    assert (taken.returncode, len(taken.stderr.splitlines())) == (0, 1)
    assert "this run is finished" in taken.stdout
    assert f"{CHANGED} changed since; taken as it is" in taken.stderr
    assert (run_dir / "metrics.json").read_bytes() == first

    anew = quick_cli(*command, "rerun=true")
    assert (anew.returncode, len(anew.stderr.splitlines())) == (0, 1)
    [old] = tmp_path.glob(".run.*")
    assert (old / "metrics.json").read_bytes() == first
    assert json.loads((run_dir / ".hydra/code.json").read_text())[CHANGED] == "other"
    assert "resumed" not in json.loads((run_dir / "provenance.json").read_text())
    assert "this run is finished" in quick_cli(*command, "rerun=true").stdout  # its code is that of now
    assert len(list(tmp_path.glob(".run.*"))) == 1


@pytest.mark.slow
def test_a_sweep_with_other_code(quick_cli: Cli, tmp_path: Path, change: Callable[[], None]) -> None:
    sweep, command = tmp_path / "sweep", ["-m", "seed=0,1", *QUICK]
    assert quick_cli(*command).returncode == 0
    change()
    refused = quick_cli(*command)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert f"{CHANGED} changed since; rerun=true" in refused.stderr
    assert "jobs" not in refused.stdout
    taken = quick_cli(*command, "rerun=false")
    assert taken.stdout.startswith(f"2 jobs, 2 of them finished, in {sweep}\n")
    assert len(taken.stderr.splitlines()) == 1
    anew = quick_cli(*command, "rerun=true", "seed=0,1,2")
    assert anew.stdout.startswith(f"3 jobs, 0 of them finished, in {sweep}\n")
    assert "rerun" not in (sweep / "results.csv").read_text()
    assert len(list(sweep.glob("[!.]*/metrics.json"))) == 3
    assert len(list(sweep.glob(".*/metrics.json"))) == 2
    assert quick_cli(*command, "rerun=true").stdout.startswith(f"2 jobs, 2 of them finished, in {sweep}\n")


def test_a_run_from_before_code_was_recorded(quick_cli: Cli, tmp_path: Path) -> None:
    assert quick_cli(*QUICK, "resume=auto").returncode == 0
    (tmp_path / "run/.hydra/code.json").unlink()
    config = tmp_path / "run/.hydra/config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if not line.startswith("rerun")))
    answer = quick_cli(*QUICK, "resume=auto")
    assert (answer.returncode, "this run is finished" in answer.stdout) == (0, True)
    assert "finished before runs recorded their code; taken as it is" in answer.stderr


@pytest.mark.slow
def test_a_resume_with_other_code_is_said(quick_cli: Cli, tmp_path: Path, change: Callable[[], None]) -> None:
    assert quick_cli(*QUICK).returncode == 0
    change()
    longer = quick_cli(f"resume={tmp_path}/run", "trainer.max_epochs=2")
    assert longer.returncode == 0
    assert f"resumed with other code, {CHANGED} changed since" in longer.stderr
    refused = quick_cli(f"resume={tmp_path}/run")
    assert (refused.returncode, f"{CHANGED} changed since" in refused.stderr) == (1, True)
