"""`run.log` in each run folder: the user's own records, every warning, the traceback of a failure; nothing twice."""

import logging
import os
import re
from pathlib import Path

import pytest
from conftest import Cli, Compose

from runlab.runs.run_log import run_log
from train import train

QUICK = ["trainer=debug", "logger=none"]
QUICK += [f"~callbacks.{name}" for name in ("confusion_matrix", "weights", "train_batch", "mistakes", "pr_curves")]
NOISY = "+callbacks.noisy={_target_: noisy.Noisy}"
EXPECTED = ["INFO noisy: seen 7 samples", "WARNING noisy: a remark", "WARNING warnings: a doubt"]
EXPECTED += ["WARNING library: library worry"]
pytestmark = pytest.mark.filterwarnings("default:a doubt")


def said(path: Path) -> list[str]:
    """The lines of a log that this test's callback has caused, without time and place."""
    lines = [re.sub(r"^\S+ \S+ ", "", line) for line in path.read_text().splitlines()]
    lines = [re.sub(r"warnings: .*UserWarning: ", "warnings: ", line) for line in lines]
    return [line for line in lines if re.match(r"(INFO|WARNING) (noisy|library|warnings: a doubt)", line)]


def test_a_single_run_shows_and_writes_it_once(cli: Cli, tmp_path: Path) -> None:
    answer = cli(*QUICK, NOISY)
    assert answer.returncode == 0, answer.stderr
    assert said(tmp_path / "run/run.log") == EXPECTED
    for text in ("seen 7 samples", "a remark", "UserWarning: a doubt"):
        assert answer.stderr.count(text) == 1, answer.stderr
    assert "library chat" not in answer.stderr + (tmp_path / "run/run.log").read_text()


def test_each_job_of_a_sweep_has_its_own(quick_cli: Cli, tmp_path: Path) -> None:
    answer = quick_cli("-m", "seed=0,1", *QUICK, NOISY)
    assert answer.returncode == 0, answer.stderr
    logs = sorted((tmp_path / "sweep").glob("*/run.log"))
    assert [said(path) for path in logs] == [EXPECTED] * 2


def test_a_resumed_run_appends(composed: Compose, tmp_path: Path) -> None:
    train(composed(*QUICK, NOISY))
    (tmp_path / "run/metrics.json").unlink()
    train(composed(*QUICK, NOISY, "trainer.max_epochs=2", "resume=auto"))
    assert said(tmp_path / "run/run.log") == EXPECTED * 2


def test_a_failure_leaves_its_traceback(quick_cli: Cli, tmp_path: Path) -> None:
    fails = "+callbacks.noisy={_target_: noisy.Noisy, fails: true}"
    assert quick_cli(*QUICK, fails).returncode == 1
    assert quick_cli("-m", "seed=0", "optimizer.lr=0.1,-1", *QUICK, fails).returncode == 1
    texts = [path.read_text() for path in [tmp_path / "run/run.log", *sorted((tmp_path / "sweep").glob("*/run.log"))]]
    assert len(texts) == 3
    assert [text.count("Traceback") for text in texts] == [1, 1, 1]
    assert [text.count('raise RuntimeError("it broke")') for text in texts] == [1, 0, 1]
    assert "optimizer.lr=-1: must be number > 0" in texts[1]


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "LOCAL_RANK"])
def test_each_rank_has_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    with run_log(tmp_path):
        logging.getLogger("mine").info("here")
    monkeypatch.setenv(variable, "1")
    with run_log(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run.log"]  # a rank that has nothing to say makes no file
    with run_log(tmp_path):
        logging.getLogger("mine").info("there")
    assert "there" in (tmp_path / "run.rank1.log").read_text()
    assert "there" not in (tmp_path / "run.log").read_text()


def test_a_log_that_cannot_be_written_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.FileHandler, "flush", lambda _: os.write(-1, b""))
    with run_log(tmp_path):
        logging.getLogger("mine").info("lost")
    assert capfd.readouterr().err == ""
