"""An autoencoder squeezes noisy sine waves through a narrow layer; the noise is drawn anew at each reading."""

import random

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Waves(Dataset[Tensor]):
    def __init__(self, size: int, length: int, noise: float, seed: int) -> None:
        phase = 6.3 * torch.rand(size, 1, generator=torch.Generator().manual_seed(seed))
        self.waves, self.noise, self.length = torch.sin(phase + torch.linspace(0, 6.3, length)), noise, length

    def __len__(self) -> int:
        return len(self.waves)

    def __getitem__(self, index: int) -> Tensor:
        return self.waves[index] + self.noise * (torch.randn(self.length) + np.random.normal() + random.gauss(0, 1))


class WavesData(L.LightningDataModule):
    def __init__(self, train_size: int, length: int, noise: float, batch_size: int, num_workers: int) -> None:
        super().__init__()
        self.train, self.val, self.test = (Waves(n, length, noise, i) for i, n in enumerate([train_size, 100, 100]))
        self.batch_size, self.num_workers = batch_size, num_workers

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.val, self.batch_size, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.test, self.batch_size, num_workers=self.num_workers)


class AutoEncoder(L.LightningModule):
    def __init__(self, length: int, code: int, lr: float) -> None:
        super().__init__()
        self.network, self.lr = nn.Sequential(nn.Linear(length, code), nn.ReLU(), nn.Linear(code, length)), lr

    def training_step(self, waves: Tensor) -> Tensor:
        loss = nn.functional.mse_loss(self.network(waves), waves)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, waves: Tensor) -> None:
        self.log("val_loss", nn.functional.mse_loss(self.network(waves), waves))

    def test_step(self, waves: Tensor) -> None:
        self.log("test_loss", nn.functional.mse_loss(self.network(waves), waves))

    def predict_step(self, waves: Tensor) -> Tensor:
        return self.network(waves)

    def configure_optimizers(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.parameters(), self.lr)
