import hashlib
from string import ascii_letters, digits

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from torchvision.datasets import FashionMNIST

from digits import figures

DIGITS = [str(digit) for digit in range(10)]
HASHES = ["e27bf21bd3124913f7fb47d407e69879", "e27bf21bd3124913f7fb47d407e69879", "d9f471ccedd006d66b19e97304745625"]


@pytest.fixture
def counts() -> np.ndarray:
    counts = np.random.default_rng(0).integers(1, 40, (10, 10))
    np.fill_diagonal(counts, 900)
    counts[0, 1] = 0
    return counts


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def boxes(figure: Figure) -> np.ndarray:
    """Each level text's left, bottom, right and upper pixel."""
    figures.pixels(figure)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    level = [text for text in figure.texts if text.get_text() and text.get_rotation() != 45]
    return np.array([text.get_window_extent(renderer).extents for text in level])


def assert_all_fits(figure: Figure, shape: tuple[int, int]) -> None:
    """Nothing is cut off, and no text covers another."""
    image = figures.pixels(figure)
    assert image.shape == (*shape, 3)
    assert image.dtype == np.uint8
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (edge == 255).all()
    found = boxes(figure)
    for i, one in enumerate(found):
        for other in found[:i]:
            apart = (one[:2] >= other[2:] - 1).any() or (other[:2] >= one[2:] - 1).any()
            assert apart, (one, other)


def test_confusion_matrix_shows_counts_recall_and_title(counts: np.ndarray) -> None:
    shown = texts(figures.confusion_matrix(counts, DIGITS, "test", normalize=False))
    assert shown[:100] == ["" if count == 0 else str(count) for count in counts.ravel()]
    assert shown[100:110] == [f"{900 / row.sum():.0%}" for row in counts]
    assert shown[110:130] == DIGITS * 2
    right, total = 9000, counts.sum()
    assert shown[130:] == [f"test  {right / total:.2%} right, {total - right} wrong", "predicted", "true"]


def test_confusion_matrix_normalized_shows_percentages(counts: np.ndarray) -> None:
    cells = texts(figures.confusion_matrix(counts, DIGITS, "test", normalize=True))[:100]
    shares = counts / counts.sum(axis=1, keepdims=True) * 100
    assert cells == ["" if share == 0 else f"{share:.1f}" for share in shares.ravel()]


def test_diagonal_is_blue_errors_red_and_zeros_blank(counts: np.ndarray) -> None:
    figure = figures.confusion_matrix(counts, DIGITS, "test", normalize=False)
    image, middles = figures.pixels(figure), boxes(figures.confusion_matrix(counts + 1, DIGITS, "test", False))[:100]
    # Left of each cell's text is the cell's colour.
    places = [(int(700 - (low + high) / 2), int(left) - 6) for left, low, _, high in middles]
    colors = np.array([image[place] for place in places]).reshape(10, 10, 3).astype(int)
    for row, column in np.ndindex(10, 10):
        red, _, blue = colors[row, column]
        if counts[row, column] == 0:
            assert colors[row, column].tolist() == [246, 246, 246]
        else:
            assert (blue > red) == (row == column)


@pytest.mark.parametrize("names", [DIGITS, FashionMNIST.classes])
@pytest.mark.parametrize("normalize", [False, True])
def test_every_name_stays_inside_the_confusion_matrix(counts: np.ndarray, normalize: bool, names: list[str]) -> None:
    assert_all_fits(figures.confusion_matrix(counts, names, "test", normalize), (700, 700))


@pytest.mark.parametrize("names", [DIGITS, FashionMNIST.classes])
def test_mistakes_say_true_predicted_and_confidence(names: list[str]) -> None:
    rng = np.random.default_rng(0)
    true, sure = list(range(10)) * 2, np.linspace(1.0, 0.5, 20)
    figure = figures.mistakes(rng.random((20, 28, 28)), names, true, [9 - label for label in true], sure.tolist())
    arrow = "→" if names == DIGITS else " →\n"
    labels = [f"{names[label]}{arrow}{names[9 - label]} {share:.1%}" for label, share in zip(true, sure, strict=True)]
    assert texts(figure) == ["most confident mistakes: true → predicted, confidence", *labels]
    assert_all_fits(figure, figures.pixels(figure).shape[:2])


def test_no_mistakes_are_said() -> None:
    assert texts(figures.mistakes(np.zeros((0, 28, 28)), DIGITS, [], [], [])) == ["no mistakes"]


def test_a_batch_shows_its_images_as_they_are() -> None:
    images = np.zeros((3, 28, 28), dtype=np.float32)
    images[0, 0, 0], images[1, :, 14:], images[2] = -1.0, 1.0, 0.0
    figure = figures.batch(images, FashionMNIST.classes, [0, 4, 9])
    shown = "a training batch as the network sees it: -1 (white) to 1 (black)"
    assert texts(figure) == [shown, "T-shirt/top", "Coat", "Ankle boot"]
    assert_all_fits(figure, figures.pixels(figure).shape[:2])
    pixels = figures.pixels(figure).astype(int)[..., 0]
    assert (pixels[45:] < 20).sum() >= 28 * 14 * 16  # half of the second image is black, each pixel 4 x 4


