"""Counts, weights and images in, matplotlib figures out. Knows no logger, and registers nothing with pyplot.

Every figure is laid out in pixels from the upper left, and has no ticks: matplotlib's own axes and layout engine take
twice as long, at each epoch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

SIDE = 700  # pixels, of a confusion matrix at least; TensorBoard's cards shrink that to half, where 14 pt is still read
CELL, SMALLEST = 17, 6.0  # pixels of a confusion matrix's cell, and pt of the number in it, at least
DPI = 100
LETTER = 0.62 * DPI / 72  # pixels that a letter of 1 pt is wide, rather more than less
LINE = 1.3 * DPI / 72  # pixels that a line of 1 pt is high
BLANK = (0.965, 0.965, 0.965, 1.0)
ERROR_SCALE = 0.10  # the share of a true class at which an error is fully red, the same in every figure
Label = tuple[float, float, str, dict[str, Any]]  # x and y in pixels from the upper left, text, how it is set
COLUMNS, ZOOM = 5, 4  # images in a row; pixels of a figure for one of an image, at most


def confusion_matrix(counts: NDArray[np.int64], class_names: Sequence[str], title: str, normalize: bool) -> Figure:
    """Right answers in blue, errors in red, empty cells blank, and each class's recall at the right.

    Args:
        counts: `(C, C)` int64, rows = true class, columns = predicted.
        class_names: `C` names.
        title: what the counts are of; the share that is right is put behind it.
        normalize: write each cell as a percentage of its row instead of its count.

    Returns:
        A square figure of 700 pixels, or for many classes a larger one without numbers in its cells. Its texts are the
        cells', row by row, then recalls, names, title and labels.
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
    cells = np.where(counts == 0, "", np.char.mod("%.1f", shares * 100) if normalize else counts.astype(str))

    longest = max(map(len, class_names))
    fontsize = min(14.0, max(140 / size, 8.0), 14 * 14 / max(longest, 14))
    name = longest * LETTER * fontsize
    slanted = longest > 3 or name > max(CELL, (SIDE - 100) / size)
    left, top, below = 44 + round(name), 36, round(0.75 * name if slanted else LINE * fontsize) + 40
    beside, side = 4.5 * LETTER * fontsize, SIDE
    if (cell := round(min(SIDE - left - beside, SIDE - top - below) / size)) < CELL:
        cell, side = CELL, size * CELL + max(left + round(beside), top + below)
    end, middle = size * cell, [cell * (number + 0.5) for number in range(size)]
    texts: list[Label] = []
    small = min(fontsize, 0.95 * cell / (LETTER * max(1, *map(len, cells.flat))))
    fit = {"fontsize": small, "ha": "center"}
    if small < SMALLEST or side > SIDE:  # of so many numbers none would be read
        cells = np.full_like(cells, "")
    for (row, column), text in np.ndenumerate(cells):
        color = "white" if diagonal[row, column] and shares[row, column] > 0.4 else "black"
        texts.append((left + middle[column], top + middle[row], text, fit | {"color": color}))
    grey, right_of = {"fontsize": 0.8 * fontsize, "color": "0.3", "ha": "left"}, left + end + 6
    recalls = [f"{shares[i, i]:.0%}" if counts[i].any() else "" for i in range(size)]  # of what there is
    texts += [(right_of, top + middle[i], recalls[i], grey) for i in range(size)]
    names = {"fontsize": fontsize, "ha": "right"}
    texts += [(left - 8, top + middle[i], class_names[i], names) for i in range(size)]
    turned = {"rotation": 45, "rotation_mode": "anchor"} if slanted else {"ha": "center"}
    under = top + end + LINE * fontsize / 2 + 4
    texts += [(left + middle[i] + 6 * slanted, under, class_names[i], names | turned) for i in range(size)]
    right, total = int(np.trace(counts)), int(counts.sum())
    texts.append((left, top / 2, f"{title}  {right / max(total, 1):.2%} right, {total - right} wrong", {"ha": "left"}))
    texts.append((left + end / 2, min(top + end + below - 22, side - 14), "predicted", {"ha": "center"}))
    texts.append((18, top + end / 2, "true", {"ha": "center", "rotation": 90}))
    figure, axes = _figure(side, side, texts)
    edges = np.arange(0, end + 1, cell)
    axes.pcolormesh(left + edges, top + edges, colors, edgecolors="white", linewidth=1.5)
    return figure


