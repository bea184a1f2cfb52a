"""A character language model learns from a stream of windows without a length; it is evaluated on two texts."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset[Tensor]):
    def __init__(self, windows: Tensor, count: int) -> None:
        self.windows, self.count = windows, count

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.count):
            yield self.windows[torch.randint(len(self.windows), ())]


class TextData(LightningDataModule):
    def __init__(self, texts: Sequence[str], windows: int, length: int, batch_size: int, num_workers: int) -> None:
        super().__init__()
        train, *self.texts = [torch.tensor(list(text.encode("ascii"))).unfold(0, length, 1) for text in texts]
        self.train, self.batch_size, self.num_workers = Stream(train, windows), batch_size, num_workers

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.train, self.batch_size, num_workers=self.num_workers)

    def val_dataloader(self) -> list[DataLoader[Tensor]]:
        texts: Any = self.texts  # a tensor (N, length) is a data set as well
        return [DataLoader(text, self.batch_size, num_workers=self.num_workers) for text in texts]

    def test_dataloader(self) -> dict[str, DataLoader[Tensor]]:
        return dict(zip(["near", "far"], self.val_dataloader(), strict=True))


class CharacterModel(LightningModule):
    def __init__(self, size: int, lr: float) -> None:
        super().__init__()
        self.embedding, self.gru = nn.Embedding(128, size), nn.GRU(size, size, batch_first=True)
        self.head, self.lr = nn.Linear(size, 128), lr

    def forward(self, windows: Tensor) -> Tensor:
        states, _ = self.gru(self.embedding(windows[:, :-1]))
        return nn.functional.cross_entropy(self.head(states).flatten(0, 1), windows[:, 1:].flatten())

    def training_step(self, windows: Tensor) -> Tensor:
        loss = self(windows)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, windows: Tensor, batch_idx: int, dataloader_idx: int) -> None:  # noqa: ARG002
        self.log("val_loss", self(windows))

    def test_step(self, windows: Tensor, batch_idx: int, dataloader_idx: int) -> None:  # noqa: ARG002
        self.log("test_loss", self(windows))

    def configure_optimizers(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.parameters(), self.lr)
