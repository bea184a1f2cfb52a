"""TensorBoard in a real browser, for its test and README's pictures: a server, a Chromium, and what a page shows."""

import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from runlab.config.messages import UserError

T = TypeVar("T")

# Chromium asks no host but the server: no updates, no synchronization, no proxy of the environment.
# In a container, root has no sandbox to offer and /dev/shm is small.
FLAGS = """headless no-sandbox disable-gpu disable-dev-shm-usage no-first-run no-proxy-server disable-quic
disable-background-networking disable-component-update disable-sync"""

# Most tabs are web components, into whose shadow roots a plain querySelectorAll does not look. `all` finds what is
# displayed and matches a selector, in any of them; `text` is an element's text as it stands on the page, a line a node.
WALK = """
const visible = element => element.getClientRects().length > 0;
const all = (selector, root = document) => [...root.querySelectorAll("*")].flatMap(element => [
  ...(element.matches(selector) && visible(element) ? [element] : []),
  ...(element.shadowRoot ? all(selector, element.shadowRoot) : [])]);
const text = node => {
  if (node.nodeType === Node.TEXT_NODE) return node.data.trim();
  if (node.nodeType !== Node.ELEMENT_NODE || getComputedStyle(node).display === "none") return "";
  const children = node.tagName === "SLOT" ? node.assignedNodes() : (node.shadowRoot ?? node).childNodes;
  return [...children].map(text).filter(Boolean).join("\\n");
};
"""


def until(what: str, ready: Callable[[], T | None], seconds: float = 30) -> T:
    """What `ready` returns, once that counts as true; after `seconds` without, a `TimeoutError` that says `what`."""
    end = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not there after {seconds:.0f} s")
        time.sleep(0.1)
    return found


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """The address of a TensorBoard that has read all of `logdir`; it ends with the context."""
    options = "--host 127.0.0.1 --port 0 --load_fast=false --samples_per_plugin images=200"
    # It answers only after it has read everything, and then once: a page is complete when it is opened.
    options += " --reload_task blocking --reload_interval 0"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), *options.split()]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:

        def address() -> re.Match[str] | None:
            log.seek(0)
            said = log.read()
            if process.poll() is not None:
                raise RuntimeError(f"TensorBoard has ended: {said}")
            return re.search(r"http://127\.0\.0\.1:\d+/", said)

        try:
            yield until("TensorBoard's address", address)[0]
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


def chromium() -> tuple[str, str]:
    """The paths of Chromium and of its driver; `UserError` where one is missing."""
    paths = shutil.which("chromium"), shutil.which("chromedriver")
    if not (paths[0] and paths[1]):
        raise UserError("the dashboard needs a browser: apt-get install chromium chromium-driver")
    return paths[0], paths[1]


@contextmanager
def browser(width: int = 1600, height: int = 1000, scale: int = 1, **settings: Any) -> Iterator[Chrome]:
    """A headless Chromium with a page of `width` x `height` CSS pixels, each drawn by `scale` x `scale` of the screen.

    `settings` are TensorBoard's, by the names under which it keeps them in the browser.
    """
    binary, driver_path = chromium()
    storage = {"_tb_global_settings": json.dumps(settings)}  # of the time series tab; the older ones have their own
    storage["_ignoreYOutliers"] = json.dumps(settings.get("ignoreOutliers", True))
    # A fresh profile: no settings of an earlier visit. Chromium may still be writing into it while it ends.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = binary
        for flag in (*FLAGS.split(), f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        driver = Chrome(options, ChromeService(driver_path))
        try:
            size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            store = f"Object.assign(localStorage, {json.dumps(storage)})"
            source = f"if (location.protocol === 'http:') {store}"  # about:blank has no storage
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
            yield driver
        finally:
            driver.quit()


def open_tab(driver: Chrome, url: str, tab: str, **state: str) -> None:
    """Load a tab: `timeseries`, `scalars`, ...; `state` is what TensorBoard keeps in the address, as `tagFilter`."""
    driver.get("about:blank")  # else only what follows the # would change, and the page would not be loaded
    pairs = "&".join(f"{key}={quote(value)}" for key, value in state.items())
    # The newer tab keeps its state before the #, the older ones behind it.
    driver.get(f"{url}?{pairs}#timeseries" if tab == "timeseries" else "&".join(filter(None, [f"{url}#{tab}", pairs])))


def shown(driver: Chrome, selector: str, attribute: str = "") -> list[str]:
    """The text, or an attribute, of every displayed element that matches, shadow roots included."""
    script = "return all(arguments[0]).map(e => arguments[1] ? e.getAttribute(arguments[1]) : text(e))"
    return driver.execute_script(WALK + script, selector, attribute)


def curves(driver: Chrome, card: str) -> dict[str, list[int]]:
    """How many points each curve of a chart has, by the chart's title; `card` is the tag's name of such charts."""
    script = """return all(arguments[0]).map(card => [text(card).split("\\n")[0],
      all("path.line", card.shadowRoot).map(path => (path.getAttribute("d") ?? "").split(/[ML]/).length - 1)])"""
    return {title: sorted(points) for title, points in driver.execute_script(WALK + script, card)}


def table(driver: Chrome) -> list[dict[str, str]]:
    """The rows of HPARAMS, each a text by its column's title; [] while there is no table."""
    script = """return all("vaadin-grid").flatMap(grid => all("thead tr, tbody tr", grid.shadowRoot))
      .map(row => [...row.children].filter(visible).map(text))"""
    head, *rows = driver.execute_script(WALK + script) or [[]]
    return [dict(zip(head, row, strict=False)) for row in rows]  # a row that is being drawn lacks cells


def images(driver: Chrome) -> dict[str, bytes]:
    """The images that the time series tab has drawn, by their tags: the files that the page itself gets."""
    script = """const cards = all("image-card").map(card => [card, all("img", card)[0]]);
      return Promise.all(cards.filter(([card, img]) => img?.complete && img.naturalWidth).map(async ([card, img]) => {
        const bytes = new Uint8Array(await (await fetch(img.src)).arrayBuffer());
        const binary = bytes.reduce((string, byte) => string + String.fromCharCode(byte), "");
        return [all("tb-truncated-path", card)[0].title, btoa(binary)];
      }))"""
    return {tag: base64.b64decode(content) for tag, content in driver.execute_script(WALK + script)}
