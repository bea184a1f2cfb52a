"""When a figure is drawn and where it goes; how a run reports its progress."""

import csv
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from digits import figures
from digits.runs import replaced


class ConfusionMatrix(Callback):
    """Draws the validation set's confusion matrix each epoch and the test set's at the end, for TensorBoard.

    The test set's also goes into the run folder, as `confusion_matrix.png` and `.csv` (a header with the predicted
    names, then a row for each true class).

    Args:
        normalize: draw shares of each true class instead of counts. The `.csv` always holds counts.
        run_dir: the run folder.
    """

    def __init__(self, normalize: bool, run_dir: str) -> None:
        self.normalize = normalize
        self.run_dir = Path(run_dir)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, "test")

    def _draw(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        # Every rank has computed the counts at the end of the epoch; one of them draws.
        if not trainer.is_global_zero:
            return
        counts = pl_module.counts(stage).compute().cpu().numpy()
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]  # Lightning sets it, untyped
        figure = figures.confusion_matrix(counts, names, f"{stage}  epoch {trainer.current_epoch}", self.normalize)
        image = figures.pixels(figure)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"{stage}/confusion_matrix", image, trainer.global_step, dataformats="HWC")
        if stage == "test":
            with replaced(self.run_dir / "confusion_matrix.png") as path:
                figure.savefig(path, format="png")
            with replaced(self.run_dir / "confusion_matrix.csv") as path, path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["true/predicted", *names])
                writer.writerows([name, *row] for name, row in zip(names, counts.tolist(), strict=True))


class EpochLines(ProgressBar):
    """A line an epoch, for an output that is no terminal: `epoch 1/5  train/loss 0.3120  val/acc 0.9108`."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if self.enabled:
            metrics = (f"{name} {value:.4f}" for name, value in trainer.callback_metrics.items())
            print("  ".join([f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", *metrics]), flush=True)


def progress(refresh_rate: int) -> ProgressBar:
    """A bar on a terminal, a line an epoch elsewhere.

    Args:
        refresh_rate: batches between two updates of the bar.
    """
    return TQDMProgressBar(refresh_rate=refresh_rate) if sys.stdout.isatty() else EpochLines()


def silence_remarks() -> None:
    """Keep out of the output what the libraries say at each run and a user can do nothing about."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # devices found, and its own shop
    for message in (
        ".*isinstance.treespec, LeafSpec",  # Lightning 2.6 calls torch in a way that torch 2.15 deprecates
        ".*does not have many workers",  # the images are in memory
        "The dirpath has changed",  # ckpt_path may come from another run
        "Total length of .* across ranks is zero",  # data.val_size=0 is a choice
    ):
        warnings.filterwarnings("ignore", message)
