"""Measures the project against what it could be, side by side: `python benchmarks/bench.py [a b c d e f g h]`.

Prints one table, writes results.json and the tables of benchmarks/README.md, README.md and docs/scale.md, and says what
got worse.
"""

import importlib
import json
import platform
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, Row, replace_between

SECTIONS = {"a": "whole", "b": "steps", "c": "loading", "d": "answers", "e": "growth", "f": "shares"}
SECTIONS |= {"g": "sweeping", "h": "many"}
SCALE = ("g", "h")  # the sections of docs/scale.md
ON_GPU = ("a", "b")  # once more where there is a GPU, as "a gpu" and "b gpu"
EVERY = [*SECTIONS, *(f"{name} gpu" for name in ON_GPU)]
RESULTS = ROOT / "benchmarks/results.json"
WORSE = 1.2  # how far a ratio may move between two measurements before it is named
SUMMARY = (  # the rows of the project's README, by how they begin
    "whole process",
    "optimizer step, batch 256: against a plain",
    "loader and transform, batch 256",
    "epoch of 960,000",
    "peak memory",
    "8 jobs of one epoch: one multirun against",
    "8 jobs of the notebook's",
)
HEAD = "| what | ratio: median (smallest to largest) | n | ours / other | target |\n|---|---|---|---|---|"


def about(device: str) -> str:
    """What a section was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")] or [platform.machine()]
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "lightning", "torchvision"))
    gpu = f"{torch.cuda.get_device_name()}, " if device == "cuda" else ""
    python = platform.python_version()
    return f"{gpu}{len(names)} cores of {names[0]}, python {python}, {packages}, {date.today().isoformat()}"


def number(value: float) -> str:
    """Three significant digits: 0.0123, 1.23, 123, 123,000."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def line(row: Row) -> str:
    """A row of the table."""
    more, limit, ratio = row["more_is_better"], row["target"], row["ratio"]
    met = limit is not None and (ratio >= limit if more else ratio <= limit)
    target = "" if limit is None else f"{'≥' if more else '≤'} {limit:g}, {'met' if met else '**missed**'}"
    spread = f"{number(row['smallest'])} to {number(row['largest'])}"
    sides = f"{number(row['ours'])} / {number(row['other'])} {row['unit']}"
    return f"| {row['what']} | {number(ratio)} ({spread}) | {row['n']} | {sides} | {target} |"


def rows(results: dict[str, Any], sections: Sequence[str]) -> str:
    """The table of the sections' rows, in Markdown, and what they were measured on."""
    lines = []
    for section in sections:
        on = " on a GPU" * section.endswith("gpu")
        found = results.get(section, {"rows": []})["rows"]
        lines += [line(row | {"what": row["what"] + on}) for row in found]
        lines += [] if found else [f"| section {section}: not measured | | | | |"]
    machines: dict[str, list[str]] = {}
    for section in filter(results.__contains__, sections):
        machines.setdefault(results[section]["about"], []).append(section)
    where = [f"- {', '.join(names)}: {about}." for about, names in machines.items()]
    return "\n".join([HEAD, *lines, "", "Measured on, section by section:", "", *where])


def summary(results: dict[str, Any]) -> str:
    """The rows that a user cares about."""
    found = [row for section in SECTIONS for row in results.get(section, {"rows": []})["rows"]]
    return "\n".join([HEAD, *(line(row) for row in found if row["what"].startswith(SUMMARY))])


def worse(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The rows whose ratio moved by more than 20 % in the direction that is worse for them."""
    before = {row["what"]: row["ratio"] for section in new for row in old.get(section, {"rows": []})["rows"]}
    found = []
    for row in (row for section in new.values() for row in section["rows"] if row["what"] in before):
        was, now = before[row["what"]], row["ratio"]
        if (was / now if row["more_is_better"] else now / was) > WORSE:
            found.append(f"worse: {row['what']}: {number(was)} before, {number(now)} now")
    return found


def a_row_a_line(results: dict[str, Any]) -> str:
    """The results as JSON."""
    sections = []
    for name, section in results.items():
        lines = ",\n".join(map(json.dumps, section["rows"]))
        sections.append(f'"{name}": {{"about": {json.dumps(section["about"])}, "rows": [\n{lines}\n]}}')
    return "{" + ",\n".join(sections) + "}\n"


def main(names: list[str]) -> None:
    if unknown := set(names) - set(SECTIONS):
        sys.exit(f"{' '.join(sorted(unknown))}: no such section; choose from {' '.join(SECTIONS)}")
    old: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    new: dict[str, Any] = {}
    for name in names or SECTIONS:
        for device in ("cpu", "cuda") if name in ON_GPU and torch.cuda.is_available() else ("cpu",):
            key = f"{name} gpu" if device == "cuda" else name
            print(f"section {key} ...", file=sys.stderr, flush=True)
            section = importlib.import_module(SECTIONS[name])  # here: one that is not asked for need not import
            new[key] = {"about": about(device), "rows": section.rows(device)}
    results = {key: (old | new)[key] for key in EVERY if key in old | new}
    RESULTS.write_text(a_row_a_line(results))
    replace_between(ROOT / "benchmarks/README.md", "bench", rows(results, EVERY))
    replace_between(ROOT / "README.md", "bench", summary(results))
    replace_between(ROOT / "docs/scale.md", "bench", rows(results, SCALE))
    print(rows(results, [name for name in EVERY if name in new]))
    print(*(worse(old, new) or ["nothing got worse by more than 20 %"]), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
