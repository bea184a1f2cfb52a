"""From a torchvision dataset to batches on a device."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import Sampler

from digits import archives
from digits.errors import UserError, user_errors
from digits.loaders import Batch, EpochLoader, EpochSampler, ImageDataset, reseed


@dataclass(kw_only=True, eq=False)
class MNISTDataModule(LightningDataModule):
    """Batches of images `(B, 1, 28, 28)` float32 and labels `(B,)` int64, from MNIST or a dataset of its format."""

    dataset: Callable[..., Any]  # takes root, train, download; has data (N, 28, 28) uint8, targets (N,) and classes
    root: str  # folder of the datasets
    num_classes: int  # how many the dataset must have
    val_size: int  # samples of the training set that are kept for validation
    split_seed: int  # draws them
    batch_size: int | None  # samples in a training batch, on each device; None with a batch_sampler
    eval_batch_size: int  # samples in a validation, test or predict batch, on each device
    shuffle: bool  # a new training order each epoch
    sampler: Callable[[range], Sampler[int]] | None  # takes the training set's indices, orders them
    batch_sampler: Callable[[range], Sampler[list[int]]] | None  # takes the training set's indices, gives lists of them
    drop_last: bool  # leave out a last training batch of less than batch_size samples
    num_workers: int  # processes of each loader
    train_transform: Callable[[Tensor], Tensor]  # (B, 1, 28, 28) uint8 on its device -> the network's input
    eval_transform: Callable[[Tensor], Tensor]  # the same for validation, test and predict
    seed: int  # fixes the training order

    def __post_init__(self) -> None:
        super().__init__()
        self.checksums = archives.checksums(self.dataset)
        self.class_names: list[str] = []
        self.train_set: ImageDataset | None = None
        self.val_set: ImageDataset | None = None
        self.test_set: ImageDataset | None = None

    def prepare_data(self) -> None:
        archives.prepare(self.dataset, self.root)

    @user_errors("data")
    def setup(self, stage: str) -> None:
        """Read what `stage` (fit, validate, test, predict) needs into memory, once."""
        if stage in ("fit", "validate") and self.train_set is None:
            images, labels = self._read(train=True)
            if self.val_size >= len(images):
                raise UserError(f"data.val_size={self.val_size}: the training set has only {len(images)} samples")
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.split_seed))
            val, train = order[: self.val_size].sort().values, order[self.val_size :].sort().values
            self.train_set, self.val_set = (ImageDataset(images[part], labels[part]) for part in (train, val))
        if stage in ("test", "predict") and self.test_set is None:
            self.test_set = ImageDataset(*self._read(train=False))

    def _read(self, train: bool) -> Batch:
        dataset = self.dataset(root=self.root, train=train)
        # MNIST's own names are "0 - zero" and so on: the part before the dash is what fits on an axis.
        self.class_names = [name.split(" - ")[0] for name in dataset.classes]
        if len(self.class_names) != self.num_classes:
            raise UserError(f"data.num_classes={self.num_classes}: the dataset has {len(self.class_names)} classes")
        return dataset.data.unsqueeze(1), dataset.targets

    @user_errors("data")
    def train_dataloader(self) -> EpochLoader:
        rank, world = self._shard()
        indices = range(len(self.train_set or ()))
        epoch = partial(EpochSampler, shuffle=self.shuffle, seed=self.seed, rank=rank, world=world)
        batches: dict[str, Any] = {"batch_size": self.batch_size, "drop_last": self.drop_last}
        batches["sampler"] = (self.sampler or epoch)(indices)
        if self.batch_sampler:
            batches = {"batch_sampler": self.batch_sampler(indices)}
        loader = self._loader(self.train_set, **batches)
        if len(loader) == 0:
            raise UserError(f"data.batch_size={self.batch_size} with data.drop_last=true leaves no batch")
        loader.begin = self._begin_epoch
        return loader

    def _begin_epoch(self) -> int:
        """The batches of this epoch that are done; a sampler that draws from torch's generator draws as it did then."""
        epoch, done = (self.trainer.current_epoch, self.trainer.fit_loop.batch_idx + 1) if self.trainer else (0, 0)
        reseed(hash((self.seed, epoch)))
        return done

    def val_dataloader(self) -> EpochLoader | list[Any]:
        return self._eval_loader(self.val_set) if self.val_size else []

    def test_dataloader(self) -> EpochLoader:
        return self._eval_loader(self.test_set)

    predict_dataloader = test_dataloader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Apply the transform to the batch where it is, on its device."""
        if not (self.trainer and self.trainer.training):
            return self.eval_transform(batch[0]), batch[1]
        # What random transforms and dropout draw depends on (seed, batch, rank) alone: a resumed run draws the same.
        reseed(hash((self.seed, self.trainer.fit_loop.total_batch_idx, self.trainer.global_rank)))
        return self.train_transform(batch[0]), batch[1]

    def _eval_loader(self, dataset: ImageDataset | None) -> EpochLoader:
        order = EpochSampler(range(len(dataset or ())), False, self.seed, *self._shard())
        return self._loader(dataset, batch_size=self.eval_batch_size, sampler=order)

    def _loader(self, dataset: ImageDataset | None, **batches: Any) -> EpochLoader:
        assert dataset is not None, "setup(stage) comes before the loaders"
        batches |= {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}
        return EpochLoader(dataset, collate_fn=tuple, **batches)  # a batch comes whole: there is nothing to collate

    def _shard(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
