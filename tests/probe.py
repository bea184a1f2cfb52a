"""A small task that notes what it is trained, validated and tested on, for tests of the Trainer's arguments."""

from typing import Any, NamedTuple

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset


class Seen(NamedTuple):
    """One batch, as a step has met it."""

    stage: str
    epoch: int
    rows: list[int]  # the numbers of its samples
    dtype: torch.dtype  # of the network's weights
    inference: bool
    anomaly: bool


SEEN: list[Seen] = []  # the batches of all stages but the sanity check
NOTES: list[str] = []  # which stages' loaders were made, and what callbacks note


class Rows(LightningDataModule):
    """Ten training batches of four samples, three of validation, two of the test; sample i of a stage has number i."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def loader(self, stage: str, count: int, **options: Any) -> Any:
        NOTES.append(stage)
        x = torch.randn(count, 4, generator=torch.Generator().manual_seed(count))
        return DataLoader(TensorDataset(x, x.sum(1), torch.arange(count)), self.batch_size, **options)

    def train_dataloader(self) -> Any:
        return self.loader("train", 40, shuffle=True)

    def val_dataloader(self) -> Any:
        return self.loader("val", 12)

    def test_dataloader(self) -> Any:
        return self.loader("test", 8)


class Probe(LightningModule):
    """Logs train_loss at each step, val_loss and test_loss: mean squared errors."""

    def __init__(self, lr: float, scheduler: Any = None) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.lr, self.scheduler = lr, scheduler

    def loss(self, stage: str, batch: list[Tensor]) -> Tensor:
        x, y, numbers = batch
        loss = mse_loss(self.network(x).squeeze(1), y)
        if not self.trainer.sanity_checking:
            weight = next(self.parameters())
            flags = torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()
            SEEN.append(Seen(stage, self.current_epoch, numbers.tolist(), weight.dtype, *flags))
        self.log(f"{stage}_loss", loss)
        return loss

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return self.loss("train", batch)

    def validation_step(self, batch: list[Tensor]) -> None:
        self.loss("val", batch)

    def test_step(self, batch: list[Tensor]) -> None:
        self.loss("test", batch)

    def predict_step(self, batch: list[Tensor]) -> Tensor:
        return self.network(batch[0])

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, self.lr, momentum=0.9)
        return {"optimizer": optimizer, **({"lr_scheduler": self.scheduler(optimizer)} if self.scheduler else {})}


class WithBackbone(Probe):
    """Probe whose first layers are its backbone, as BackboneFinetuning wants it."""

    @property
    def backbone(self) -> Any:
        return self.network[0]


class TwoLoaders(Rows):
    """Two loaders to validate."""

    def val_dataloader(self) -> Any:
        return [self.loader("val", 12), self.loader("val", 8)]


class LogsAfterwards(Probe):
    """Logs one more value when the validation of all loaders is over."""

    def validation_step(self, batch: list[Tensor], batch_idx: int = 0, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        self.loss("val", batch)

    def on_validation_epoch_end(self) -> None:
        self.log("val_after", 1.0)


def note_epoch(trainer: Any, *rest: Any) -> None:  # noqa: ARG001
    NOTES.append(f"epoch {trainer.current_epoch}")


def half(epoch: int) -> float:
    return 0.5**epoch


def batch_size(batch: Any) -> int:
    return len(batch[0])
