"""Measures the project against what it could be, side by side: `python benchmarks/bench.py [a b c d e f g h i]`.

Prints one table, writes results.json and the tables of benchmarks/README.md, README.md and docs/scale.md, and says what
got worse.
"""

import json
import platform
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import answers
import growth
import loading
import many
import shares
import steps
import sweeping
import torch
import whole
import worth
from markers import replace_between
from measure import ROOT, Row

SECTIONS: dict[str, Any] = {"a": whole, "b": steps, "c": loading, "d": answers, "e": growth, "f": shares, "g": worth}
SECTIONS |= {"h": sweeping, "i": many}
SCALE = ("h", "i")  # the sections of docs/scale.md
ON_GPU = ("a", "b")  # once more where there is a GPU, as "a gpu" and "b gpu"
EVERY = [*SECTIONS, *(f"{name} gpu" for name in ON_GPU)]
RESULTS = ROOT / "benchmarks/results.json"
WORSE = 1.2  # how far a ratio may move between two measurements before it is named
SUMMARY = (  # the rows of the project's README, by how they begin
    "whole process: `python train.py` times",
    "whole process: `python train.py` against",
    "optimizer step, batch 256: against Lightning",
    "loader and transform, batch 256",
    "epoch of 960,000",
    "peak memory",
    "8 jobs of one epoch: one multirun against",
    "8 jobs of the notebook's",
)


def about(device: str) -> dict[str, Any]:
    """What a section was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "cpu": names[0] if names else platform.machine(),
        "cores": len(names) or torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "lightning", "torchvision")},
        "date": date.today().isoformat(),
    }


def number(value: float) -> str:
    """Three significant digits: 0.0123, 1.23, 123, 123,000."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def line(row: Row) -> str:
    """A row of the table."""
    target = "" if row["target"] is None else f"{'≥' if row['more_is_better'] else '≤'} {row['target']:g}"
    met = {None: "", True: ", met", False: ", **missed**"}[row["met"]]
    spread = f"{number(row['smallest'])} to {number(row['largest'])}"
    sides = f"{number(row['ours'])} / {number(row['other'])} {row['unit']}"
    return f"| {row['what']} | {number(row['ratio'])} ({spread}) | {row['n']} | {sides} | {target}{met} |"


HEAD = "| what | ratio: median (smallest to largest) | n | ours / other | target |\n|---|---|---|---|---|"


def rows(results: dict[str, Any], sections: Sequence[str]) -> str:
    """The table of the sections' rows, in Markdown, and what they were measured on."""
    lines, machines = [HEAD], list[str]()
    for section in sections:
        if section not in results:
            lines.append(f"| section {section} | not measured | | | |")
            continue
        on = f", on {results[section]['about']['device']}" if section.endswith("gpu") else ""
        lines += [line(row | {"what": row["what"] + on}) for row in results[section]["rows"]]
        machine = ", ".join(f"{key} {value}" for key, value in results[section]["about"].items())
        machines.append(f"{section}: {machine}.")
    return "\n".join([*lines, "", "Measured on, section by section:", "", *(f"- {text}" for text in machines)])


def summary(results: dict[str, Any]) -> str:
    """The rows that a user cares about."""
    found = [row for section in SECTIONS for row in results.get(section, {"rows": []})["rows"]]
    return "\n".join([HEAD, *(line(row) for row in found if row["what"].startswith(SUMMARY))])


def worse(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The rows whose ratio moved by more than 20 % in the direction that is worse for them."""
    found = []
    for section in new:
        before = {row["what"]: row["ratio"] for row in old.get(section, {"rows": []})["rows"]}
        for row in new[section]["rows"]:
            if (was := before.get(row["what"])) is None:
                continue
            if (was / row["ratio"] if row["more_is_better"] else row["ratio"] / was) > WORSE:
                found.append(f"worse: {row['what']}: {number(was)} before, {number(row['ratio'])} now")
    return found


def main(names: list[str]) -> None:
    if unknown := set(names) - set(SECTIONS):
        sys.exit(f"{' '.join(sorted(unknown))}: no such section; choose from {' '.join(SECTIONS)}")
    old: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    new: dict[str, Any] = {}
    for name in names or SECTIONS:
        for device in ("cpu", "cuda") if name in ON_GPU and torch.cuda.is_available() else ("cpu",):
            key = f"{name} gpu" if device == "cuda" else name
            print(f"section {key} ...", file=sys.stderr, flush=True)
            new[key] = {"about": about(device), "rows": SECTIONS[name].rows(device)}
    results = old | new
    results = {key: results[key] for key in sorted(results)}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    replace_between(ROOT / "benchmarks/README.md", "bench", rows(results, EVERY))
    replace_between(ROOT / "README.md", "bench", summary(results))
    replace_between(ROOT / "docs/scale.md", "bench", rows(results, SCALE))
    print(rows(results, [name for name in EVERY if name in new]))
    print(*(worse(old, new) or ["nothing got worse by more than 20 %"]), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
