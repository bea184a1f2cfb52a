"""A regression on a table: rows as dicts, and a learning rate that falls when val_loss no longer does."""

from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, random_split
from torchmetrics import MeanAbsoluteError

Batch = dict[str, Tensor]  # x (B, features), y (B,), both float32


class TableData(LightningDataModule):
    def __init__(self, rows: int, features: int, batch_size: int, num_workers: int) -> None:
        super().__init__()
        self.rows, self.features = rows, features
        self.batch_size, self.num_workers = batch_size, num_workers

    def setup(self, stage: str) -> None:  # noqa: ARG002
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.rows, self.features, generator=generator)
        y = x @ torch.linspace(-1, 1, self.features) + 0.1 * torch.randn(self.rows, generator=generator)
        table: Any = [{"x": features, "y": target} for features, target in zip(x, y, strict=True)]
        self.train, self.val, self.test = random_split(table, [0.6, 0.2, 0.2], generator)

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.val, self.batch_size, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.test, self.batch_size, num_workers=self.num_workers)


class Regressor(LightningModule):
    def __init__(self, features: int, lr: float, patience: int) -> None:
        super().__init__()
        self.network, self.mae = nn.Sequential(nn.Linear(features, 1), nn.Flatten(0)), MeanAbsoluteError()
        self.lr, self.patience = lr, patience

    def training_step(self, batch: Batch) -> Tensor:
        return mse_loss(self.network(batch["x"]), batch["y"])

    def validation_step(self, batch: Batch) -> None:
        self.log("val_loss", mse_loss(self.network(batch["x"]), batch["y"]))

    def test_step(self, batch: Batch) -> None:
        y = self.network(batch["x"])
        self.mae(y, batch["y"])
        self.log_dict({"test_loss": mse_loss(y, batch["y"]), "test_mae": self.mae})

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.lr)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=self.patience)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}
