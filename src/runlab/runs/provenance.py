"""Where a run comes from: commit, what was not committed, versions, machine, command, data."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig

from runlab.config.secrets import written_value


def source(cfg: DictConfig, data: Any, device: Any) -> dict[str, Any]:
    """Where the run comes from: code, versions, the `torch.device` it trains on, command, seed, checksums of the data.

    A data module may have `checksums`, the MD5 of each file that it reads by the file's name.
    """
    import torch

    checksums: Any = getattr(data, "checksums", {})
    commit, changes = _git("rev-parse", "HEAD").decode().strip(), _git("status", "--porcelain").decode().splitlines()
    return {
        "git_commit": commit or None,
        "git_dirty": bool(changes) if commit else None,
        "git_untracked": [line[3:] for line in changes if line.startswith("??")],  # of these only code is in the .diff
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "lightning", "hydra-core")},
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.machine()})",
        "threads": torch.get_num_threads(),  # the number of threads changes the last bits of a sum
        "command": sys.argv,
        "seed": written_value(cfg, "seed"),
        "data_md5": dict(checksums) if isinstance(checksums, Mapping) else {},
    }


def diff() -> bytes:
    """What differs from the commit, and the Python and YAML files that git does not know, as new ones."""
    index = _git("rev-parse", "--path-format=absolute", "--git-path", "index").decode().strip()
    with TemporaryDirectory() as folder:
        mine = Path(folder, "index")  # a copy: the user's stays as it is
        if index and Path(index).exists():
            shutil.copyfile(index, mine)
        _git("add", "--intent-to-add", "--", ":/*.py", ":/*.yaml", index=mine)
        return _git("diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", index=mine)


def _git(*args: str, index: Path | None = None) -> bytes:
    """The output of a git command on the project's own checkout; nothing where there is no git or no checkout."""
    command = ["git", "-C", str(Path(__file__).parent), *args]
    env = os.environ | ({"GIT_INDEX_FILE": str(index)} if index else {})
    try:
        return subprocess.run(command, capture_output=True, check=True, env=env).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""
