"""From a torchvision dataset to batches on a device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from runlab.config.messages import UserError, user_errors
from runlab.data import archives
from runlab.data.fused import fused
from runlab.data.in_memory import Batch, InMemoryDataset, split


@dataclass(kw_only=True, eq=False)
class MNISTDataModule(LightningDataModule):
    """Batches of images `(B, 1, 28, 28)` float32 and labels `(B,)` int64, from MNIST or a dataset of its format."""

    dataset: Callable[..., Any]  # takes root, train, download; has data (N, 28, 28) uint8, targets (N,) and classes
    root: str  # folder of the datasets
    num_classes: int  # how many the dataset must have
    val_size: int  # samples of the training set that are kept for validation
    folds: int | None  # parts of equal size, one of which is kept for validation instead
    fold: int | None  # which of them, from 0
    split_seed: int  # draws what is kept
    batch_size: int | None  # samples in a training batch, on each device; None with a batch_sampler
    eval_batch_size: int  # samples in a validation, test or predict batch, on each device
    shuffle: bool  # a new training order each epoch
    sampler: Callable[[range], Sampler[int]] | None  # takes the training set's indices, orders them
    batch_sampler: Callable[[range], Sampler[list[int]]] | None  # takes the training set's indices, gives lists of them
    drop_last: bool  # leave out a last training batch of less than batch_size samples
    num_workers: int  # processes of each loader
    device_resident: bool | str  # hold the images on the Trainer's device; "auto": if it is a GPU and they fit
    train_transform: Callable[[Tensor], Tensor]  # (B, 1, 28, 28) uint8 on its device -> the network's input
    eval_transform: Callable[[Tensor], Tensor]  # the same for validation, test and predict

    def __post_init__(self) -> None:
        super().__init__()
        self.train_transform, self.eval_transform = fused(self.train_transform), fused(self.eval_transform)
        self.checksums = archives.checksums(self.dataset)
        self.class_names: list[str] = []
        self.train_set = self.val_set = self.test_set = cast("Any", None)  # until `setup` an InMemoryDataset each

    def prepare_data(self) -> None:
        archives.prepare(self.dataset, self.root)

    @user_errors("data")
    def setup(self, stage: str) -> None:
        """Read what `stage` (fit, validate, test, predict) needs into memory, once."""
        if stage in ("fit", "validate") and self.train_set is None:
            whole = self._read(train=True)
            parts = split(len(whole), self.split_seed, self.val_size, self.folds, self.fold)
            self.train_set, self.val_set = map(whole.subset, parts)
        if stage in ("test", "predict") and self.test_set is None:
            self.test_set = self._read(train=False)

    def _read(self, train: bool) -> InMemoryDataset:
        dataset = self.dataset(root=self.root, train=train)
        # MNIST's own names are "0 - zero" and so on: the part before the dash is what fits on an axis.
        self.class_names = [name.split(" - ")[0] for name in dataset.classes]
        if len(self.class_names) != self.num_classes:
            raise UserError(f"data.num_classes={self.num_classes}: the dataset has {len(self.class_names)} classes")
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        wanted = self.num_workers == 0 and self.device_resident  # processes of a loader cannot share a GPU's memory
        return InMemoryDataset.in_memory(dataset.data.unsqueeze(1), dataset.targets, wanted, device)

    @user_errors("data")
    def train_dataloader(self) -> DataLoader[Batch]:
        indices = range(len(self.train_set))
        batches: dict[str, Any] = {"batch_size": self.batch_size, "drop_last": self.drop_last}
        if self.batch_sampler:
            batches = {"batch_sampler": self.batch_sampler(indices)}
        elif self.sampler:
            batches["sampler"] = self.sampler(indices)
        else:
            batches["shuffle"] = self.shuffle
        loader = self._loader(self.train_set, **batches)
        if len(loader) == 0:
            raise UserError(f"data.batch_size={self.batch_size} with data.drop_last=true leaves no batch")
        return loader

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        return self._loader(self.val_set, batch_size=self.eval_batch_size) if len(self.val_set) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.test_set, batch_size=self.eval_batch_size)

    predict_dataloader = test_dataloader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Apply the transform to the batch where it is, on its device."""
        training = self.trainer is not None and self.trainer.training
        return (self.train_transform if training else self.eval_transform)(batch[0]), batch[1]

    def _loader(self, dataset: InMemoryDataset, **batches: Any) -> DataLoader[Batch]:
        workers: dict[str, Any] = {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}
        return DataLoader(dataset, collate_fn=tuple, **workers, **batches)  # a batch comes whole: nothing to collate
