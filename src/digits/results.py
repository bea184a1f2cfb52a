"""What the runs in a folder came to: a row a run, `results.csv`, mean ± standard deviation. Imports no torch."""

import csv
import json
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from digits.errors import UserError
from digits.folder import ENDED, RECORD, replaced

REPEATS = ("seed", "data.fold")  # over these a setting is repeated: its mean ± standard deviation is shown
SHOWN = 20  # rows that are printed, at most; results.csv has all
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
    overrides = (folder / RECORD).with_stem("overrides")
    words = yaml.load(overrides.read_bytes(), Loader) if overrides.exists() else []
    row = Row(folder, {key: value for key, _, value in (str(word).partition("=") for word in words)})
    if (folder / "metrics.json").exists():
        row.status, row.metrics = "finished", json.loads((folder / "metrics.json").read_text())
    elif (folder / ENDED).exists():
        ended = json.loads((folder / ENDED).read_text())
        row.status, row.message = ended["status"], ended["message"].splitlines()[0]
    return row


def rows(folder: Path) -> tuple[list[Row], str | None]:
    """The runs in `folder`, the best first by the metric that the first of them monitors, and that metric's name."""
    table = [read(run) for run in run_folders(folder)]
    configs = [folder / "multirun.yaml", *(row.folder / RECORD for row in table)]
    config: Any = next((yaml.load(path.read_bytes(), Loader) for path in configs if path.exists()), {})
    monitor, sign = config.get("monitor"), -1 if config.get("mode") == "max" else 1

    def place(row: Row) -> tuple[bool, str, float]:
        value = row.metrics.get(str(monitor))
        return row.status != "finished", row.status, sign * value if value is not None else 0

    return sorted(table, key=place), monitor


def write_csv(folder: Path, table: Sequence[Row]) -> Path:
    """`results.csv`: a row a run, with its overrides, a column each, metrics, status, seconds, folder and message."""
    keys = _keys(row.overrides for row in table)
    names = [name for name in _keys(row.metrics for row in table) if "/" in name]
    with replaced(folder / "results.csv") as path, path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*keys, *names, "status", "seconds", "folder", "message"])
        for row in table:
            values = [*(row.overrides.get(key) for key in keys), *(row.metrics.get(name) for name in names)]
            place = os.path.relpath(row.folder, folder)
            writer.writerow([*values, row.status, row.metrics.get("seconds"), place, row.message])
    return folder / "results.csv"


def lines(table: Sequence[Row], monitor: str | None) -> Iterator[str]:
    """The results as they are printed."""
    names = list(dict.fromkeys([name for name in (monitor, "test/acc") if name]))
    values = {key: {row.overrides.get(key) for row in table} for key in _keys(row.overrides for row in table)}
    keys = [key for key, different in values.items() if len(different) > 1]
    cells = [[*names, "status", "seconds", *keys, ""]]
    for row in table[:SHOWN]:
        scores = [f"{row.metrics[name]:.4f}" if name in row.metrics else "" for name in names]
        seconds = f"{row.metrics['seconds']:.1f}" if row.metrics else ""
        cells.append([*scores, row.status, seconds, *(row.overrides.get(key, "") for key in keys), row.message])
    yield from _aligned(cells)
    if len(table) > SHOWN:
        yield f"... and {len(table) - SHOWN:,} more"
    repeats = [key for key in REPEATS if key in keys]
    groups: dict[tuple[str, ...], list[Row]] = {}
    others = [key for key in keys if key not in repeats]
    for row in table:
        if row.status == "finished":
            groups.setdefault(tuple(row.overrides.get(key, "") for key in others), []).append(row)
    if repeats and any(len(group) > 1 for group in groups.values()):
        yield f"\nmean ± standard deviation over {' and '.join(repeats)}"
        cells = [[*names, "n", *others]]
        for group, members in list(groups.items())[:SHOWN]:
            scores = [_mean([row.metrics[name] for row in members if name in row.metrics]) for name in names]
            cells.append([*scores, str(len(members)), *group])
        yield from _aligned(cells)


def show(folder: Path) -> list[Row]:
    """Print the results of the runs in `folder`, and return them; nothing where there are none."""
    table, monitor = rows(folder)
    if table:
        print("", *lines(table, monitor), sep="\n", flush=True)
    return table


def main(arguments: Sequence[str]) -> None:
    """Print the results of the folder that is named; `UserError` where there is none."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise UserError(f"{' '.join(arguments) or 'no folder'}: name one folder of runs, as in runs/default")
    if not show(Path(arguments[0])):
        raise UserError(f"{arguments[0]}: holds no run")


def _keys(mappings: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else ""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def _aligned(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
