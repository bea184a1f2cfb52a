"""The task: a network that classifies images, how it is trained and measured."""

import logging
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._pytree import tree_leaves
from torchmetrics.classification import MulticlassConfusionMatrix

from runlab.config.messages import UserError, user_errors
from runlab.data.targets import check_classes, check_loaders, inputs_and_targets
from runlab.training.logged_values import logs_this_batch
from runlab.training.schedulers import with_scheduler

log = logging.getLogger(__name__)


class ImageClassifier(LightningModule):
    """Trains a network, images `(B, C, H, W)` float32 -> logits `(B, num_classes)`, with cross-entropy.

    A batch is a pair of images and labels `(B,)` int64, or a mapping of these two. `optimizer` takes the parameters,
    `scheduler` the optimizer (None: a constant rate). Accuracy is correct / total over a whole split, on any number of
    devices. Of several validation or test loaders each has its own metrics: `val/acc/dataloader_idx_1` is the second's.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None,
        num_classes: int,
        compile: bool,
    ) -> None:
        super().__init__()
        self.network, self.optimizer, self.scheduler = network, optimizer, scheduler
        self.num_classes, self.compiles = num_classes, compile
        # Each loader's counts (num_classes, num_classes) int64, rows = true class, columns = predicted.
        self.counts: Any = nn.ModuleDict({"val": nn.ModuleList(), "test": nn.ModuleList()})

    def setup(self, stage: str) -> None:  # noqa: ARG002
        if self.compiles:
            self.network.compile()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = inputs_and_targets(batch)
        if batch_idx == 0:
            self._check_batch(images, labels)
        loss = self._loss(self.network(images), labels)
        if logs_this_batch(self.trainer):  # self.log costs as much as a step of a small network
            self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, batch_idx, dataloader_idx, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Logits `(B, num_classes)`, for the callbacks."""
        return self._evaluate(batch, batch_idx, dataloader_idx, "test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:  # noqa: ARG002
        """Class probabilities `(B, num_classes)` float32; the batch may also be images alone."""
        return self(batch if isinstance(batch, Tensor) else inputs_and_targets(batch)[0]).softmax(dim=1)

    def output_columns(self, outputs: Tensor, batch: Any, data: Any) -> dict[str, Any]:
        """For predict.py: the predicted class, the true one where the batch has it, the probability of each class."""
        if (names := getattr(data, "class_names", None)) == []:  # not known until the data set has been read
            data.prepare_data()
            data.setup("predict")
        names = np.array(data.class_names if names is not None else range(self.num_classes), dtype=str)
        true = {} if isinstance(batch, Tensor) else {"true": names[inputs_and_targets(batch)[1].cpu()]}
        columns = [f"P({name})" if name in ("file", "index", "predicted", "true", "error") else name for name in names]
        return {"predicted": names[outputs.argmax(dim=1).cpu()], **true, **dict(zip(columns, outputs.T, strict=True))}

    def _evaluate(self, batch: Any, batch_idx: int, dataloader_idx: int, stage: str) -> Tensor:
        images, labels = inputs_and_targets(batch)
        if batch_idx == 0:
            self._check_batch(images, labels)
        logits = self.network(images)
        self.log(f"{stage}/loss", self._loss(logits, labels), batch_size=len(labels), sync_dist=True)
        self.counts[stage][dataloader_idx].update(logits, labels)
        return logits

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        try:
            return F.cross_entropy(logits, labels.long())  # also from int32
        except IndexError:  # a label of no class
            check_classes(labels, self.num_classes, "labels")
            raise

    def _check_batch(self, images: Tensor, labels: Tensor) -> None:
        """`UserError` where an epoch's first batch is not what the network takes."""
        check_classes(labels, self.num_classes, "labels")
        takes, shape = getattr(self.network, "input_shape", None), tuple(images.shape[1:])
        if takes and shape not in (takes, (prod(takes),)):
            differing = {"channels": takes[:1] != shape[:1], "size": takes[1:] != shape[1:]}
            keys = " and ".join(f"model.{key}, data.{key}" for key, differs in differing.items() if differs)
            raise UserError(f"the network takes {takes}, the data has {shape}; see {keys}")

    def on_train_start(self) -> None:
        missing = check_loaders(self.trainer.train_dataloader, self.num_classes, "labels")
        if missing and self.trainer.is_global_zero:
            log.warning("no training sample has label %s", ", ".join(map(str, missing)))

    def on_validation_epoch_start(self) -> None:
        self._begin("val", self.trainer.val_dataloaders)

    def on_test_epoch_start(self) -> None:
        self._begin("test", self.trainer.test_dataloaders)

    def _begin(self, stage: str, loaders: Any) -> None:
        check_loaders(loaders, self.num_classes, "labels")
        counts = self.counts[stage]
        while len(counts) < len(tree_leaves(loaders)):
            counts.append(MulticlassConfusionMatrix(self.num_classes, validate_args=False).to(self.device))
        for metric in counts:
            metric.reset()

    def on_validation_epoch_end(self, stage: str = "val") -> None:
        for number, metric in enumerate(self.counts[stage]):
            counts, several = metric.compute(), len(self.counts[stage]) > 1
            name = f"{stage}/acc/dataloader_idx_{number}" if several else f"{stage}/acc"  # as self.log does in a step
            self.log(name, counts.trace() / counts.sum(), prog_bar=True, add_dataloader_idx=False)
        self.log("step", float(self.global_step))  # Lightning's x axis for this epoch's metrics; figures have the same

    def on_test_epoch_end(self) -> None:
        self.on_validation_epoch_end("test")

    @user_errors("optimizer")
    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]  # all, or what is not frozen
        return with_scheduler(self.optimizer(trained), self.scheduler, self.trainer)
