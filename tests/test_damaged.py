"""Damaged folders: each file of a run, sweep and search, damaged in each way; what is done next is right, or a line."""

import errno
import json
import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import status_of
from test_resume import assert_equal
from test_tasks import CONF, composed, contents, setting

from runlab.config.messages import UserError
from runlab.load import load_run
from runlab.sweeps import compare, results
from train import train

SHORT = [f"--config-dir={CONF}", *setting("regression", "trainer.max_epochs=2", "trainer.accelerator=cpu")]
STOP = "+callbacks.stop={_target_: faults.InterruptAt, batch: 25}"
SWEEP = ["-m", *SHORT, "seed=0,1", "hydra.sweep.subdir=${seed}"]
SPACE = ["sweep=optuna", "~hydra.sweeper.params", "+hydra.sweeper.params={task.lr: 'interval(0.01,0.1)'}"]
SEARCH = [*SHORT, *SPACE, "hydra.sweeper.n_trials=2", "~callbacks.pruning"]

unreadable: set[str] = set()  # paths: root may read a file without permissions, so it is acted here


def with_a_word(path: Path) -> None:
    path.write_text(re.sub(r'": \d[\d.]*', '": "word"', path.read_text(), count=1))


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "folder": as_folder,
    "list": lambda path: path.write_text("[1, 2]\n"),
    "word": with_a_word,  # where a number belongs
    "unreadable": lambda path: unreadable.add(str(path)),
}
WAY_OUT = re.compile(
    r"restore|remove|move it|name (a |one|another)|begins? anew|begin a new run|mend that|resume it|run the job again"
)


@pytest.fixture(autouse=True)
def closed_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is in `unreadable` cannot be opened."""
    for module in ("builtins", "io"):
        opened: Any = getattr(__import__(module), "open")  # noqa: B009

        def refusing(file: Any, *args: Any, opened: Any = opened, **kwargs: Any) -> Any:
            if not isinstance(file, int) and os.fspath(file) in unreadable:
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(file))
            return opened(file, *args, **kwargs)

        monkeypatch.setattr(f"{module}.open", refusing)
    yield
    unreadable.clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two finished runs, one of a stopped and a finished run, a sweep and a search."""
    made = tmp_path_factory.mktemp("made")
    loggers = "logger=[tensorboard,csv]"
    assert status_of(*SHORT, loggers, f"hydra.run.dir={made}/finished/0") == 0
    assert status_of(*SHORT, loggers, f"hydra.run.dir={made}/finished/1", "seed=1") == 0
    assert status_of(*SHORT, loggers, f"hydra.run.dir={made}/stopped/0", STOP) == 130
    shutil.copytree(made / "finished/1", made / "stopped/1")
    assert status_of(*SWEEP, f"hydra.sweep.dir={made}/sweep") == 0
    assert status_of(*SEARCH, f"hydra.sweep.dir={made}/search") == 0
    return made


