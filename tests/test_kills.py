"""Kills at every write and at every hook: the run is resumed from what is on disk then, and comes out equal.

What a killed run leaves is its folder alone. So one run is watched: whenever Lightning calls a hook, and in the middle
of and after each file that is written, its folder is copied if it has changed. Each copy is then resumed.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import status_of
from lightning import Callback
from test_resume import assert_equal
from test_tasks import CONF, composed, contents, setting

from train import train

AVERAGE = "+callbacks.ema={_target_: lightning.pytorch.callbacks.EMAWeightAveraging, decay: 0.9}"
EARLY = "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val_loss, patience: 1, min_delta: 9}"
STOP = "+callbacks.stop={_target_: faults.InterruptAt, batch: 25}"
BRIEF = ["trainer.max_epochs=2", "logger=none", "+callbacks.watch._target_=test_kills.Watch"]

# Task and options -> the files that are written from the first checkpoint on, in their order.
SETTINGS: dict[str, tuple[str, list[str], str]] = {
    "plain": ("regression", [], "best last best last metrics"),
    "early stopping": (
        *("regression", [f"+callbacks.early={EARLY}", "trainer.max_epochs=5"]),
        "best last best last metrics",
    ),
    "steps within an epoch": ("regression", ["trainer.max_steps=25"], "best last last metrics"),
    "steps of whole epochs": (
        *("regression", ["trainer.max_steps=38", "trainer.max_epochs=5"]),
        "best last best last metrics",
    ),
    "averaging": ("regression", [AVERAGE], "best last best last metrics"),
    "no monitor": ("regression", ["monitor=null"], "best last best last metrics"),
    "several kept": (
        *("regression", ["callbacks.best_checkpoint.save_top_k=2"]),
        "best-epoch=0-step=19 best last best-epoch=1-step=38 best last metrics",
    ),
    "worse in the end": ("regression", ["mode=max"], "best last last metrics"),
    "stopped": ("regression", [STOP], "best last last"),
    "validated within epochs": (
        *("regression", ["+trainer.val_check_interval=8"]),
        "best best last best best last metrics",
    ),
    "gathered gradients": (
        *("regression", ["+trainer.val_check_interval=6", "+trainer.accumulate_grad_batches=4"]),
        "best best best last best best best last metrics",
    ),
    "saved by steps": (
        *("regression", ["monitor=null", "+callbacks.best_checkpoint.every_n_train_steps=8"]),
        "best best last best best last metrics",
    ),
    "Lightning's loop": ("regression", ["fast_loop=false"], "best last best last metrics"),
    "two optimizers, no test": ("gan", ["monitor=val_distance"], "best last best last metrics"),
    "batch norm, dropout": ("colour", ["monitor=val/loss"], "best last best last metrics"),
}
RECORD = ["config.yaml", "code.json", "provenance.json"]  # written before the training, alike in all settings


class Watch(Callback):
    """Calls `seen` with the name of each hook that Lightning calls."""

    seen: ClassVar[Callable[[str], None] | None] = None


def hook(name: str) -> Any:
    def call(self: Watch, *_: Any, **__: Any) -> None:  # noqa: ARG001
        if Watch.seen:
            Watch.seen(name)

    return call


HOOKS = [name for name in dir(Callback) if name.startswith(("on_", "setup", "teardown"))]
# That no run of these settings calls.
NEVER = {"on_exception", "on_load_checkpoint", *(name for name in HOOKS if "predict" in name)}
OF_OTHER_TASKS = {"on_before_zero_grad", *(name for name in HOOKS if "test" in name)}  # than the one without a test
for each in HOOKS:
    setattr(Watch, each, hook(each))


class Disk:
    """Copies a run folder whenever it has changed: `copies` by what was written last, `hooks` that were called."""

    def __init__(self, run_dir: Path, into: Path, patch: pytest.MonkeyPatch) -> None:
        self.run_dir, self.into = run_dir, into
        self.copies: dict[str, Path] = {}
        self.hooks: set[str] = set()
        self.last: dict[str, bytes] = {}
        self.written: list[str] = []  # the files, in their order
        replace = Path.replace

        def watched(path: Path, target: Path) -> Path:
            self.copy(f"in the middle of {target.name}", cut=path)
            done = replace(path, target)
            self.written.append(target.name)
            self.copy(f"after {target.name}")
            return done

        patch.setattr(Path, "replace", watched)
        patch.setattr(Watch, "seen", self.at_hook)

    def at_hook(self, name: str) -> None:
        self.hooks.add(name)
        self.copy(name)

    def copy(self, moment: str, cut: Path | None = None) -> None:
        files = {str(path): path.read_bytes() for path in self.run_dir.rglob("*") if path.is_file()}
        if files == self.last:
            return
        copy = self.into / f"{len(self.copies)}"
        shutil.copytree(self.run_dir, copy)
        if cut:
            half = copy / cut.relative_to(self.run_dir)
            half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
        self.copies[f"{len(self.copies)}: {moment}"], self.last = copy, files


def resume_each(copies: dict[str, Path], moments: str, task: str, options: Sequence[str], straight: Path) -> None:
    """Resume the copies of these moments, a regular expression; each must come out as the straight run."""
    unequal = []
    for moment, copy in copies.items():
        if not re.search(moments, moment):
            continue
        train(composed(task, copy, *options, "resume=auto"))
        try:
            assert_equal(contents(copy), contents(straight))
        except AssertionError as error:
            unequal.append(f"{moment}: {error}")
    assert not unequal


@pytest.mark.parametrize(
    ("task", "options", "files"),
    [
        pytest.param(*row, id=name, marks=[] if name in ("plain", "gathered gradients") else pytest.mark.slow)
        for name, row in SETTINGS.items()
    ],
)
def test_a_kill_at_any_write_or_hook_is_resumed_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, options: list[str], files: str
) -> None:
    monkeypatch.setattr("runlab.runs.provenance._git", lambda *_, **__: b"")  # no .diff
    monkeypatch.chdir(tmp_path)
    names = [f"{name}.json" if name == "metrics" else f"{name}.ckpt" for name in files.split()]
    watched, options = tmp_path / "watched", [*BRIEF, *options]
    never = ["callbacks.stop.batch=-1"] if STOP in options else []
    with monkeypatch.context() as patch:
        disk = Disk(watched, tmp_path, patch)
        with pytest.raises(SystemExit) if never else nullcontext():
            train(composed(task, watched, *options))
    assert disk.written == [*RECORD, *names]
    straight = watched
    if never:
        straight = tmp_path / "straight"
        train(composed(task, straight, *options, *never))
    else:
        assert set(HOOKS) - disk.hooks <= NEVER | (OF_OTHER_TASKS if task == "gan" else set())
    moments = ".*" if options == BRIEF else "after .*ckpt"
    resume_each(disk.copies, moments, task, [*options, *never], straight)


def test_a_kill_of_a_resumed_run_is_resumed_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From between `best.ckpt` and `last.ckpt`: the resumed run copies one to the other, and is killed again."""
    monkeypatch.setattr("runlab.runs.provenance._git", lambda *_, **__: b"")
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path / "straight", tmp_path, patch)
        train(composed("regression", tmp_path / "straight", *BRIEF))
    [_, killed] = [copy for moment, copy in disk.copies.items() if "after best.ckpt" in moment]
    (tmp_path / "again").mkdir()
    with monkeypatch.context() as patch:
        again = Disk(killed, tmp_path / "again", patch)
        train(composed("regression", killed, *BRIEF, "resume=auto"))
    assert again.written == ["last.ckpt", *RECORD, "metrics.json"]
    resume_each(again.copies, ".*", "regression", BRIEF, tmp_path / "straight")


