"""From a torchvision dataset, or a folder of pictures, to batches on a device."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from runlab.config.messages import UserError, user_errors
from runlab.data import archives, folders
from runlab.data.fused import fused
from runlab.data.in_memory import Batch, InMemoryDataset
from runlab.data.splits import random_order, split, stratified_order
from runlab.data.targets import call_sampler


@dataclass(kw_only=True, eq=False)
class ImageDataModule(LightningDataModule):
    """Batches of images `(B, C, H, W)` float32 and labels `(B,)` int64, from a torchvision dataset held in memory."""

    dataset: Callable[..., Any] | None  # takes root, download, train or split; has data, and targets or labels
    root: str  # folder of the datasets
    num_classes: int  # how many the dataset must have
    channels: int  # C that its images must have: 1 grey, 3 colour
    size: int  # height and width that they must have, in pixels
    val_size: int | float  # samples of the training set that are kept for validation; as a float their share
    folds: int | None  # parts of equal size, one of which is kept for validation instead
    fold: int | None  # which of them, from 0
    split_seed: int  # draws what is kept
    batch_size: int | None  # samples in a training batch, on each device; None with a batch_sampler
    eval_batch_size: int  # samples in a validation, test or predict batch, on each device
    shuffle: bool  # a new training order each epoch
    sampler: Callable[..., Sampler[int]] | None  # takes the training set's indices, or its targets, orders them
    batch_sampler: Callable[..., Sampler[list[int]]] | None  # takes the same, gives lists of indices
    drop_last: bool  # leave out a last training batch of less than batch_size samples
    num_workers: int  # processes of each loader
    device_resident: bool | str  # hold the images on the Trainer's device; "auto": if it is a GPU and they fit
    train_transform: Callable[[Tensor], Tensor]  # (B, C, H, W) uint8 on its device -> the network's input
    eval_transform: Callable[[Tensor], Tensor]  # the same for validation, test and predict
    per_image: bool  # call train_transform for each image alone, so that what it draws differs between them

    def __post_init__(self) -> None:
        super().__init__()
        self.train_transform, self.eval_transform = fused(self.train_transform), fused(self.eval_transform)
        self.class_names = [] if self.dataset else folders.subfolders(folders.parts(self.root)["train"])
        self.example_input = torch.zeros(2, self.channels, self.size, self.size, dtype=torch.uint8)  # for runlab.export
        self.train_set = self.val_set = self.test_set = cast("Any", None)  # until `setup` an InMemoryDataset each

    @property
    def checksums(self) -> dict[str, str]:
        """The MD5 of what the images are read from, by the files' names."""
        return archives.checksums(self.dataset)

    def prepare_data(self) -> None:
        archives.prepare(self.dataset, self.root)

    @user_errors("data")
    def setup(self, stage: str) -> None:
        """Read what `stage` (fit, validate, test, predict) needs into memory, once."""
        if stage in ("fit", "validate") and self.train_set is None:
            self.train_set, self.val_set = self._train_and_val()
        if stage in ("test", "predict") and self.test_set is None:
            self.test_set = self._test()

    def _train_and_val(self) -> tuple[InMemoryDataset, InMemoryDataset]:
        whole = self._read(train=True)
        train, val, _ = split(random_order(len(whole), self.split_seed), 0, self.val_size, self.folds, self.fold)
        return whole.subset(train), whole.subset(val)

    def _test(self) -> InMemoryDataset:
        return self._read(train=False)

    def _read(self, train: bool) -> InMemoryDataset:
        images, labels, names = archives.read(self.dataset, self.root, train, targets=("targets", "labels"))
        # MNIST's own names are "0 - zero" and so on: the part before the dash is what fits on an axis.
        class_names = [name.split(" - ")[0] for name in names or map(str, range(self.num_classes))]
        return self._in_memory(images, labels, class_names)

    def _in_memory(self, data: Any, labels: Tensor, class_names: list[str]) -> InMemoryDataset:
        """Images as `(N, C, H, W)` uint8, and labels `(N,)`; `UserError` where they are not what the config says."""
        self.class_names = class_names
        if len(class_names) != self.num_classes:
            raise UserError(f"data.num_classes={self.num_classes}: the dataset has {len(class_names)} classes")
        images = archives.channels_first(data)
        if (shape := tuple(images.shape[1:])) != (self.channels, self.size, self.size):
            raise UserError(f"data.channels={self.channels} data.size={self.size}: the dataset has images {shape}")
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        resident = self.num_workers == 0 and self.device_resident  # a loader's processes cannot share a GPU's memory
        return InMemoryDataset.in_memory(images, labels, resident, device)

    @user_errors("data")
    def train_dataloader(self) -> DataLoader[Batch]:
        batches: dict[str, Any] = {"batch_size": self.batch_size, "drop_last": self.drop_last}
        if self.batch_sampler:
            batches = {"batch_sampler": call_sampler(self.batch_sampler, self.train_set, "data.batch_sampler")}
        elif self.sampler:
            batches["sampler"] = call_sampler(self.sampler, self.train_set, "data.sampler")
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

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Apply the transform to the batch where it is, on its device."""
        if isinstance(batch, Tensor):  # images alone, to predict from
            return self.eval_transform(batch)
        if not (self.trainer and self.trainer.training):
            return self.eval_transform(batch[0]), batch[1]
        if self.per_image:
            return torch.cat([self.train_transform(image) for image in batch[0].split(1)]), batch[1]
        return self.train_transform(batch[0]), batch[1]

    def read_input(self, source: Path | NDArray[Any]) -> Tensor:
        """An image `(C, size, size)` uint8, from a file or from pixels: flat, or with channels first, last or none."""
        shape, pixels = (self.channels, self.size, self.size), source
        if isinstance(pixels, Path):  # a folder's files are converted from colour to grey, as they were for training
            pixels = decoded(pixels, 3 if self.dataset else self.channels, self.size)
            if self.channels == 1 and pixels.ndim == 3 and not np.ptp(pixels, axis=2).any():  # grey, saved as colour
                pixels = pixels[..., 0]
        flat = pixels.shape == (self.channels * self.size**2,)
        image = archives.channels_first(np.array(pixels.reshape(shape) if flat else pixels)[None])[0]
        if tuple(image.shape) != shape or pixels.dtype.kind not in "ui" or pixels.min() < 0 or pixels.max() > 255:
            what = f"{pixels.dtype} {pixels.shape} from {pixels.min()} to {pixels.max()}"
            raise UserError(f"{what}, but the run's images are {shape}, whole numbers from 0 to 255")
        return image.to(torch.uint8)

    def _loader(self, dataset: InMemoryDataset, **batches: Any) -> DataLoader[Batch]:
        workers: dict[str, Any] = {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}
        return DataLoader(dataset, collate_fn=tuple, **workers, **batches)  # a batch comes whole: nothing to collate


@dataclass(kw_only=True, eq=False)
class ImageFolderDataModule(ImageDataModule):
    """The same from a folder with a sub-folder of files for each class; see conf/data/image_folder.yaml."""

    test_size: int | float  # samples that are kept for the test if there is no folder test/; as a float their share

    prepare_data = LightningDataModule.prepare_data  # nothing is downloaded

    @cached_property
    def checksums(self) -> dict[str, str]:  # the files are read once
        return {f"{Path(self.root).name}/": folders.checksum(Path(self.root))}

    def _train_and_val(self) -> tuple[InMemoryDataset, InMemoryDataset]:
        train, val, _ = self._split
        return self._whole.subset(train), self._decoded("val") if "val" in self._parts else self._whole.subset(val)

    def _test(self) -> InMemoryDataset:
        return self._decoded("test") if "test" in self._parts else self._whole.subset(self._split[2])

    @cached_property
    def _parts(self) -> dict[str, Path]:
        """The parts that have a folder. With folds, what is validated on is one of them, and val/ is left alone."""
        found = folders.parts(self.root)
        return {part: found[part] for part in found if not (part == "val" and self.folds)}

    @cached_property
    def _whole(self) -> InMemoryDataset:
        """What has no folder of its own is split off this."""
        return self._decoded("train")

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor, Tensor]:
        sizes = {"test": self.test_size, "val": self.val_size} | dict.fromkeys(self._parts, 0)
        order = stratified_order(self._whole.targets.cpu(), self.split_seed)
        return split(order, sizes["test"], sizes["val"], self.folds, self.fold)

    def _decoded(self, part: str) -> InMemoryDataset:
        names = folders.subfolders(self._parts["train"])
        decode = partial(decoded, channels=self.channels, size=self.size)
        images, labels = folders.read(self._parts[part], names, (".png", ".jpg", ".jpeg"), decode)
        return self._in_memory(images, labels, names)


def decoded(path: Path, channels: int, size: int) -> NDArray[np.uint8]:
    """An image file, turned upright: `(size, size)` uint8, grey, for one channel, else `(size, size, 3)`."""
    with Image.open(path) as image:
        if image.mode[0] in "IF":  # Pillow would cut them off at 255
            raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
        upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
        return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))
