"""What the run folders below a folder hold, read without torch; a damaged file does not hide the other runs."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

import yaml

from runlab.runs.files import ENDED, METRICS, RECORD

NOT_METRICS = ("epoch", "global_step", "seconds", "best_checkpoint")  # what else metrics.json holds
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML has its C part


@dataclass
class Row:
    """A run. `metrics` are what `metrics.json` holds; `status` is finished, failed, diverged, pruned or unfinished."""

    folder: Path
    overrides: dict[str, str]
    metrics: dict[str, Any] = field(default_factory=dict)
    status: str = "unfinished"  # killed, stopped, or still running
    message: str = ""


def run_folders(folder: Path) -> Iterator[Path]:
    """The run folders in `folder`, by name; itself if it is one. What begins with a dot is not looked into."""
    if (folder / ".hydra").is_dir():
        yield folder
        return
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    for name in names:
        yield from run_folders(folder / name)


def read(folder: Path) -> Row:
    row, overrides = Row(folder, {}), (folder / RECORD).with_stem("overrides")
    try:
        words = yaml.load(overrides.read_bytes(), Loader) if overrides.exists() else []
        row.overrides = dict(_override(str(word)) for word in words or [])
        row.overrides.pop("rerun", None)  # says nothing about the run itself
        if (folder / METRICS).exists():
            row.metrics = _checked(json.loads((folder / METRICS).read_text()))
            row.status = "finished"
        elif (folder / ENDED).exists():
            ended = json.loads((folder / ENDED).read_text())
            row.status, row.message = ended["status"], ended["message"].partition("\n")[0]
    except (ValueError, TypeError, LookupError, OSError, yaml.YAMLError) as error:  # it must not hide the other runs
        row.message = f"a damaged file: {str(error).splitlines()[0]}"
    return row


def rows(folder: Path) -> tuple[list[Row], str | None, int]:
    """The runs in `folder`, best first, the monitored metric, and 1 if less of it is better, -1 if more is.

    The metric is the one that the sweep, or else the first run, monitors. Where that is none it is None and 0, and the
    order is that of the folders.
    """
    table = [read(run) for run in run_folders(folder)]
    configs = (_config(path) for path in [folder / "multirun.yaml", *(row.folder / RECORD for row in table)])
    config = next(filter(None, configs), {})
    monitor, sign = config.get("monitor"), -1 if config.get("mode") == "max" else 1
    name, sign = (str(monitor), sign) if monitor else (None, 0)
    table.sort(key=lambda row: (row.status != "finished", row.status, place(row.metrics.get(name or ""), sign)))
    return table, name, sign


def _config(path: Path) -> dict[str, Any]:
    """A recorded config; an empty one where it is missing or damaged."""
    try:
        config = yaml.load(path.read_bytes(), Loader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


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


def _checked(metrics: Any) -> dict[str, Any]:
    """What `metrics.json` holds; `ValueError` where it is no mapping of names to numbers."""
    if not isinstance(metrics, dict):
        raise ValueError(f"{METRICS} holds no metrics")
    for name, value in metrics.items():
        if name != "best_checkpoint" and type(value) not in (int, float):
            raise ValueError(f"{METRICS} has no number for {name}")
    return metrics
