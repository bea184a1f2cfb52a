"""The table of a folder's runs: printed, and as `results.csv`, with mean ± standard deviation. Imports no torch."""

import csv
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

from runlab.config.resolvers import score
from runlab.runs.files import NOT_METRICS, atomic_write
from runlab.sweeps.results import Row, keys_of, main_metrics, place, rows

REPEATS = ("seed", "data.fold")  # over these a setting is repeated: its mean ± standard deviation is shown
SHOWN, WIDE = 20, 40  # rows, and characters of an override, that are printed at most; results.csv has all


def write_csv(folder: Path, table: Sequence[Row]) -> Path:
    """`results.csv`: a row a run, with its overrides, a column each, metrics, status, seconds, folder and message."""
    with atomic_write(folder / "results.csv") as path, path.open("w", newline="") as file:
        csv.writer(file).writerows(records(folder, table))
    return folder / "results.csv"


def records(folder: Path, table: Sequence[Row]) -> Iterator[list[Any]]:
    """The header of `results.csv`, and its rows."""
    keys = keys_of(row.overrides for row in table)
    names = [name for name in keys_of(row.metrics for row in table) if name not in NOT_METRICS]
    yield [*keys, *names, "status", "seconds", "folder", "message"]
    for row in table:
        values = [*(row.overrides.get(key) for key in keys), *(row.metrics.get(name) for name in names)]
        yield [*values, row.status, row.metrics.get("seconds"), os.path.relpath(row.folder, folder), row.message]


def lines(table: Sequence[Row], monitor: str | None, sign: int) -> Iterator[str]:
    """The results as they are printed; the arguments are what `rows` returns."""
    names = main_metrics([row.metrics for row in table], monitor)
    keys = keys_of(row.overrides for row in table)
    keys = [key for key in keys if len({row.overrides.get(key, "") for row in table}) > 1]
    alike = len({_setting(row, keys) for row in table}) < len(table)  # then the folder says which is which
    cells = [[*names, "status", "seconds", *keys, *["folder"] * alike, ""]]
    for row in table[:SHOWN]:
        scores = [score(row.metrics[name]) if name in row.metrics else "" for name in names]
        where = [os.path.relpath(row.folder)] * alike
        seconds = f"{row.metrics['seconds']:.1f}" if "seconds" in row.metrics else ""
        cells.append([*scores, row.status, seconds, *map(_short, _setting(row, keys)), *where, row.message])
    yield from aligned(cells, len(table))

    repeats = [key for key in REPEATS if key in keys]
    others = [key for key in keys if key not in repeats]
    groups: dict[tuple[str, ...], dict[tuple[str, ...], Row]] = {}
    asked: dict[tuple[str, ...], set[tuple[str, ...]]] = {}  # also what has not finished
    for row in sorted(table, key=lambda row: row.folder):  # of two runs of one setting and seed the later one counts
        asked.setdefault(_setting(row, others), set()).add(_setting(row, repeats))
        if row.status == "finished":
            groups.setdefault(_setting(row, others), {})[_setting(row, repeats)] = row
    if not repeats or all(len(group) == 1 for group in groups.values()):
        return
    yield f"\nmean ± standard deviation over {' and '.join(repeats)}"
    means = []
    for setting, group in groups.items():
        values = [[row.metrics[name] for row in group.values() if name in row.metrics] for name in names]
        rank = place(sum(values[0]) / len(values[0]) if values and values[0] else None, sign)
        whole, wanted = group.keys() == asked[setting], len(asked[setting])
        count = str(wanted) if whole else f"{len(group)} of {wanted}, incomplete"
        means.append((rank, [*map(_mean, values), count, *map(_short, setting)]))
    means.sort(key=lambda mean: mean[0])
    yield from aligned([[*names, "n", *others], *(cells for _, cells in means[:SHOWN])], len(means))


def show(folder: Path) -> list[Row]:
    """Print the results of the runs in `folder`, and return them; nothing where there are none."""
    table, name, sign = rows(folder)
    if table:
        print("", *lines(table, name, sign), sep="\n", flush=True)
    return table


def _setting(row: Row, keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(row.overrides.get(key, "") for key in keys)


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(map(score, values))
    deviation = statistics.stdev(values) if all(map(isfinite, values)) else nan
    mean = sum(values) / len(values)
    return f"{score(mean)} ± {score(deviation, mean)}"


def _short(word: str) -> str:
    return word if len(word) <= WIDE else word[: WIDE - 3] + "..."


def aligned(cells: Sequence[Sequence[str]], total: int) -> Iterator[str]:
    """A header and rows, in columns; and how many more of `total` rows there are."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    if total >= len(cells):
        yield f"... and {total - len(cells) + 1:,} more"