COMMAND = [f"--config-dir={CONF}", *setting("regression", "trainer.max_epochs=1", "logger=none")]


@pytest.mark.slow
def test_a_kill_while_the_record_is_written_is_resumed_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runlab.runs.provenance._git", lambda *_, **__: b"a diff")
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path / "straight", tmp_path, patch)
        assert status_of(*COMMAND, f"hydra.run.dir={tmp_path}/straight") == 0
    record = ["hydra.yaml", "overrides.yaml", *RECORD]
    assert disk.written == [*record, "provenance.diff", "best.ckpt", "last.ckpt", "metrics.json"]
    for moment, copy in disk.copies.items():
        if re.search("yaml|code|provenance", moment):
            assert status_of(*COMMAND, "resume=auto", f"hydra.run.dir={copy}") == 0
            assert_equal(contents(copy), contents(tmp_path / "straight"))
            assert sorted(path.name for path in copy.glob(".hydra/*")) == sorted(record[:4])


@pytest.mark.slow
def test_a_kill_of_a_sweep_is_resumed_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runlab.runs.provenance._git", lambda *_, **__: b"")
    sweep = ["-m", *COMMAND, "seed=0,1", "hydra.sweep.subdir=${seed}"]
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path / "straight", tmp_path, patch)
        assert status_of(*sweep, f"hydra.sweep.dir={tmp_path}/straight") == 0
    found = []
    for moment, copy in disk.copies.items():
        if re.search(r"after (multirun.yaml|metrics.json)|in the middle of (overrides.yaml|results.csv)", moment):
            assert status_of(*sweep, f"hydra.sweep.dir={copy}") == 0
            for job in ("0", "1"):
                assert_equal(contents(copy / job), contents(tmp_path / "straight" / job))
            found.append(moment.rpartition(" ")[2])
    of_a_job = ["overrides.yaml", "metrics.json"]  # the overrides of all jobs stand there before the first begins
    assert found == ["multirun.yaml", "overrides.yaml", "overrides.yaml", *of_a_job, *of_a_job, "results.csv"]
