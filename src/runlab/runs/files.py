"""The files of a run folder: their names, its lock, atomic writes. Imports neither torch nor lightning."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from runlab.config.messages import UserError
from runlab.config.processes import rank_zero

RECORD = Path(".hydra/config.yaml")  # the composed config
CODE = Path(".hydra/code.json")  # the MD5 of each source file
METRICS = "metrics.json"  # the final metrics of a finished run
ENDED = "ended.json"  # why a job of a sweep ended without metrics: status, message, traceback
RUN_LOG = "run.log"  # what the user's own code logs, warnings, the traceback of a failure
CHECKPOINTS = "checkpoints"  # the folder of the checkpoints
LAST = f"{CHECKPOINTS}/last.ckpt"  # the newest one

PART = ".part"  # the ending of a file that is being written


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; at the end it is renamed to `path`, which is never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # of a full disk the system does not say which file it was
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content`, a key a line."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


@contextmanager
def run_lock(run_dir: Path, resume: bool) -> Iterator[None]:
    """Lock the run folder for this process; `UserError` if another has it, or if it holds a run and not `resume`."""
    if not rank_zero():  # rank 0 holds the lock for all
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run_dir / ".lock", timeout=0):
            if not resume and any((run_dir / name).exists() for name in (METRICS, CHECKPOINTS)):
                raise UserError(f"{run_dir}: holds a run; add resume=auto to resume it, or name another folder")
            for folder in (run_dir, run_dir / CHECKPOINTS, run_dir / RECORD.parent):
                for leftover in folder.glob(f".*{PART}"):
                    leftover.unlink()
            (run_dir / ENDED).unlink(missing_ok=True)
            yield
    except Timeout:
        raise UserError(f"{run_dir}: another process is using this run folder; wait for it, or name another") from None
