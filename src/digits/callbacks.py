"""When a figure is drawn and where it goes. Each of these may be dropped: `~callbacks.mistakes`."""

import csv
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from digits import figures
from runlab.config.processes import in_sweep
from runlab.data.outputs import Predictions
from runlab.data.targets import check_classes, inputs_and_targets
from runlab.runs.files import atomic_write
from runlab.tracking.log import log_image, log_text, tensorboards


def class_names(trainer: Any) -> list[str]:
    """The data module's, or numbers where it has none."""
    names: list[str] = getattr(trainer.datamodule, "class_names", [])
    return names or [str(number) for number in range(trainer.lightning_module.num_classes)]


def pictures(images: Tensor) -> NDArray[Any]:
    """Images `(B, C, H, W)` as the figures take them: `(B, H, W, 3)` if they have three channels, else `(B, H, W)`."""
    channels = images[:, :3].movedim(1, -1).float().cpu().numpy()
    return channels if channels.shape[-1] == 3 else channels[..., 0]


def draws(trainer: Trainer) -> bool:
    """Whether this process draws: one of a run's, and where a logger may take the figure."""
    return trainer.is_global_zero and bool(trainer.loggers)


class ConfusionMatrix(Callback):
    """Draws the validation set's confusion matrix each epoch and the test set's at the end, for the loggers.

    The test set's also goes into the run folder, as `confusion_matrix.png` and `.csv` (a header with the predicted
    names, then a row for each true class), and as a table of each class's accuracy to TensorBoard. `normalize` draws
    shares of each true class; the `.csv` always holds counts. Of several loaders the second has `confusion_matrix_1`.
    """

    def __init__(self, normalize: bool, run_dir: str) -> None:
        self.normalize, self.run_dir = normalize, Path(run_dir)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, "test")

    def _draw(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        # Every rank has computed the counts at the end of the epoch; one draws, for the folder too.
        if not (draws(trainer) or (trainer.is_global_zero and stage == "test")):
            return
        names = class_names(trainer)
        for number, metric in enumerate(pl_module.counts[stage]):
            counts, suffix = metric.compute().cpu().numpy(), f"_{number}" if number else ""
            # Which epoch the tested checkpoint is of, the Trainer does not know.
            title = f"test{suffix}" if stage == "test" else f"val{suffix}  epoch {trainer.current_epoch + 1}"
            image = figures.pixels(figures.confusion_matrix(counts, names, title, self.normalize))
            log_image(trainer, f"{stage}/confusion_matrix{suffix}", image)
            if stage == "test":
                self._report(trainer, counts, names, suffix)
                with atomic_write(self.run_dir / f"confusion_matrix{suffix}.png") as path:
                    Image.fromarray(image).save(path, format="png")

    def _report(self, trainer: Trainer, counts: NDArray[np.int64], names: list[str], suffix: str) -> None:
        """The test set's counts as a table for TensorBoard, a line on the terminal, a file."""
        rows = zip(names, counts.diagonal(), counts.sum(axis=1), strict=True)
        lines = [f"| {name} | {right} | {total} | {right / max(total, 1):.4f} |" for name, right, total in rows]
        table = ["| class | right | of | accuracy |", "|---|---|---|---|", *lines]
        log_text(trainer, f"test/per_class{suffix}", "\n".join(table))
        right, total = int(counts.trace()), int(counts.sum())
        if not in_sweep():  # where each job has one line
            share = f"{right / max(total, 1):.2%}".replace("%", " %")
            print(f"test{suffix} accuracy  {right}/{total} = {share}", flush=True)
        with atomic_write(self.run_dir / f"confusion_matrix{suffix}.csv") as path, path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["true/predicted", *names])
            writer.writerows([name, *row] for name, row in zip(names, counts.tolist(), strict=True))


class Weights(Callback):
    """Draws the weights of a network that is one linear layer after each epoch, an image a class."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        layers = [module for module in pl_module.network.modules() if list(module.parameters(recurse=False))]
        if not (draws(trainer) and len(layers) == 1 and isinstance(layers[0], nn.Linear)):
            return
        for channels in (1, 3):
            side = isqrt(layers[0].in_features // channels)
            if channels * side**2 == layers[0].in_features:
                weight = pictures(layers[0].weight.detach().reshape(-1, channels, side, side))
                log_image(trainer, "train/weights", figures.pixels(figures.weights(weight, class_names(trainer))))


class TrainBatch(Callback):
    """Draws the first `count` images of a run's first training batch as the network sees them, transformed."""

    def __init__(self, count: int) -> None:
        self.count, self.drawn = count, False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if not self.drawn and draws(trainer):
            self.drawn = True
            images, labels = (part[: self.count] for part in inputs_and_targets(batch))
            check_classes(labels, len(names := class_names(trainer)), "labels")
            if images.ndim == 4:  # no rows of pixels, whose shape nobody knows
                figure = figures.batch(pictures(images), names, labels.tolist())
                log_image(trainer, "train/batch", figures.pixels(figure))


class Mistakes(Predictions):
    """Draws the `count` test images that the network is most sure of and wrong about."""

    def __init__(self, count: int) -> None:
        self.count = count

    def gather(self, logits: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        sure, predicted = logits.float().softmax(dim=1).max(dim=1)
        sure, index = (sure * (predicted != labels)).topk(min(self.count, len(labels)))
        return sure, images[index], labels[index], predicted[index]

    def show(self, trainer: Trainer, *columns: Tensor) -> None:
        order = columns[0].argsort(descending=True, stable=True)[: self.count]
        order = order[columns[0][order] > 0]  # right answers have been given 0
        sure, images, *classes = (column[order] for column in columns)
        true, predicted = (column.tolist() for column in classes)
        if images.ndim == 4:
            figure = figures.mistakes(pictures(images), class_names(trainer), true, predicted, sure.tolist())
            log_image(trainer, "test/mistakes", figures.pixels(figure))


class PRCurves(Predictions):
    """Gives TensorBoard a precision-recall curve of each class on the test set."""

    def gather(self, logits: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002
        return logits.float().softmax(dim=1), labels

    def show(self, trainer: Trainer, *columns: Tensor) -> None:
        probabilities, labels = columns
        for writer in tensorboards(trainer):
            for number, name in enumerate(class_names(trainer)):
                writer.add_pr_curve(f"test_pr/{name}", labels == number, probabilities[:, number], trainer.global_step)