def tree(folder: Path) -> dict[Path, bytes]:
    """The files in a folder, but for locks and the log, which grows, and what they hold."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith((".lock", ".log"))]
    return {path.relative_to(folder): path.read_bytes() for path in paths if str(path) not in unreadable}


def numbers(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in metrics_of(folder).items() if key not in ("seconds", "best_checkpoint")}


def metrics_of(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


# What a user does next, in the copy of a folder. Each returns its status, having checked what comes out if it is 0.
def resume(copy: Path, made: Path) -> int:
    never = ["callbacks.stop.batch=-1"] if copy.name == "stopped" else []
    if status := status_of(f"--config-dir={CONF}", f"resume={copy}/0", *never):
        return status
    assert numbers(copy / "0") == numbers(made / "finished/0")
    if copy.name == "stopped":
        assert_equal(contents(copy / "0"), contents(made / "finished/0"))
    return 0


def evaluate(copy: Path, made: Path) -> int:
    again = copy.parent / "evaluated"
    if status := status_of(f"--config-dir={CONF}", "fit=false", f"resume={copy}/0", f"run_dir={again}"):
        return status
    assert numbers(again) == numbers(made / "finished/0")
    return 0


def weights(copy: Path, made: Path) -> int:
    again = copy.parent / "of the weights"
    path = f"ckpt_path={copy}/0/checkpoints/best.ckpt"
    if status := status_of(*SHORT, "fit=false", "logger=none", path, f"hydra.run.dir={again}"):
        return status
    assert numbers(again) == numbers(made / "finished/0")
    return 0


def load(copy: Path, made: Path) -> int:
    try:
        run = load_run(copy / "0")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    assert run.metrics == metrics_of(made / "finished/0")
    best = torch.load(made / "finished/0/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert_equal(dict(run.model.state_dict()), dict(best))
    return 0


def show(copy: Path, made: Path) -> int:
    """The table: the other run is as it was, and this one is, or is marked as damaged."""
    compare.main([str(copy)])
    before, now = ({row.folder.name: row for row in results.rows(path)[0]} for path in (made / copy.name, copy))
    assert results.rows(copy)[1:] == ("val_loss", 1)
    assert (now["1"].metrics, now["1"].status) == (before["1"].metrics, "finished")
    if now["0"].status == "damaged":
        print(now["0"].message, file=sys.stderr)
        return 1
    if before["0"].status == "finished" and not (copy / "0/metrics.json").exists():
        assert now["0"].status == "unfinished"
    else:
        assert (now["0"].metrics, now["0"].status) == (before["0"].metrics, before["0"].status)
    return 0


def again(copy: Path, made: Path) -> int:
    """The same command for the sweep or the search."""
    status = status_of(*(SWEEP if copy.name == "sweep" else SEARCH), f"hydra.sweep.dir={copy}")
    for job in ("0", "1"):
        if job == "1" or not status:
            assert numbers(copy / job) == numbers(made / copy.name / job)
    return status


ACTIONS = {action.__name__: action for action in (resume, evaluate, weights, load, show, again)}

# Folder, files that are damaged alike, what is done next, and of that what is answered in a line, whatever the damage.
FILES = [
    ("finished", ".hydra/config.yaml", "show load evaluate resume", "load evaluate resume"),
    ("finished", "checkpoints/best.ckpt", "show load evaluate weights resume", "load evaluate weights"),
    ("finished", "metrics.json", "show load evaluate resume", "show load resume"),
    ("finished", ".hydra/overrides.yaml", "show load", "show"),
    ("finished", ".hydra/hydra.yaml provenance.json checkpoints/last.ckpt", "show load", ""),
    ("finished", "csv/version_0/metrics.csv events* .lock", "show load resume", ""),
    ("stopped", ".hydra/config.yaml", "show resume", "resume"),
    ("stopped", "checkpoints/best.ckpt", "show resume", "resume"),
    ("stopped", "checkpoints/last.ckpt", "show resume", ""),
    ("stopped", "provenance.json", "show resume", "resume"),
    ("stopped", ".hydra/overrides.yaml", "show resume", "show"),
    ("stopped", ".hydra/hydra.yaml events* csv/version_0/hparams.yaml", "show resume", ""),
    ("stopped", "csv/version_0/metrics.csv", "show resume", "resume"),
    ("stopped", ".lock", "resume", ""),
    ("stopped", "run.log", "resume", ""),
    ("sweep", "../multirun.yaml", "show again", ""),
    ("sweep", "../results.csv", "again", ""),
    ("sweep", ".hydra/config.yaml", "show again", "again"),
    ("sweep", "metrics.json", "show again", "show again"),
    ("sweep", ".hydra/overrides.yaml", "show again", "show"),
    ("search", "../optuna.db", "show again", "again"),
    ("search", "../optimization_history.png", "again", ""),
    ("search", "../.lock", "again", ""),
    ("search", "metrics.json", "show", "show"),
]
# Where it is otherwise: a file that is missing is written, or was not needed; none can be written where a folder is.
EXCEPT = {
    ("finished", "metrics.json", "missing"): "load",
    ("finished", ".hydra/overrides.yaml", "missing"): "",
    ("stopped", ".hydra/overrides.yaml", "missing"): "",
    ("stopped", "provenance.json", "missing"): "",
    ("stopped", "provenance.json", "word"): "",
    ("stopped", "checkpoints/last.ckpt", "folder"): "resume",
    **{("stopped", "csv/version_0/metrics.csv", damage): "" for damage in ("missing", "empty", "cut")},
    ("stopped", ".lock", "folder"): "resume",
    ("stopped", "run.log", "folder"): "resume",
    ("sweep", "../multirun.yaml", "folder"): "again",
    ("sweep", "../results.csv", "folder"): "again",
    ("sweep", "metrics.json", "missing"): "",
    ("sweep", ".hydra/overrides.yaml", "missing"): "",
    ("search", "../optuna.db", "missing"): "",
    ("search", "../optuna.db", "empty"): "",
    ("search", "../optimization_history.png", "folder"): "again",
    ("search", "../.lock", "folder"): "again",
    ("search", "metrics.json", "missing"): "",
}
QUICK = ("missing",)  # the other damages are left to `make test-all`
FEW = ("missing", "cut", "folder")  # of what reads the files by the same code, or not at all
ROWS = [
    (*row[:2], damage, row[2], EXCEPT.get((*row[:2], damage), row[3]))
    for row in FILES
    for damage in DAMAGES
    if (damage != "word" or row[1].endswith(".json"))
    and (damage in FEW or (row[0] in ("finished", "stopped") and row[3]))
]


@pytest.mark.parametrize(
    ("kind", "files", "damage", "actions", "refused"),
    [pytest.param(*row, id=" ".join(row[:3]), marks=[] if row[2] in QUICK else pytest.mark.slow) for row in ROWS],
)
def test_a_damaged_file(
    made: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    kind: str,
    files: str,
    damage: str,
    actions: str,
    refused: str,
) -> None:
    copy = tmp_path / kind
    shutil.copytree(made / kind, copy)
    for file in files.split():
        [path, *_] = copy.glob(f"0/{file}") if ".." not in file else [copy / file[3:]]
        DAMAGES[damage](path)
    name = Path(files.split()[-1]).name
    other, before = tree(copy / "1"), tree(copy / "0")
    for action in actions.split():
        capfd.readouterr()
        status = ACTIONS[action](copy, made)
        err = "".join(re.findall(r"^(?!Error executing|  File).*\n", capfd.readouterr().err, re.MULTILINE))
        assert status == (action in refused.split()), (action, err)
        assert tree(copy / "1") == other
        assert "Traceback" not in err
        if status:
            assert name in err
            assert WAY_OUT.search(err)
            assert len(err.splitlines()) <= 2
            assert before.items() <= tree(copy / "0").items()  # nothing is lost
        elif err:  # what is passed over
            assert re.search(rf"{name}: .*(passed over|missing or damaged)$", err)


# Cases 34 and 35
@pytest.mark.parametrize(("limit", "file"), [(4500, "checkpoints/best.ckpt"), (9000, "")])
def test_a_file_size_limit_is_a_line_and_the_run_is_resumed_equal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, limit: int, file: str
) -> None:
    """The limit meets the first checkpoint, of about 7,100 bytes, or in a later epoch TensorBoard's file."""
    monkeypatch.setattr("runlab.runs.provenance._git", lambda *_, **__: b"")  # no .diff
    monkeypatch.setattr("runlab.runs.code.code_md5", dict[str, str])  # as long as the project has files
    run, long = tmp_path / "run", [*SHORT, "trainer.max_epochs=9", "trainer.log_every_n_steps=1"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        assert status_of(*long, f"hydra.run.dir={run}") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    err = capfd.readouterr().err.splitlines()
    assert err[-1].startswith(f"{run / file}: File too large; mend that, or name another folder; saved work can be")
    assert [line.partition(":")[0] for line in err[:-1] if "overruled" not in line] == ([] if file else ["TensorBoard"])
    assert not list(run.rglob("*.part"))
    assert sorted(path.name for path in run.glob("checkpoints/*")) == ([] if file else ["best.ckpt", "last.ckpt"])
    assert status_of(f"--config-dir={CONF}", f"resume={run}") == 0
    assert status_of(*long, f"hydra.run.dir={tmp_path}/straight") == 0
    assert_equal(contents(run), contents(tmp_path / "straight"))


def test_a_full_disk_of_which_the_system_says_no_file_is_that_of_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lightning.pytorch.loggers.CSVLogger.save", full)
    assert status_of(*SHORT, "logger=csv", f"hydra.run.dir={tmp_path}/run") == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}/run: No space left on device; mend that, or name another folder")


def test_an_error_of_the_users_own_is_not_taken_for_one_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr("tasks.regression.Regressor.training_step", refused)
    with pytest.raises(ConnectionRefusedError):
        train(composed("regression", tmp_path / "run", "logger=none"))


def test_a_folder_that_cannot_be_opened_does_not_hide_the_runs_beside_it(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made / "finished", tmp_path / "runs")
    scandir = os.scandir

    def closed(path: Path) -> Any:
        if path.name == "0":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", closed)
    compare.main([str(tmp_path / "runs")])
    out, err = capfd.readouterr()
    assert out.splitlines()[2].split()[:3] == ["0.2033", "0.2036", "finished"]
    assert err == f"{tmp_path}/runs/0: Permission denied; passed over\n"
