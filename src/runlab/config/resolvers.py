"""What Hydra is told in its own spelling: paths and null groups on the command line, the names of folders."""

import hashlib
import re
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf

from runlab.config.processes import POSIX


def quoted(path: str | Path) -> str:
    """A path as Hydra takes it on the command line, whatever its characters; in double quotes, as Lightning does it."""
    return QuotedString(str(path), Quote.double).with_quotes()


def job_folder(overrides: str) -> str:
    """The folder name of a sweep's job: its overrides.

    Characters that a path cannot have are replaced, and a long name is cut; then a hash tells it from others. Linux
    allows 255 bytes for a name, Windows 260 characters for a whole path.
    """
    allowed = ":<>" * POSIX + r"\w.,=+~@%\[\]{}()-"
    name = re.sub(rf"^\.|[^{allowed}]", "_", overrides, flags=re.ASCII)[: 200 if POSIX else 100]
    return name if name == overrides else f"{name}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


def without_null_groups(argv: list[str]) -> list[str]:
    """The command line as Hydra has it: `model=null` is written `~model`. Groups that are null anyway are left out."""
    spelt = {f"{group}=null": f"~{group}" for group in ("data", "model", "optimizer", "scheduler", "logger")}
    return [spelt.get(argument, argument) for argument in argv if argument not in ("experiment=null", "sweep=null")]


def project_path(path: str) -> str:
    """A path in the project, wherever the command is typed; where the engine is installed alone, in this folder."""
    project = Path(__file__).parents[3]
    return str(project / path) if (project / "conf").is_dir() else path


OmegaConf.register_new_resolver("project_path", project_path, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)  # conf/train.yaml has it
