"""`python -m runlab.results runs/...`: the results of a folder's runs, chosen, sorted and written as is asked."""

import csv
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from runlab.config.arguments import Arguments
from runlab.config.messages import UserError, leaves, suggest
from runlab.config.resolvers import shown
from runlab.runs.files import RECORD, atomic_write
from runlab.sweeps.results import Row, keys_of, read_config, rows
from runlab.sweeps.table import aligned, lines, records


def main(arguments: Sequence[str]) -> None:
    """Print or write the results of the folder that is named; `UserError` where there is none of what is asked for."""
    parser = Arguments(prog="python -m runlab.results", description="The results of the runs in a folder, best first.")
    parser.add_argument("folder", type=Path, help="folder of runs, as runs/default")
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help="only runs with this value")
    parser.add_argument("--sort", metavar="KEY", help="a metric, an override or another value; the smallest first")
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    parser.add_argument("--columns", default="", metavar="A,B", help="what to show of each run")
    parser.add_argument("--csv", metavar="FILE", help="write a table of all columns, or of --columns; - prints it")
    options = parser.parse_args(arguments)
    table, monitor, sign = rows(options.folder) if options.folder.is_dir() else ([], None, 0)
    if not table:
        raise UserError(f"{options.folder}: holds no run; name a folder of runs, as in runs/default")
    wanted = [condition.partition("=") for condition in options.where]
    columns = [name for name in options.columns.split(",") if name]
    for key in [*(key for key, _, _ in wanted), *columns, *filter(None, [options.sort])]:
        check(table, key)
    table = [row for row in table if all(same(cell(row, key), value) for key, _, value in wanted)]
    if options.sort:
        table.sort(key=lambda row: order(cell(row, options.sort)))
    if options.reverse:
        table.reverse()
    if options.sort:
        table.sort(key=lambda row: cell(row, options.sort) is None)  # these come last in any case
    if not table:
        raise UserError(f"--where {' --where '.join(options.where)}: there is no such run")
    cells = [columns, *([text_of(cell(row, key)) for key in columns] for row in table)]
    found = cells if columns else records(options.folder, table)
    if options.csv == "-":
        csv.writer(sys.stdout, lineterminator="\n").writerows(found)
    elif options.csv:
        with atomic_write(Path(options.csv)) as path, path.open("w", newline="") as file:
            csv.writer(file).writerows(found)
    else:
        print("", *(aligned(cells, len(table)) if columns else lines(table, monitor, sign)), sep="\n")


@cache  # read once for all options
def config_of(folder: Path) -> dict[str, Any]:
    return read_config(folder / RECORD)


def cell(row: Row, key: str) -> Any:
    """What a run has by this name: a metric, `status`, `folder`, `message`, an override, or a value of its config."""
    known = row.metrics | {"status": row.status, "folder": str(row.folder), "message": row.message} | row.overrides
    value: Any = known[key] if key in known else config_of(row.folder)
    for part in key.split(".") if key not in known else ():
        value = value.get(part) if isinstance(value, dict) else None
    return None if isinstance(value, dict) else value


def check(table: Sequence[Row], key: str) -> None:
    """`UserError` with the nearest name for one that no run has."""
    if all(cell(row, key) is None for row in table):
        names = [*keys_of(row.overrides for row in table), *keys_of(row.metrics for row in table), "status", "folder"]
        hint = suggest(key, [*names, "or a key of the config"], unlisted=leaves(config_of(table[0].folder)))
        raise UserError(f"{key}: no run has such a value.{hint}")


def number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def same(value: Any, text: str) -> bool:
    return text_of(value) == text or (number(value) is not None and number(value) == number(text))


def order(value: Any) -> tuple[bool, float, str]:
    """Numbers by their size, and after them words."""
    return number(value) is None, number(value) or 0.0, str(value)


def text_of(value: Any) -> str:
    """A value as it is typed; "" for one that a run has not."""
    return "" if value is None else shown(value)
