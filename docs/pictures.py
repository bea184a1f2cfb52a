"""README's pictures of the dashboard, docs/dashboard.png and docs/hparams.png, from real runs.

`make dashboard-picture`: about a minute on two cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dashboard import WALK, browser, images, open_tab, table, tensorboard, until
from omegaconf import OmegaConf
from PIL import Image
from selenium.webdriver import Chrome

from runlab.config.messages import report_errors

ROOT = Path(__file__).parents[1]
COMMANDS = [  # the temporary folder's name comes in; a job's folder is its name on the page
    "hydra.run.dir={}/default",
    "-m optimizer.lr=0.005,0.01,0.02 trainer.max_epochs=3 hydra.sweep.dir={} hydra.sweep.subdir=lr-${{optimizer.lr}}",
]
CARDS = "^(train/loss|val/acc|val/confusion_matrix)$"
COLUMNS = ["optimizer.lr", "trainer.max_epochs", "test/acc", "test/loss", "val/acc"]  # of HPARAMS
# The whole curves, and nothing that lies over or below them: no panel, no table of selected steps.
SETTINGS = {
    "timeSeriesSettingsPaneOpened": False,
    "stepSelectorEnabled": False,
    "ignoreOutliers": False,
    "scalarSmoothing": 0.3,
    "sideBarWidthInPercent": 17,
    "timeSeriesCardMinWidth": 335,
}


def save(driver: Chrome, name: str, height: int) -> None:
    """Write the upper `height` CSS pixels of the page into docs/."""
    time.sleep(1)  # what moves has come to rest: a picture, no test
    path = ROOT / "docs" / name
    driver.save_screenshot(str(path))
    picture = Image.open(path).convert("RGB").crop((0, 0, 2400, 2 * height))
    # The page has few colours, and a palette takes a third of the bytes.
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def shoot(logdir: Path) -> None:
    with tensorboard(logdir) as url, browser(1200, 840, 2, **SETTINGS) as driver:
        open_tab(driver, url, "timeseries", tagFilter=CARDS)
        until("a confusion matrix", lambda: images(driver))
        save(driver, "dashboard.png", 840)

        names = [*OmegaConf.load(ROOT / "conf/train.yaml").hyperparameters, "overrides"]
        names += [f"{stage}/{metric}" for stage in ("train", "val", "test") for metric in ("loss", "acc", "lr")]
        open_tab(driver, url, "hparams")
        until("the table", lambda: len(table(driver)) >= 4)
        # A box a column, and below it a box a value, which is a filter: those are left alone.
        tick = """for (const box of all("paper-checkbox", all("tf-hparams-query-pane")[0].shadowRoot)) {
          const name = text(box);
          if (arguments[0].includes(name) && box.checked !== arguments[1].includes(name)) box.click();
        }"""
        driver.execute_script(WALK + tick, names, COLUMNS)
        until("every run", lambda: len([row for row in table(driver) if row.get("test/acc")]) >= 4)
        save(driver, "hparams.png", 340)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for arguments in COMMANDS:
            command = [sys.executable, "train.py", *arguments.format(folder).split()]
            # One thread: these runs are too small for more.
            subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        shoot(Path(folder))


if __name__ == "__main__":
    with report_errors():
        main()
