"""What the run folders below a folder hold, read without torch; a damaged file does not hide the other runs."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

import yaml

from runlab.config.messages import UserError
from runlab.runs.files import ENDED, METRICS, NOT_METRICS, RECORD, read_json, read_metrics

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML has its C part


@dataclass
class Row:
    """A run. `metrics` are what `metrics.json` holds; `status` says how it ended.

    It is finished, failed, diverged, pruned, unfinished, or damaged: one of its files cannot be read.
    """

    folder: Path
    overrides: dict[str, str]
    metrics: dict[str, Any] = field(default_factory=dict)
    status: str = "unfinished"  # killed, stopped, or still running
    message: str = ""


def run_folders(folder: Path) -> Iterator[Path]:
    """The run folders in `folder`, by name; itself if it is one. What begins with a dot is not looked into."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:  # it must not hide the other runs
        print(f"{folder}: {error.strerror}; passed over", file=sys.stderr)
        return
    if ".hydra" in names:
        yield folder
        return
    for name in names:
        if not name.startswith("."):
            yield from run_folders(folder / name)


def read(folder: Path) -> Row:
    row, overrides = Row(folder, {}), (folder / RECORD).with_stem("overrides")
    try:
        if overrides.exists():
            row.overrides = dict(map(_override, _words(overrides)))
            row.overrides.pop("rerun", None)  # says nothing about the run itself
        if (folder / METRICS).exists():
            row.metrics, row.status = read_metrics(folder), "finished"
        elif (folder / ENDED).exists():
            ended = read_json(folder / ENDED, "run the job again")
            row.status, row.message = str(ended.get("status")), str(ended.get("message")).partition("\n")[0]
    except (UserError, OSError) as error:  # it must not hide the other runs
        row.status, row.message = "damaged", str(error).removeprefix(f"{folder}/")
    return row


def _words(path: Path) -> list[str]:
    """The overrides in a file; `UserError` where it is damaged."""
    try:
        text = path.read_bytes().decode()
        words = yaml.load(text, Loader) if text.endswith(("\n", "]")) else None  # else it is cut
    except (OSError, ValueError, yaml.YAMLError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(f"{path}: damaged; restore it, or run the job anew in another folder")
    return words


def rows(folder: Path) -> tuple[list[Row], str | None, int]:
    """The runs in `folder`, best first, the monitored metric, and 1 if less of it is better, -1 if more is.

    The metric is the one that the sweep, or else the first run, monitors. Where that is none it is None and 0, and the
    order is that of the folders.
    """
    table = [read(run) for run in run_folders(folder)]
    configs = (read_config(path) for path in [folder / "multirun.yaml", *(row.folder / RECORD for row in table)])
    config: dict[str, Any] = next(filter(None, configs), {})
    monitor, sign = config.get("monitor"), -1 if config.get("mode") == "max" else 1
    name, sign = (str(monitor), sign) if monitor else (None, 0)
    table.sort(key=lambda row: (row.status != "finished", row.status, place(row.metrics.get(name or ""), sign)))
    return table, name, sign


def read_config(path: Path) -> dict[str, Any]:
    """A recorded config; an empty one where it is missing or damaged, as one without a mode is."""
    try:
        config = yaml.load(path.read_bytes(), Loader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) and {"monitor", "mode"} <= config.keys() else {}


def main_metrics(metrics: Sequence[dict[str, Any]], monitor: str | None) -> list[str]:
    """The metrics that a line shows of runs that have `metrics`: the monitored one and its counterpart of the test.

    The counterpart of `val/f1` or `val_loss` is `test/f1` or `test_loss`; without it all test metrics are shown.
    Without a monitor these and all validation metrics are.
    """
    known = [name for name in keys_of(metrics) if name not in NOT_METRICS]
    tested = [name for name in known if name.startswith("test")]
    if monitor is None:
        return [name for name in known if name.startswith("val")] + tested
    counterpart = "test" + monitor.removeprefix("val")
    shown = [monitor, *([counterpart] if counterpart in known else tested)]
    return [name for name in dict.fromkeys(shown) if name in known]


def _override(word: str) -> tuple[str, str]:
    """`+key=1` and `++key=1` are of one key with `key=1`; the value of `~key` is ~."""
    key, _, value = word.partition("=")
    return key.lstrip("+~"), "~" if key.startswith("~") else value


def place(value: float | None, sign: int) -> tuple[bool, float]:
    """By this values are sorted, the best first; NaN and what is missing come last."""
    if value is None or isnan(value):
        return True, 0
    return False, sign * value if sign else 0


def keys_of(mappings: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))
