"""The command line between user and Hydra: values as they are typed, groups that are null, paths, folder names."""

import hashlib
import os
import re
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

import runlab.config.secrets  # noqa: F401  # registers its own oc.env
from runlab.config.messages import UserError
from runlab.config.processes import POSIX

PROJECT = Path(__file__).resolve().parents[3]

# The groups of conf/ whose values are set one by one.
GROUPS = ("task", "data", "trainer", "callbacks", "logger", "model", "optimizer", "scheduler")


# Hydra's own options that take a value.
WITH_VALUE = ("--cfg=", "--config-", "--package=", "--info=", "--experimental-rerun=")
BEFORE_VALUE = {"-c", "-p", "-i", "-cp", "-cn", "-cd", "--config-path", "--config-name", "--config-dir"}
BEFORE_VALUE |= {"--cfg", "--package", "--info", "--experimental-rerun"}  # where the value is the next word


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


def shown(value: Any) -> str:
    """A value as it is typed."""
    return "null" if value is None else str(value).lower() if type(value) is bool else str(value)


def score(value: float, size: float | None = None) -> str:
    """A metric in four decimals; where it, or one of this `size` beside it, is too small or large, in four figures."""
    size = abs(value if size is None else size)
    return f"{value:.4f}" if size == 0 or 1e-3 <= size < 1e6 else f"{value:.4g}"


def as_typed(overrides: Any) -> list[str]:
    """Overrides without the values in place of what they refer to."""
    words: Any = OmegaConf.to_container(overrides, resolve=False) if OmegaConf.is_config(overrides) else overrides
    return list(words)


def _typed_job_folder(_root_: Any) -> str:
    """`${job_folder:}`, with what comes from the environment as it is typed."""
    job: Any = OmegaConf.to_container(_root_.hydra.job, resolve=False)
    return job_folder(job["override_dirname"])


def flags_first(argv: list[str]) -> list[str]:
    """The command line with `-m` before its overrides: behind one argparse would take no other.

    `UserError` for an override with dashes.
    """
    for word in argv[1:]:
        if re.match(r"--[\w.]+=", word) and not word.startswith(WITH_VALUE):
            raise UserError(f"{word}: an override has no dashes, {word.lstrip('-')}")
    flags = [word for word in argv if word in ("-m", "--multirun")]
    return [*argv[:1], *flags, *(word for word in argv[1:] if word not in flags)]


def as_texts(argv: list[str]) -> list[str]:
    """The command line with quotes around what is a text only in quotes to Hydra, as `ckpt_path=runs/lr=0.1/last.ckpt`.

    `UserError` for a word that is no override with quotes either.
    """
    parser = OverridesParser.create()

    def is_read(word: str) -> bool:
        try:
            read = parser.parse_override(word)
        except HydraException:
            return False
        is_one = not (read.is_delete() or read.is_sweep_override())
        if (
            is_one
            and read.key_or_group in (*GROUPS, "experiment", "sweep")
            and not isinstance(read.value(), str | list)
        ):
            raise UserError(f"{word}: a group takes the name of one of its files; --help lists them")
        return True

    words = argv[:1]
    for before, word in pairwise(argv):
        key, equals, value = word.partition("=")
        if word.startswith("-") or before in BEFORE_VALUE or (key and is_read(word)):
            words.append(word)
            continue
        text = f"{key}={quoted(value)}"
        if not (key and equals and is_read(text)):
            raise UserError(f"{word}: no override; write key=value, as in optimizer.lr=0.01")
        if value[0] in "[{('\"":
            raise UserError(f"{word}: a bracket or a quote in it has no other end")
        words.append(text)
    return words


def without_null_groups(argv: list[str]) -> list[str]:
    """The command line as Hydra has it: `model=null` is written `~model`. Groups that are null anyway are left out."""
    spelt = {f"{group}=null": f"~{group}" for group in ("data", "model", "optimizer", "scheduler")}
    spelt["logger=null"] = "logger=none"
    return [spelt.get(argument, argument) for argument in argv if argument not in ("experiment=null", "sweep=null")]


def for_each_choice(argv: list[str]) -> list[str]:
    """The command line of a sweep over choices, `model=mlp,lenet model.dropout=0.2`, as Hydra has it.

    `model.dropout=choice(0.2)` is looked for in each job's own choice, and not also in the default one.
    """
    parser = OverridesParser.create()

    def sweeps(word: str) -> bool:
        with suppress(HydraException):  # which Hydra will answer
            return bool(parser.parse_override(word).is_sweep_override())
        return True

    chosen = {word: word.partition("=")[0] for word in argv if re.match(r"\w+=.*[,(]", word)}
    swept = {group for word, group in chosen.items() if group in (*GROUPS, "experiment") and sweeps(word)}
    groups = GROUPS if swept & {"task", "experiment"} else swept
    values = re.compile(rf"\+*({'|'.join(groups)})\.[^=]+=.")
    alone = {word for word in argv if groups and values.match(word) and not sweeps(word)}
    return [re.sub("=(.*)", r"=choice(\1)", word, count=1) if word in alone else word for word in argv]


def project_path(path: str) -> str:
    """A path in the project, wherever the command is typed; where the engine is installed alone, in this folder."""
    return str(PROJECT / path) if (PROJECT / "conf").is_dir() else path


def typed_path(path: str | Path) -> Path:
    """A path from where the command was typed, which `hydra.job.chdir=true` leaves."""
    return Path(HydraConfig.get().runtime.cwd if HydraConfig.initialized() else "", path).absolute()


def path_as_typed(path: str | Path) -> str:
    """A path as it is typed there."""
    return os.path.relpath(path, typed_path(""))


OmegaConf.register_new_resolver("project_path", project_path, replace=True)
OmegaConf.register_new_resolver("job_folder", _typed_job_folder, replace=True)  # conf/train.yaml has it
