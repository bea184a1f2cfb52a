"""The dashboard on a screen: what the runs logged is what a browser shows, tab by tab."""

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from dashboard import WALK, browser, chromium, curves, images, open_tab, shown, table, tensorboard, until
from PIL import Image
from selenium.webdriver import Chrome
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from runlab.config.messages import UserError

COMMANDS = [["trainer.max_epochs=2"], ["-m", "optimizer.lr=0.01,0.04,0.1", "trainer.max_epochs=1"]]
RUN = "run"  # the first command's, as TensorBoard names it; a job's is sweep/optimizer.lr=0.01,...
# All points of each curve, and no panel over the cards.
SETTINGS = {"ignoreOutliers": False, "timeSeriesSettingsPaneOpened": False}


def becomes(read: Callable[[], object], wanted: object) -> None:
    """Assert that the page shows what is wanted, now or in a while."""
    try:
        until("", lambda: read() == wanted)
    except TimeoutError:
        assert read() == wanted


def coloured(driver: Chrome) -> dict[str, bool]:
    """Whether a chart of the time series tab has coloured pixels on the screen, by its tag; all but curves is grey."""
    # A worker draws these canvases, so that the page cannot read them.
    script = """return all("scalar-card canvas").map(canvas => {
      const {left, top, right, bottom} = canvas.getBoundingClientRect();
      return [all("tb-truncated-path", canvas.closest("scalar-card"))[0].title, [left, top, right, bottom]];
    })"""
    boxes = driver.execute_script(WALK + script)
    screen = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("HSV")
    return {tag: bool((np.asarray(screen.crop(box))[..., 1] > 100).sum() > 50) for tag, box in boxes}


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)?", text))


@pytest.mark.browser
def test_every_tab_shows_what_was_logged(quick_cli: Cli, tmp_path: Path) -> None:
    missing_browser = ""
    try:
        chromium()
    except UserError as error:
        missing_browser = str(error)
    if missing_browser:  # not inside the except, which would add its traceback
        pytest.fail(missing_browser, pytrace=False)
    for command in COMMANDS:
        answer = quick_cli(*command)
        assert answer.returncode == 0, answer.stderr
    metrics = {
        path.parent.relative_to(tmp_path).as_posix(): json.loads(path.read_text())
        for path in tmp_path.rglob("metrics.json")
    }
    assert len(metrics) == 4
    events = EventAccumulator(str(tmp_path / RUN), {"images": 0, "scalars": 0, "tensors": 0}).Reload()
    screenshots = Path(os.environ.get("DIGITS_SCREENSHOTS", tmp_path))
    screenshots.mkdir(parents=True, exist_ok=True)

    with tensorboard(tmp_path) as url, browser(**SETTINGS) as driver:

        def leave(name: str) -> None:
            driver.save_screenshot(str(screenshots / f"{name}.png"))

        # Each image of the run, as the very bytes that it logged last.
        logged = {tag: events.Images(tag)[-1].encoded_image_string for tag in events.Tags()["images"]}
        assert logged.keys() >= {"val/confusion_matrix", "test/confusion_matrix"}
        open_tab(driver, url, "timeseries", tagFilter=f"^({'|'.join(logged)})$", runFilter=f"^{RUN}$")
        becomes(lambda: images(driver), logged)
        leave("timeseries_images")

        open_tab(driver, url, "timeseries", tagFilter="^(train/loss|val/acc)$")
        becomes(lambda: coloured(driver), {"train/loss": True, "val/acc": True})
        leave("timeseries")

        # A curve for each run, the run's own the longest: val/acc has a point an epoch.
        open_tab(driver, url, "scalars", tagFilter="^(train/loss|val/acc)$", _smoothingWeight="0")
        for tag, longest in (("train/loss", len(events.Scalars("train/loss"))), ("val/acc", 2)):
            becomes(lambda tag=tag: len(curves(driver, "tf-scalar-card").get(tag, [])), 4)  # type: ignore[misc]
            becomes(lambda tag=tag: curves(driver, "tf-scalar-card")[tag][-1], longest)  # type: ignore[misc]
        leave("scalars")

        # One chart has the curves of both losses.
        open_tab(driver, url, "custom_scalars", _smoothingWeight="0")
        both = {len(events.Scalars(tag)) for tag in ("train/loss", "val/loss")}
        charts = "tf-custom-scalar-multi-line-chart-card"
        until("both losses in a chart", lambda: any(both <= set(chart) for chart in curves(driver, charts).values()))
        leave("custom_scalars")

        open_tab(driver, url, "images", tagFilter="confusion_matrix")
        until("the images tab", lambda: len(shown(driver, "img", "src")) >= 8)
        leave("images")

        # A text's numbers are on the page, whatever Markdown makes of the rest.
        open_tab(driver, url, "text", tagFilter=".*")
        texts = {}
        for tag in ("config/text_summary", "test/per_class/text_summary"):
            texts[f"{tag}\n{RUN}\n"] = numbers(events.Tensors(tag)[-1].tensor_proto.string_val[0].decode())
        assert all(texts.values())

        def missing() -> dict[str, set[str]]:
            cards = shown(driver, "tf-text-loader")
            return {
                start: lost
                for start, wanted in texts.items()
                if (lost := wanted - numbers(next((card for card in cards if card.startswith(start)), "")))
            }

        becomes(missing, {})
        leave("text")

        classes = sorted(events.PluginTagToContent("pr_curves"))
        assert len(classes) == 10
        open_tab(driver, url, "pr_curves")
        becomes(
            lambda: {
                title: (len(points), points[0] > 10)
                for title, points in curves(driver, "tf-pr-curve-card").items()
                if points
            },
            dict.fromkeys(classes, (4, True)),
        )
        leave("pr_curves")

        # Every run, with its accuracy to the five digits that the table has room for.
        open_tab(driver, url, "hparams")
        becomes(
            lambda: {row["Trial ID"]: row.get("test/acc") for row in table(driver)},
            {run: f"{scores['test/acc']:#.5g}" for run, scores in metrics.items()},
        )
        rates = {row["Trial ID"]: row.get("optimizer.lr") for row in table(driver)}  # it differs, so it is shown
        assert sorted(float(rate or 0) for rate in rates.values()) == [0.01, 0.04, 0.04, 0.1]
        leave("hparams")
