"""The task: a network that classifies images, how it is trained and measured."""

from collections.abc import Callable
from typing import Any

from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import MulticlassConfusionMatrix

from runlab.config.messages import user_errors
from runlab.data.in_memory import Batch
from runlab.training.logging_step import logs_this_batch
from runlab.training.schedulers import with_scheduler


class ImageClassifier(LightningModule):
    """Trains a network, images `(B, 1, 28, 28)` float32 -> logits `(B, num_classes)`, with cross-entropy.

    `optimizer` takes the parameters, `scheduler` the optimizer (None: a constant rate). Accuracy is correct / total
    over a whole split, on any number of devices.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.network, self.optimizer, self.scheduler = network, optimizer, scheduler
        # Counts (num_classes, num_classes) int64, rows = true class, columns = predicted; kept until the next epoch.
        counts = {stage: MulticlassConfusionMatrix(num_classes, validate_args=False) for stage in ("val", "test")}
        self.counts: Any = nn.ModuleDict(counts)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        return self._step(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Class probabilities `(B, num_classes)` float32."""
        return self(batch[0]).softmax(dim=1)

    def _step(self, batch: Batch, stage: str) -> Tensor:
        """The loss in training, else the logits `(B, num_classes)`."""
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        if stage != "train":
            self.counts[stage].update(logits, labels)
            self.log(f"{stage}/loss", loss, batch_size=len(labels), sync_dist=True)
            return logits
        if logs_this_batch(self.trainer):  # self.log costs as much as a step of a small network
            self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.counts["val"].reset()

    def on_test_epoch_start(self) -> None:
        self.counts["test"].reset()

    def on_validation_epoch_end(self, stage: str = "val") -> None:
        counts = self.counts[stage].compute()
        self.log(f"{stage}/acc", counts.trace() / counts.sum(), prog_bar=True)
        self.log("step", float(self.global_step))  # Lightning's x axis for this epoch's metrics; figures have the same

    def on_test_epoch_end(self) -> None:
        self.on_validation_epoch_end("test")

    @user_errors("optimizer")
    def configure_optimizers(self) -> Any:
        trained = [
            parameter for parameter in self.parameters() if parameter.requires_grad
        ]  # all, or what is not frozen
        return with_scheduler(self.optimizer(trained), self.scheduler, self.trainer)
