import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from torchvision.datasets import FashionMNIST

from digits import figures

DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture
def counts() -> np.ndarray:
    counts = np.random.default_rng(0).integers(1, 40, (10, 10))
    np.fill_diagonal(counts, 900)
    counts[0, 1] = 0
    return counts


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_confusion_matrix_shows_counts_recall_and_title(counts: np.ndarray) -> None:
    figure = figures.confusion_matrix(counts, DIGITS, "test", normalize=False)
    cells = texts(figure)[:100]
    assert cells == ["" if count == 0 else str(count) for count in counts.ravel()]
    assert texts(figure)[100:] == [f"{900 / row.sum():.0%}" for row in counts]
    right, total = 9000, counts.sum()
    assert figure.axes[0].get_title(loc="left") == f"test  {right / total:.2%} right, {total - right} wrong"
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == DIGITS
    assert figure.axes[0].get_xlabel() == "predicted"
    assert figure.axes[0].get_ylabel() == "true"


def test_confusion_matrix_normalized_shows_percentages(counts: np.ndarray) -> None:
    cells = texts(figures.confusion_matrix(counts, DIGITS, "test", normalize=True))[:100]
    shares = counts / counts.sum(axis=1, keepdims=True) * 100
    assert cells == ["" if share == 0 else f"{share:.1f}" for share in shares.ravel()]


def test_diagonal_is_blue_errors_red_and_zeros_blank(counts: np.ndarray) -> None:
    image = figures.confusion_matrix(counts, DIGITS, "test", normalize=False).axes[0].images[0].get_array()
    assert image is not None
    assert all(image[i, i, 2] > image[i, i, 0] for i in range(10))
    assert tuple(image[0, 1]) == figures.BLANK
    assert image[2, 3, 0] > image[2, 3, 2]


def test_pixels_are_700_by_700_rgb(counts: np.ndarray) -> None:
    image = figures.pixels(figures.confusion_matrix(counts, DIGITS, "test", normalize=False))
    assert image.shape == (700, 700, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("normalize", [False, True])
def test_long_names_stay_inside_the_figure(counts: np.ndarray, normalize: bool) -> None:
    figure = figures.confusion_matrix(counts * 10, FashionMNIST.classes, "test", normalize)
    image = figures.pixels(figure)
    assert image.shape == (700, 700, 3)
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (edge == 255).all()  # nothing is cut off
    canvas = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / 10
    assert all(text.get_window_extent(canvas).width < cell for text in axes.texts[:100])
    boxes = [label.get_window_extent(canvas) for label in axes.get_yticklabels()]
    assert all(box.x0 >= 0 for box in boxes)


def test_an_empty_matrix_is_drawn() -> None:
    figure = figures.confusion_matrix(np.zeros((10, 10), dtype=np.int64), DIGITS, "val", normalize=True)
    assert set(texts(figure)[:100]) == {""}


def test_pyplot_knows_nothing_of_our_figures(counts: np.ndarray) -> None:
    for _ in range(3):
        figures.pixels(figures.confusion_matrix(counts, DIGITS, "test", normalize=False))
    assert plt.get_fignums() == []
