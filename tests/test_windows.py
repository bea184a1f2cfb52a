"""Where the names are missing that Windows has not, a sweep starts, trains, and names its folders as Windows allows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PATH, ROOT

from runlab.config import resolvers

# Lightning and torch are asked before the names go: they have their own branches, by the name of the system.
PROGRAM = """
import os, runpy, signal, sys
import lightning
from lightning.pytorch.trainer.connectors import signal_connector

signal_connector._IS_WINDOWS = True
signal.valid_signals = lambda: {signal.SIGINT, signal.SIGTERM}
for name in "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2".split():
    delattr(signal, name)
for name in "chown fork geteuid getpgid getuid killpg register_at_fork sched_getaffinity setsid".split():
    delattr(os, name)
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


def without_posix(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore:only soft file lock", "-c", PROGRAM, *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATH}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
def test_a_sweep_runs_without_posix_names(tmp_path: Path) -> None:
    quick = ["trainer=debug", "logger=none", f"data.root={ROOT}/data", f"hydra.sweep.dir={tmp_path}"]
    done = without_posix("-m", "hyperparameters=[model],[seed,model]", *quick)
    assert (done.returncode, done.stderr) == (0, "")
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 2
    for folder in folders:
        assert json.loads((folder / "metrics.json").read_text())["global_step"] == 3


@pytest.mark.slow
def test_several_devices_in_a_sweep_are_refused_in_a_line(tmp_path: Path) -> None:
    done = without_posix("-m", "seed=0,1", "trainer=ddp", "trainer.devices=2", f"hydra.sweep.dir={tmp_path}")
    assert (done.returncode, done.stderr) == (
        1,
        "trainer.devices=2: on Windows each job of a sweep has one device\n",
    )


@pytest.mark.parametrize(
    ("posix", "folder"),
    [(True, "a={b:<c>},x=1"), (False, "a={b__c_},x=1-b084e88b")],
)
def test_a_folders_name_has_no_characters_that_windows_refuses(
    posix: bool, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "POSIX", posix)
    assert resolvers.job_folder("a={b:<c>},x=1") == folder
    assert len(resolvers.job_folder("a" * 500)) == (200 if posix else 100) + 9
