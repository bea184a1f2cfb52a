"""What the runs in a folder came to: a row a run, `results.csv`, mean ± standard deviation. Imports no torch."""

import csv
import json
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

import yaml

from digits.errors import UserError
from digits.folder import ENDED, RECORD, replaced

REPEATS = ("seed", "data.fold")  # over these a setting is repeated: its mean ± standard deviation is shown
SHOWN, WIDE = 20, 40  # rows, and characters of an override, that are printed at most; results.csv has all
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
        if (folder / "metrics.json").exists():
            row.metrics = json.loads((folder / "metrics.json").read_text())
            row.status = "finished"
        elif (folder / ENDED).exists():
            ended = json.loads((folder / ENDED).read_text())
            row.status, row.message = ended["status"], ended["message"].partition("\n")[0]
    except (ValueError, yaml.YAMLError) as error:  # one damaged file must not hide the other runs
        row.message = f"a damaged file: {str(error).splitlines()[0]}"
    return row


def rows(folder: Path) -> tuple[list[Row], str, int]:
    """The runs in `folder`, best first, and by what: the name of a metric, and 1 if less is better, -1 if more is.

    It is what the sweep, or else the first run, monitors. Where that is nothing it is val/acc, which cross-validation
    is about, and 0: the order is that of the folders.
    """
    table = [read(run) for run in run_folders(folder)]
    configs = [folder / "multirun.yaml", *(row.folder / RECORD for row in table)]
    config: Any = next((yaml.load(path.read_bytes(), Loader) for path in configs if path.exists()), {})
    monitor, sign = config.get("monitor"), -1 if config.get("mode") == "max" else 1
    name, sign = (monitor, sign) if monitor else ("val/acc", 0)
    table.sort(key=lambda row: (row.status != "finished", row.status, _place(row.metrics.get(name), sign)))
    return table, name, sign


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


def lines(table: Sequence[Row], name: str, sign: int) -> Iterator[str]:
    """The results as they are printed; the arguments are what `rows` returns."""
    names = [name for name in dict.fromkeys((name, "test/acc")) if any(name in row.metrics for row in table)]
    keys = _keys(row.overrides for row in table)
    keys = [key for key in keys if len({row.overrides.get(key, "") for row in table}) > 1]
    alike = len({_setting(row, keys) for row in table}) < len(table)  # then the folder says which is which
    cells = [[*names, "status", "seconds", *keys, *["folder"] * alike, ""]]
    for row in table[:SHOWN]:
        scores = [_number(row.metrics.get(name), 4) for name in names]
        place = [os.path.relpath(row.folder)] * alike
        seconds = _number(row.metrics.get("seconds"), 1)
        cells.append([*scores, row.status, seconds, *map(_short, _setting(row, keys)), *place, row.message])
    yield from _aligned(cells, len(table))

    repeats = [key for key in REPEATS if key in keys]
    others = [key for key in keys if key not in repeats]
    groups: dict[tuple[str, ...], dict[tuple[str, ...], Row]] = {}
    for row in sorted(table, key=lambda row: row.folder):  # of two runs of one setting and seed the later counts
        if row.status == "finished":
            groups.setdefault(_setting(row, others), {})[_setting(row, repeats)] = row
    if not repeats or all(len(group) == 1 for group in groups.values()):
        return
    yield f"\nmean ± standard deviation over {' and '.join(repeats)}"
    means = []
    for setting, group in groups.items():
        values = [[row.metrics[name] for row in group.values() if name in row.metrics] for name in names]
        rank = _place(sum(values[0]) / len(values[0]) if values[0] else None, sign)
        means.append((rank, [*map(_mean, values), str(len(group)), *map(_short, setting)]))
    means.sort(key=lambda mean: mean[0])
    yield from _aligned([[*names, "n", *others], *(cells for _, cells in means[:SHOWN])], len(means))


def show(folder: Path) -> list[Row]:
    """Print the results of the runs in `folder`, and return them; nothing where there are none."""
    table, name, sign = rows(folder)
    if table:
        print("", *lines(table, name, sign), sep="\n", flush=True)
    return table


def main(arguments: Sequence[str]) -> None:
    """Print the results of the folder that is named; `UserError` where there is none."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise UserError(f"{' '.join(arguments) or 'no folder'}: name one folder of runs, as in runs/default")
    if not show(Path(arguments[0])):
        raise UserError(f"{arguments[0]}: holds no run")


def _keys(mappings: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _override(word: str) -> tuple[str, str]:
    """`+key=1` and `++key=1` are of one key with `key=1`; the value of `~key` is ~."""
    key, _, value = word.partition("=")
    return key.lstrip("+~"), "~" if key.startswith("~") else value


def _setting(row: Row, keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(row.overrides.get(key, "") for key in keys)


def _place(value: float | None, sign: int) -> tuple[bool, float]:
    """By this values are sorted, the best first; NaN and what is missing come last."""
    if value is None or isnan(value):
        return True, 0
    return False, sign * value if sign else 0


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.4f}" for value in values)
    deviation = statistics.stdev(values) if all(map(isfinite, values)) else nan
    return f"{sum(values) / len(values):.4f} ± {deviation:.4f}"


def _short(word: str) -> str:
    return word if len(word) <= WIDE else word[: WIDE - 3] + "..."


def _aligned(cells: Sequence[Sequence[str]], total: int) -> Iterator[str]:
    """A header and rows, in columns; and how many more of `total` rows there are."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    if total >= len(cells):
        yield f"... and {total - len(cells) + 1:,} more"