def weights(weight: NDArray[np.float32], class_names: Sequence[str]) -> Figure:
    """A linear classifier's weights as an image a class: red where ink votes for the class, blue where against.

    Args:
        weight: `(C, H, W)` float32, for inputs that are the greater the more ink a pixel has; or `(C, H, W, 3)` for
            colours, each of which is then drawn as itself: bright where it votes for the class.
        class_names: `C` names.
    """
    scale = float(np.abs(weight).max())
    title = f"red: ink here votes for the class, blue: against  (full colour = ±{scale:.2f})"
    if weight.ndim == 4:
        title = f"a colour is bright where it votes for the class, dark: against  (±{scale:.2f})"
    return _tiles((weight / (2 * scale or 1.0)) + 0.5, class_names, title, "RdBu_r", "black")


def mistakes(
    images: NDArray[Any],
    class_names: Sequence[str],
    true: Sequence[int],
    predicted: Sequence[int],
    sure: Sequence[float],
) -> Figure:
    """Wrong answers: images `(N, H, W)`, or `(N, H, W, 3)` in colour, both classes' names and the confidence."""
    arrow = "→" if max(map(len, class_names)) <= 3 else " →\n"
    names = [f"{class_names[t]}{arrow}{class_names[p]}" for t, p in zip(true, predicted, strict=True)]
    labels = [f"{name} {share:.1%}" for name, share in zip(names, sure, strict=True)]
    title = "most confident mistakes: true → predicted, confidence" if labels else "no mistakes"
    return _tiles(_stretched(images), labels, title, "gray_r", "#b0122a")


def batch(images: NDArray[Any], class_names: Sequence[str], labels: Sequence[int]) -> Figure:
    """Images `(N, H, W)`, or `(N, H, W, 3)` in colour, as the network sees them, with their classes' names."""
    low, high = ("white", "black") if images.ndim == 3 else ("dark", "bright")
    shown = f"{images.min():.2g} ({low}) to {images.max():.2g} ({high})"
    title = f"a training batch as the network sees it: {shown}"
    return _tiles(_stretched(images), [class_names[label] for label in labels], title, "gray_r", "black")


def _stretched(images: NDArray[Any]) -> NDArray[Any]:
    """From the images' smallest and greatest value to 0 and 1."""
    low, high = (images.min(), images.max()) if images.size else (0, 1)
    return (images - low) / (high - low or 1)


def _tiles(images: NDArray[Any], labels: Sequence[str], title: str, cmap: str, color: str) -> Figure:
    """Images `(N, H, W)`, or `(N, H, W, 3)`, from 0 to 1 five in a row, each below its label, 700 pixels wide."""
    tile = SIDE // COLUMNS
    stride = -(-max(images.shape[1:3]) // (tile - 8))  # of larger images, every second pixel or so
    images = images[:, ::stride, ::stride]
    height, width = images.shape[1:3]
    zoom = max(min(ZOOM, (tile - 8) // width), 1)
    lines = [line for label in labels for line in label.split("\n")]
    fontsize = min(14.0, 0.98 * tile / (LETTER * max([4, *map(len, lines)])))
    above = round(LINE * fontsize * max([label.count("\n") + 1 for label in labels], default=1)) + 8
    canvas = np.full((40 + -(-len(labels) // COLUMNS) * (above + zoom * height + 8), SIDE, 4), 255, dtype=np.uint8)
    texts: list[Label] = [(8, 20, title, {"ha": "left"})]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        top = 40 + above + number // COLUMNS * (above + zoom * height + 8)
        left = number % COLUMNS * tile + (tile - zoom * width) // 2
        picture = colormaps[cmap](image, bytes=True) if image.ndim == 2 else np.uint8(255 * image)
        picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
        canvas[top : top + zoom * height, left : left + zoom * width, : picture.shape[-1]] = picture
        how = {"ha": "center", "fontsize": fontsize, "color": color, "linespacing": 1.1}
        texts.append((left + zoom * width / 2, top - above / 2 - 2, label, how))
    figure, axes = _figure(SIDE, len(canvas), texts)
    # RGBA in bytes: what Agg draws, so that nothing is converted.
    axes.imshow(canvas, extent=(0, SIDE, len(canvas), 0), aspect="auto", interpolation="nearest")
    return figure


def _figure(width: int, height: int, texts: Sequence[Label]) -> tuple[Figure, Axes]:
    """A figure, axes in its pixels, and texts (x, y, text, how), each vertically centred."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), frame_on=False, xticks=[], yticks=[])
    for x, y, text, how in texts:
        figure.text(x / width, 1 - y / height, text, **{"fontsize": 14, "va": "center", "parse_math": False, **how})
    return figure, axes


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure as `(H, W, 3)` uint8 RGB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