@pytest.mark.parametrize("names", [DIGITS, FashionMNIST.classes])
def test_weights_are_red_where_ink_votes_for_and_blue_against(names: list[str]) -> None:
    weight = np.zeros((10, 28, 28), dtype=np.float32)
    weight[0, :, :14], weight[0, :, 14:] = 0.5, -0.5
    figure = figures.weights(weight, names)
    assert texts(figure) == [
        "red: ink here votes for the class, blue: against  (full colour = ±0.50)",
        *names,
    ]
    assert_all_fits(figure, figures.pixels(figure).shape[:2])
    pixels = figures.pixels(figure).astype(int)
    red, blue = pixels[..., 0] - pixels[..., 2] > 50, pixels[..., 2] - pixels[..., 0] > 50
    assert red.sum() == blue.sum() == 28 * 14 * 16
    assert np.nonzero(red)[1].max() < np.nonzero(blue)[1].min()


def test_large_images_are_drawn_smaller() -> None:
    image = figures.pixels(figures.batch(np.random.default_rng(0).random((6, 300, 200)), DIGITS, list(range(6))))
    assert image.shape[1] == 700


def test_untrained_weights_are_drawn() -> None:
    figures.pixels(figures.weights(np.zeros((10, 28, 28), dtype=np.float32), DIGITS))


def test_an_empty_matrix_is_drawn() -> None:
    figure = figures.confusion_matrix(np.zeros((10, 10), dtype=np.int64), DIGITS, "val", normalize=True)
    assert set(texts(figure)[:110]) == {""}


def test_a_class_without_samples_has_no_recall(counts: np.ndarray) -> None:
    counts[3] = 0
    recalls = texts(figures.confusion_matrix(counts, DIGITS, "test", normalize=False))[100:110]
    assert [number for number, text in enumerate(recalls) if text == ""] == [3]


@pytest.mark.parametrize(
    "names", [list(ascii_letters + digits), [f"a thing of kind {number}" for number in range(100)]]
)
def test_a_matrix_of_many_classes_grows_and_leaves_its_numbers_out(names: list[str]) -> None:
    size = len(names)
    figure = figures.confusion_matrix(np.full((size, size), 5), names, "test", normalize=False)
    shown = texts(figure)
    assert set(shown[: size * size]) == {""}
    assert shown[size * size + size :][: 2 * size] == names * 2
    side = figures.pixels(figure).shape[0]
    assert side > 17 * size
    named = [text.get_fontsize() for text in figure.texts if text.get_text() in names]
    assert min(map(float, named)) >= 7.5
    assert_all_fits(figure, (side, side))


@pytest.mark.parametrize(
    "size", [2, 26, 37, *(pytest.param(size, marks=pytest.mark.slow) for size in (15, 20, 30, 36, 40, 47))]
)
def test_a_matrix_of_any_size_fits(size: int) -> None:
    figure = figures.confusion_matrix(
        np.full((size, size), 5), [f"{number:03}" for number in range(size)], "test", True
    )
    assert_all_fits(figure, figures.pixels(figure).shape[:2])


def squares(low: float, high: float) -> np.ndarray:
    """Three images `(3, 32, 32, 3)` with a red, a green and a blue square on black, `low`; a colour is `high`."""
    images = np.full((3, 32, 32, 3), low, dtype=np.float32)
    for number in range(3):
        images[number, 8:24, 8:24, number] = high
    return images


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255), (-2.1, 2.6)])
@pytest.mark.parametrize("draw", ["batch", "mistakes"])
def test_images_in_colour_are_drawn_in_colour(low: float, high: float, draw: str) -> None:
    images = squares(low, high)
    figure = figures.batch(images, DIGITS, [0, 1, 2])
    if draw == "mistakes":
        figure = figures.mistakes(images, DIGITS, [0, 1, 2], [1, 2, 0], [0.9, 0.8, 0.7])
    else:
        assert texts(figure)[0] == f"a training batch as the network sees it: {low:.2g} (dark) to {high:.2g} (bright)"
    pixels = figures.pixels(figure).reshape(-1, 3)
    for colour in ([255, 0, 0], [0, 255, 0], [0, 0, 255]):
        assert (pixels == colour).all(axis=1).sum() == 16 * 16 * 16
    assert_all_fits(figure, figures.pixels(figure).shape[:2])


def test_weights_of_colours_are_drawn_in_colour() -> None:
    figure = figures.weights(squares(0.0, 0.5), DIGITS[:3])
    assert texts(figure)[0] == "a colour is bright where it votes for the class, dark: against  (±0.50)"
    pixels = figures.pixels(figure).reshape(-1, 3)
    for colour in ([255, 127, 127], [127, 255, 127], [127, 127, 255]):
        assert (pixels == colour).all(axis=1).sum() == 16 * 16 * 16


def test_grey_pictures_are_those_that_they_were() -> None:
    """`HASHES` are of pixels drawn before colours were; without texts, which depend on the version of matplotlib."""
    images = np.arange(3 * 28 * 28, dtype=np.float32).reshape(3, 28, 28) % 251
    drawn = [
        figures.batch(images, ["", ""], [0, 1, 0]),
        figures.mistakes(images, ["", ""], [0, 1, 0], [1, 0, 1], [1, 1, 1]),
    ]
    drawn += [figures.weights(images - 125, ["", "", ""])]
    for figure in drawn:
        for text in figure.texts:
            text.set_text("")
    assert [hashlib.md5(figures.pixels(figure).tobytes()).hexdigest() for figure in drawn] == HASHES


def test_pyplot_knows_nothing_of_our_figures(counts: np.ndarray) -> None:
    for _ in range(3):
        figures.pixels(figures.confusion_matrix(counts, DIGITS, "test", normalize=False))
    assert plt.get_fignums() == []
