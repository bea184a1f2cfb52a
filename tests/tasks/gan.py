"""A generative adversarial network learns a cloud of points: two optimizers stepped by hand, nothing to test."""

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset


class PointsData(LightningDataModule):
    def __init__(self, train_size: int, val_size: int, batch_size: int, num_workers: int) -> None:
        super().__init__()
        self.batch_size, self.num_workers = batch_size, num_workers
        points = 2 + torch.randn(train_size + val_size, 2, generator=torch.Generator().manual_seed(0))
        self.train, self.val = TensorDataset(points[:train_size]), TensorDataset(points[train_size:])

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.val, self.batch_size, num_workers=self.num_workers)


class GAN(LightningModule):
    def __init__(self, noise_size: int, hidden: int, g_lr: float, d_lr: float) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.noise_size, self.g_lr, self.d_lr = noise_size, g_lr, d_lr
        self.generator = nn.Sequential(nn.Linear(noise_size, hidden), nn.ReLU(), nn.Linear(hidden, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))

    def forward(self, count: int) -> Tensor:
        return self.generator(torch.randn(count, self.noise_size, device=self.device))

    def training_step(self, batch: list[Tensor]) -> None:
        g_optimizer, d_optimizer = self.optimizers()  # type: ignore[attr-defined]  # a list of two
        (real,) = batch
        fake = self(len(real))

        d_loss = (softplus(-self.discriminator(real)) + softplus(self.discriminator(fake.detach()))).mean()
        d_optimizer.zero_grad()
        self.manual_backward(d_loss)
        d_optimizer.step()

        g_loss = softplus(-self.discriminator(fake)).mean()
        g_optimizer.zero_grad()
        self.manual_backward(g_loss)
        g_optimizer.step()
        self.log_dict({"g_loss": g_loss, "d_loss": d_loss})

    def validation_step(self, batch: list[Tensor]) -> None:
        real, fake = batch[0], self(len(batch[0]))
        self.log("val_distance", (real.mean(0) - fake.mean(0)).norm() + (real.std(0) - fake.std(0)).norm())

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        g_optimizer = torch.optim.Adam(self.generator.parameters(), self.g_lr)
        return [g_optimizer, torch.optim.Adam(self.discriminator.parameters(), self.d_lr)]
