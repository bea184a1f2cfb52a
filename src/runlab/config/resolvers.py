"""The resolvers that `conf/` uses, and paths as Hydra takes them on the command line."""

import hashlib
import re
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf


def quoted(path: str | Path) -> str:
    """A path as Hydra takes it on the command line, whatever its characters; in double quotes, as Lightning does it."""
    return QuotedString(str(path), Quote.double).with_quotes()


def job_folder(overrides: str) -> str:
    """The folder name of a sweep's job: its overrides.

    Characters that a path cannot have are replaced, and a long name is cut; then a hash tells it from others. Linux
    allows 255 bytes.
    """
    name = re.sub(r"^\.|[^\w.,=+~@:%\[\]{}()<>-]", "_", overrides, flags=re.ASCII)[:200]
    return name if name == overrides else f"{name}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)  # conf/train.yaml has it
