"""`results.png`: what a sweep's metric is for each value that was swept."""

import re
import statistics
from collections.abc import Sequence
from itertools import pairwise
from math import isfinite, log10, nan
from pathlib import Path
from typing import Any

from runlab.runs.files import atomic_write
from runlab.sweeps.compare import number, order
from runlab.sweeps.results import Row, keys_of
from runlab.sweeps.table import REPEATS

FEW, MOST = 6, 30  # numbers that are written on an axis; words that are
Points = dict[str, list[float]]  # the metric of each run, by the value that it was given


def write(folder: Path, table: Sequence[Row], monitor: str | None) -> Path | None:
    """Draw `results.png`, a panel a swept value; None where there is nothing to compare."""
    monitor = monitor or ""
    ended = [row for row in table if isfinite(row.metrics.get(monitor, nan))]
    keys = keys_of(row.overrides for row in ended)
    values = {key: [row.overrides.get(key, "(default)") for row in ended] for key in keys}
    swept = [key for key in values if len(set(values[key])) > 1]
    keys = [key for key in swept if key not in REPEATS] or swept
    if not keys:
        return None
    from matplotlib.figure import Figure  # a second that no other command should wait for

    wide = min(len(keys), 3)
    high = -(-len(keys) // wide)
    figure: Any = Figure((0.5 + 4.5 * wide, 0.7 + 3.5 * high), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False, sharey=True).flatten()
    for key, axis in zip(keys, axes, strict=False):
        points: Points = {}
        for value, row in zip(values[key], ended, strict=True):
            points.setdefault(value, []).append(row.metrics[monitor])
        panel(axis, key, points, logarithmic=drawn_so(folder, key))
    for axis in axes[len(keys) :]:
        axis.set_visible(False)
    for axis in axes[::wide]:
        axis.set_ylabel(monitor)
    without = f", {len(table) - len(ended)} more without {monitor}" if len(ended) < len(table) else ""
    title = f"{folder.name}: {len(ended)} runs{without}; bars: mean ± standard deviation"
    figure.suptitle(title, fontsize="medium", wrap=True)
    metrics = sorted(row.metrics[monitor] for row in ended)
    if 0 < 100 * metrics[len(metrics) // 2] < metrics[-1] and metrics[0] > 0:  # one run would hide the others
        axes[0].set_yscale("log")
    with atomic_write(folder / "results.png") as path:
        figure.savefig(path, format="png", dpi=100)
    if any(any(row.folder.glob("events.out.tfevents.*")) for row in table):
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob("events.out.tfevents.*"):  # this sweep's, before it was run again
            old.unlink()
        with SummaryWriter(str(folder)) as writer:
            writer.add_figure("results", figure, close=False)
    return folder / "results.png"


def panel(axis: Any, key: str, points: Points, logarithmic: bool) -> None:
    """A point a run, and each value's mean ± standard deviation. Numbers are on an axis, words are categories."""
    names = sorted(points, key=order)
    places: Any = [number(name) for name in names]
    if None in places:
        places, every = range(len(names)), -(-len(names) // MOST)
        texts = [name if len(name) < 20 else f"{name[:17]}..." for name in names]
        axis.set_xticks(places[::every], texts[::every], rotation=90 if sum(map(len, texts)) > 40 else 0)
        axis.set_xlim(-0.5, len(names) - 0.5)
    elif logarithmic or (places[0] > 0 and places[(len(names) - 1) // 2] < 0.3 * places[-1]):
        axis.set_xscale("log", subs=(2, 5) if places[-1] < 30 * places[0] else ())
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("{x:g}")
    if None not in map(number, names) and len(names) <= FEW:
        at = [log10(place) if axis.get_xscale() == "log" else place for place in places]
        if all(right - left > 0.12 * (at[-1] - at[0]) for left, right in pairwise(at)):  # else one would hide another
            axis.set_xticks(places, names)
            axis.set_xticks([], minor=True)
    runs = sum(map(len, points.values()))
    for place, name in zip(places, names, strict=True):
        axis.plot([place] * len(points[name]), points[name], "o", color="tab:blue", alpha=0.4, markersize=4)
        if len(points[name]) > 1 and len(names) < 0.75 * runs:  # else a search drew one twice by chance
            mean, deviation = statistics.mean(points[name]), statistics.stdev(points[name])
            axis.errorbar(place, mean, deviation, fmt="_", color="black", capsize=4, markersize=10)
    axis.set_xlabel(key)
    axis.grid(alpha=0.3)


def drawn_so(folder: Path, key: str) -> bool:
    """Whether the sweep has drawn this value from a logarithmic interval."""
    path = folder / "multirun.yaml"
    return path.exists() and bool(re.search(rf"{re.escape(key)}\W+tag\(log", path.read_text()))
