"""Counts, weights and images in, matplotlib figures out. Knows no logger, and registers nothing with pyplot."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

SIDE = 700  # pixels; TensorBoard's cards shrink an image to half of that, where 14 pt is still read
DPI = 100
BLANK = (0.965, 0.965, 0.965, 1.0)
ERROR_SCALE = 0.10  # the share of a true class at which an error is fully red, the same in every figure


def confusion_matrix(counts: NDArray[np.int64], class_names: Sequence[str], title: str, normalize: bool) -> Figure:
    """Right answers in blue, errors in red, empty cells blank, and each class's recall at the right.

    Args:
        counts: `(C, C)` int64, rows = true class, columns = predicted.
        class_names: `C` names.
        title: what the counts are of; the share that is right is put behind it.
        normalize: write each cell as a percentage of its row instead of its count.

    Returns:
        A figure of 700 x 700 pixels.
    """
    size = len(class_names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(size, dtype=bool)
    colors = np.where(
        diagonal[..., None],
        colormaps["Blues"](0.25 + 0.6 * shares),
        colormaps["Reds"](np.clip(shares / ERROR_SCALE, 0.03, 1) * 0.75),
    )
    colors[counts == 0] = BLANK
    longest = max(map(len, class_names))
    fontsize = min(14.0, 140 / size, 14 * 14 / max(longest, 14))

    figure = Figure(figsize=(SIDE / DPI, SIDE / DPI), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(colors)
    texts = np.where(counts == 0, "", np.char.mod("%.1f", shares * 100) if normalize else counts.astype(str))
    for (row, column), text in np.ndenumerate(texts):
        dark = diagonal[row, column] and shares[row, column] > 0.4
        axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=fontsize)
    for row in range(size):
        axes.text(size - 0.4, row, f"{shares[row, row]:.0%}", va="center", color="0.3", fontsize=fontsize * 0.8)
    axes.set_xticks(
        range(size), class_names, rotation=0 if longest <= 3 else 45, ha="center" if longest <= 3 else "right"
    )
    axes.set_yticks(range(size), class_names)
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0, labelsize=fontsize)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", fontsize=14)
    axes.set_ylabel("true", fontsize=14)
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set_title(f"{title}  {right / max(total, 1):.2%} right, {total - right} wrong", loc="left", fontsize=14)
    return figure


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure as `(H, W, 3)` uint8 RGB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
