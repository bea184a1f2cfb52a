"""A data module and callbacks of a user's own, as whoever makes the template theirs would write them first."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import BaseFinetuning
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


class Mine(LightningDataModule):
    def __init__(
        self, num_classes: int, batch_size: int, channels: int = 1, side: int = 28, first_label: int = 0
    ) -> None:
        super().__init__()
        self.num_classes, self.batch_size = num_classes, batch_size
        self.class_names = [str(i) for i in range(num_classes)]
        x = torch.rand(640, channels, side, side, generator=torch.Generator().manual_seed(0))
        y = (x.mean((1, 2, 3)) * 1e4).long() % num_classes + first_label
        self.set = TensorDataset(x, y)

    def train_dataloader(self) -> Any:
        return DataLoader(self.set, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.set, 64)

    def test_dataloader(self) -> Any:
        return DataLoader(self.set, 64)


class Untested(Mine):
    test_dataloader = LightningDataModule.test_dataloader


class TwoOfEach(Mine):
    """Two loaders to validate and two to test, the second with half of the samples."""

    def val_dataloader(self) -> Any:
        return [DataLoader(self.set, 64), DataLoader(torch.utils.data.Subset(self.set, range(320)), 64)]

    test_dataloader = val_dataloader


class Pairs(IterableDataset[Any]):
    """The samples of a data set as a stream: it has no length."""

    def __init__(self, samples: TensorDataset) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return iter(self.samples[i] for i in range(len(self.samples)))


class Stream(Mine):
    def train_dataloader(self) -> Any:
        return DataLoader(Pairs(self.set), self.batch_size)


class Thaw(BaseFinetuning):
    """Trains the last layer alone in the first epoch, and all of them from then on."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(list(pl_module.network)[:-1])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(list(pl_module.network)[:-1], optimizer)


class Teacher(LightningModule):
    """Keeps an average of its weights in `on_train_batch_end`, and trains towards it."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.student, self.teacher, self.lr = torch.nn.Linear(784, 10), torch.nn.Linear(784, 10), lr
        self.teacher.requires_grad_(False)

    def training_step(self, batch: Any) -> Any:
        x = batch[0].flatten(1)
        loss = torch.nn.functional.cross_entropy(self.student(x), batch[1])
        loss = loss + (self.student(x) - self.teacher(x)).square().mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any) -> None:
        self.log("val_loss", torch.nn.functional.cross_entropy(self.teacher(batch[0].flatten(1)), batch[1]))

    def on_train_batch_end(self, *batch: Any) -> None:  # noqa: ARG002
        with torch.no_grad():
            for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.lerp_(theirs, 0.1)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.student.parameters(), self.lr)


class Rows(Mine):
    """Rows of pixels in place of images."""

    def __init__(self, num_classes: int, batch_size: int) -> None:
        super().__init__(num_classes, batch_size)
        self.set = TensorDataset(self.set.tensors[0].flatten(1), self.set.tensors[1])


class Unseen(Stream):
    """A stream, whose labels nobody sees beforehand, with one that is no class's."""

    def __init__(self, num_classes: int, batch_size: int) -> None:
        super().__init__(num_classes, batch_size, first_label=1)
