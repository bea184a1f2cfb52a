"""A run folder on disk: what is written into it, and how."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from digits.errors import UserError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` at the end, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` with one key a line. The file is replaced whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def as_logged(value: Any) -> float:
    """A float32 metric as the shortest decimal that stands for it: 0.9222, not 0.9222000241279602."""
    return float(str(np.float32(value)))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU. Only tensors and plain values are let in, so that no code can run.

    Raises:
        UserError: there is no such file, or it is no checkpoint of this project.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception as error:
        raise UserError(f"{path}: no checkpoint, or a damaged one ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or "metrics" not in checkpoint:
        raise UserError(f"{path}: a checkpoint of another project, without metrics")
    return checkpoint


def closing_lines(correct: int, total: int, run_dir: Path) -> str:
    """What a run says at its end."""
    folder = os.path.relpath(run_dir)
    command = (
        "tensorboard" if shutil.which("tensorboard") else os.path.relpath(Path(sys.executable).with_name("tensorboard"))
    )
    return (
        f"test accuracy  {correct}/{total} = {correct / total:.2%}\n".replace("%", " %")
        + f"run folder     {folder}\n"
        + f"dashboard      {command} --logdir {folder}"
    )


def provenance(seed: int, device: torch.device) -> dict[str, Any]:
    """What a run came from: code, versions, machine, command line.

    Args:
        seed: the run's seed.
        device: where it runs.
    """
    commit = _git("rev-parse", "HEAD")
    return {
        "git_commit": commit or None,
        "git_dirty": bool(_git("status", "--porcelain")) if commit else None,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "lightning", "hydra-core")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "threads": torch.get_num_threads(),  # the number of threads changes the last bits of a sum
        "command": sys.argv,
        "seed": seed,
    }


def _git(*args: str) -> str:
    """The output of a git command on the project's own checkout; nothing where there is no git or no checkout."""
    command = ["git", "-C", str(Path(__file__).parent), *args]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
