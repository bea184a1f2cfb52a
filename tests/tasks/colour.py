"""A convolutional network says which colour an image's edge has; training images are mirrored at random."""

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2 import RandomHorizontalFlip


class Images(TensorDataset):
    def __init__(self, size: int, flip: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        images, labels = torch.randn(size, 3, 16, 16, generator=generator), torch.arange(size) % 3
        images[torch.arange(size), labels, :, :4] += 1  # the left edge, until it is mirrored
        super().__init__(images, labels)
        self.flip = RandomHorizontalFlip(flip)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.flip(self.tensors[0][index]), self.tensors[1][index]


class ImagesData(L.LightningDataModule):
    def __init__(self, train_size: int, flip: float, batch_size: int, num_workers: int) -> None:
        super().__init__()
        self.train, self.val, self.test = Images(train_size, flip, 0), Images(100, 0, 1), Images(100, 0, 2)
        self.batch_size, self.num_workers = batch_size, num_workers

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.val, self.batch_size, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.test, self.batch_size, num_workers=self.num_workers)


class ColourNet(L.LightningModule):
    def __init__(self, channels: int, dropout: float, lr: float, gamma: float) -> None:  # noqa: ARG002
        super().__init__()
        self.save_hyperparameters()
        layers = nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(7), nn.Flatten()
        self.network = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(4 * channels, 3))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        logits, labels = self.network(batch[0]), batch[1]
        self.log("val/loss", nn.functional.cross_entropy(logits, labels))
        self.log("val/acc", (logits.argmax(1) == labels).float().mean(), prog_bar=True)

    def test_step(self, batch: list[Tensor]) -> None:
        self.log("test/acc", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> tuple[list[torch.optim.SGD], list[torch.optim.lr_scheduler.StepLR]]:
        optimizer = torch.optim.SGD(self.parameters(), self.hparams["lr"], momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, self.hparams["gamma"])]
