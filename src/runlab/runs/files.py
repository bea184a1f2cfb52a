"""The files of a run folder: their names, its lock, atomic writes. Imports neither torch nor lightning."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from runlab.config.messages import FULL, UserError
from runlab.config.processes import rank_zero

RECORD = Path(".hydra/config.yaml")  # the composed config
CODE = Path(".hydra/code.json")  # the MD5 of each source file
METRICS = "metrics.json"  # the final metrics of a finished run
NOT_METRICS = ("epoch", "global_step", "seconds", "best_checkpoint")  # what else it holds
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
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content`, a key a line. NaN and infinity, which JSON has no numbers for, are "nan", "inf" and "-inf"."""
    content = {key: str(v) if isinstance(v, float) and not isfinite(v) else v for key, v in content.items()}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, way_out: str) -> dict[str, Any]:
    """The mapping in a JSON file; `UserError` with the `way_out` where it cannot be read or is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', 'damaged')}; {way_out}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged; {way_out}")
    return content


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """What `metrics.json` of a finished run holds; `UserError` where it is damaged."""
    path, way_out = run_dir / METRICS, "restore it, or remove it and resume the run, which is then tested again"
    content = read_json(path, way_out)
    metrics = {name: float(v) if v in ("nan", "inf", "-inf") else v for name, v in content.items()}
    if missing := set(NOT_METRICS) - set(metrics):
        raise UserError(f"{path}: lacks {', '.join(sorted(missing))}; {way_out}")
    for name, value in metrics.items():
        if type(value) not in ((str, type(None)) if name == "best_checkpoint" else (int, float)):
            raise UserError(f"{path}: no number for {name}; {way_out}")
    return metrics


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
    except OSError as error:
        if error.errno in FULL and not error.filename:
            error.filename = str(run_dir)
        raise
