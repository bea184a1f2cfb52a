"""A run folder's own config and place, and how files get into it. Imports neither torch nor lightning."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from digits.errors import UserError
from digits.startup import quick_imports

RECORD = Path(".hydra/config.yaml")  # where a run folder keeps its composed config

ENDED = "ended.json"  # why a job of a sweep ended without metrics: status, message, traceback

PART = ".part"  # the ending of a file that is being written


def rank_zero() -> bool:
    """Whether this process is the first of a run on several devices, or the only one."""
    return all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))


def processes() -> int:
    """How many processes torchrun or srun has started for this run; 1 where it was neither."""
    started = os.environ.get("WORLD_SIZE" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_STEP_NUM_TASKS", 1)
    return int(started)


def in_sweep() -> bool:
    """Whether this process runs a job of a sweep: Hydra numbers those."""
    return HydraConfig.initialized() and not OmegaConf.is_missing(HydraConfig.get().job, "num")


def quoted(path: str | Path) -> str:
    """A path as Hydra takes it on the command line, whatever its characters; in double quotes, as Lightning does it."""
    return QuotedString(str(path), Quote.double).with_quotes()


def job_folder(overrides: str) -> str:
    """The name of a sweep's job's folder: its overrides, where need be cut and without what a path cannot have.

    Then a hash tells it from others. 255 bytes is what Linux allows.
    """
    name = re.sub(r"^\.|[^\w.,=+~@:%\[\]{}()<>-]", "_", overrides, flags=re.ASCII)[:200]
    return name if name == overrides else f"{name}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)  # conf/train.yaml has it


def expanded(argv: list[str]) -> list[str]:
    """The command line that Hydra is to see: `resume=<run folder>` makes that folder the run's, unless it evaluates."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        os.environ["RUN_START"] = _agreed_start()
    named = {key: value.strip("'\"") for key, _, value in (argument.partition("=") for argument in argv[1:])}
    resume = named.get("resume", "null")
    if resume in ("null", "auto", named.get("hydra.run.dir")):  # Lightning repeats what is expanded for other ranks
        return argv
    if not (Path(resume) / RECORD).is_file():
        raise UserError(f"resume={resume}: no run folder, it has no {RECORD}; name one, as in resume=runs/default/...")
    others = [argument for argument in argv if not argument.startswith("resume=")]
    if named.get("fit", "").lower() == "false":
        return [*others, f"resume={quoted(resume)}"]
    if {"-m", "--multirun", "hydra.run.dir"} & (set(argv) | set(named)):
        raise UserError(f"resume={resume}: goes on with that one run, in its folder; leave out -m and hydra.run.dir")
    return [*others, f"resume={quoted(resume)}", f"hydra.run.dir={quoted(resume)}"]


def _agreed_start() -> str:
    """The time that names the run folder: under torchrun that of the first rank to come here."""
    with quick_imports():
        from torch.distributed import TCPStore  # type: ignore[attr-defined]
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)  # torchrun's own
    return store.compare_set("run_start", "", f"{datetime.now():%Y%m%d-%H%M%S-%f}").decode()


def recorded(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """The config that the run folder `cfg.resume` was made with, and on it the overrides of this command."""
    if cfg.resume in (None, "auto"):
        return cfg
    folder, record = Path(cfg.resume), OmegaConf.load(Path(cfg.resume) / RECORD)
    assert isinstance(record, DictConfig)
    for override in OverridesParser.create().parse_overrides(overrides):
        key, value = override.key_or_group, override.value()
        old = OmegaConf.select(record, key, default=...)
        regrouped = old is not ... and isinstance(old, DictConfig) != isinstance(value, dict)
        if override.is_delete() or regrouped or (old is ... and not override.is_add()):
            raise UserError(f"{override.input_line}: a resumed run keeps its groups; override single values")
        OmegaConf.update(record, key, value, force_add=True)
    record.run_dir, record.resume = cfg.run_dir, "auto"
    if not cfg.fit:
        record.resume, record.ckpt_path = None, str(folder / "checkpoints/best.ckpt")
    return record


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content`, a key a line."""
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
