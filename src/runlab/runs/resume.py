"""What `resume=` means: on the command line before Hydra sees it, and for the config of the resumed run."""

import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from runlab.config.messages import UserError, suggest
from runlab.config.resolvers import GROUPS, as_typed, quoted
from runlab.config.startup import fast_imports
from runlab.runs.files import RECORD, read_metrics
from runlab.runs.record import read_record

_typed_plain: set[str] = set()  # the keys that `expand_resume` has given a ++


def expand_resume(argv: list[str]) -> list[str]:
    """The command line for Hydra: `resume=<run folder>` also makes that folder the run's, unless it only evaluates."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        os.environ["RUN_START"] = _agreed_start()
    named = {key: value.strip("'\"") for key, _, value in (argument.partition("=") for argument in argv[1:])}
    resume = named.get("resume", "null")
    if resume in ("null", "auto", named.get("hydra.run.dir")):  # other ranks get the command that is expanded already
        return argv
    if not (Path(resume) / RECORD).is_file():
        raise UserError(f"resume={resume}: no run folder, it has no {RECORD}; name one, as in resume=runs/default/...")
    resume = str(Path(resume).absolute())  # also after hydra.job.chdir=true
    others = [_forced(argument) for argument in argv if not argument.startswith("resume=")]
    if named.get("fit", "").lower() == "false":
        return [*others, f"resume={quoted(resume)}"]
    if {"-m", "--multirun", "hydra.run.dir"} & (set(argv) | set(named)):
        raise UserError(f"resume={resume}: resumes that one run, in its folder; leave out -m and hydra.run.dir")
    return [*others, f"resume={quoted(resume)}", f"hydra.run.dir={quoted(resume)}"]


def _forced(argument: str) -> str:
    """`++key=value`, a key that Hydra does not look for in the default config: the run to resume has its own config."""
    key, equals, _ = argument.partition("=")
    if equals and key.lstrip("+") in (*GROUPS, "experiment", "sweep"):
        raise UserError(
            f"{argument}: a resumed run keeps its groups; override single values, as in trainer.max_epochs=9"
        )
    if not (equals and re.match(r"[a-zA-Z_]", key)) or key.split(".")[0].split("/")[0] in ("hydra", "fit"):
        return argument
    _typed_plain.add(key)
    return f"++{argument}"


def _agreed_start() -> str:
    """The time that names the run folder: under torchrun that of the first rank to come here."""
    with fast_imports():
        from torch.distributed import TCPStore  # type: ignore[attr-defined]
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)  # torchrun's own
    return store.compare_set("run_start", "", f"{datetime.now():%Y%m%d-%H%M%S-%f}").decode()


def with_record(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """The config that the run folder `cfg.resume` was made with, and on it the overrides of this command."""
    if cfg.resume in (None, "auto"):
        return cfg
    folder, record = Path(cfg.resume), read_record(Path(cfg.resume))
    for override in OverridesParser.create().parse_overrides(as_typed(overrides)):
        key, value = override.key_or_group, override.value()
        typed = str(override.input_line).removeprefix("++" if key in _typed_plain else "")
        old = OmegaConf.select(record, key, default=...)
        if old is ... and (key in _typed_plain or not (override.is_add() or override.is_force_add())):
            parent, _, name = key.rpartition(".")
            siblings = OmegaConf.select(record, parent) if parent else record
            hint = suggest(name, siblings) if isinstance(siblings, DictConfig) else ""
            raise UserError(f"{typed}: the run to resume has no such option.{hint} To add it: +{typed}")
        if override.is_delete() or (old is not ... and isinstance(old, DictConfig) != isinstance(value, dict)):
            raise UserError(f"{typed}: a resumed run keeps its groups; override single values")
        OmegaConf.update(record, key, value, force_add=True)
    record.run_dir, record.resume = cfg.run_dir, "auto"
    if not cfg.fit:
        record.resume, record.ckpt_path = None, cfg.ckpt_path or str(_tested_path(folder))
    return record


def _tested_path(folder: Path) -> Path:
    """The checkpoint that a finished run has tested; the best one so far of another."""
    with suppress(UserError):  # not finished, or its metrics.json is damaged
        if name := read_metrics(folder)["best_checkpoint"]:
            return folder / name
    return folder / "checkpoints/best.ckpt"
