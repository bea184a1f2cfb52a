"""Read torchvision's data sets that fit in memory, after verifying their files and unpacking damaged ones again."""

import functools
import inspect
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torchvision.datasets import EMNIST
from torchvision.datasets.utils import check_integrity

from runlab.config.messages import UserError, user_errors

WAY_OUT = "take data=image_folder for a folder of files, or a LightningDataModule of your own"


def part(dataset: Any, train: bool) -> dict[str, Any]:
    """The argument by which a data set, a class or a partial of one, gives its training or its test part."""
    cls, options = getattr(dataset, "func", dataset), getattr(dataset, "keywords", {})
    parameters = inspect.signature(cls).parameters
    if options.get("what") is not None:  # QMNIST's
        raise UserError(f"data.dataset.what={options['what']}: training and test set would be the same; leave it out")
    if "train" in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return {"train": train}
    if "split" in parameters:
        return {"split": "train" if train else "test"}
    raise UserError(f"data.dataset._target_: {cls.__name__} has neither train= nor split=; {WAY_OUT}")


def archives(dataset: Any) -> dict[Path, str]:
    """The MD5 that each file of a data set has by torchvision's word, by the file's path below the root.

    Empty for a class of another origin that lists nothing. `UserError` for one of torchvision's that is not in memory.
    """
    cls = getattr(dataset, "func", dataset)
    if "md5" in vars(cls):  # EMNIST: one archive, which its base class's list does not have
        return {Path(cls.__name__, "raw", Path(cls.url).name): cls.md5}
    if hasattr(cls, "resources"):  # a list of names, or QMNIST's lists of addresses
        listed = cls.resources
        pairs = [*listed["train"], *listed["test"]] if isinstance(listed, dict) else listed
        return {Path(cls.__name__, "raw", Path(name).name): md5 for name, md5 in pairs}
    if hasattr(cls, "split_list"):  # USPS, SVHN
        return {Path(name): md5 for _, name, md5 in (cls.split_list["train"], cls.split_list["test"])}
    if hasattr(cls, "train_list"):  # CIFAR10, CIFAR100
        pairs = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
        return {Path(cls.base_folder, name): md5 for name, md5 in pairs}
    if cls.__module__.startswith("torchvision."):
        raise UserError(f"data.dataset._target_: torchvision does not hold {cls.__name__} in memory; {WAY_OUT}")
    return {}


def checksums(dataset: Any) -> dict[str, str]:
    """The MD5 of each file that a data set is read from, by its name, once `prepare` has verified it."""
    return {path.name: md5 for path, md5 in archives(dataset).items()}


def prepare(dataset: Any, root: str) -> None:
    """Verify the files of a data set; unpack anew what is damaged, download what is missing.

    `UserError` where an archive is missing or wrong and cannot be downloaded. It stays as it is.
    """
    cls, split = getattr(dataset, "func", dataset), getattr(dataset, "keywords", {}).get("split")
    folder = Path(root, cls.__name__, "raw") if hasattr(cls, "resources") else Path(root)  # where the archives belong
    copies = Path(root, cls.__name__, "processed")
    if copies.is_dir() and any(copies.glob("*.pt")):  # torchvision would prefer them, whatever is in them
        raise UserError(f"{copies}: copies by an old torchvision; remove them")

    def damaged() -> list[Path]:
        paths = [(Path(root, path), md5) for path, md5 in archives(dataset).items()]
        stamps = {folder: _stamps(folder) for folder in {path.parent for path, _ in paths}}
        return [path for path, md5 in paths if not _is_intact(path, md5, split, stamps[path.parent])]

    if damaged():
        with user_errors(f"{folder}: data missing or damaged, no download; put the archives there or set data.root"):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):  # of two runs that start together, one unpacks
                for archive in damaged():
                    pattern = {".gz": archive.stem, ".zip": f"emnist-{split}-*-ubyte"}.get(archive.suffix)
                    for file in archive.parent.glob(pattern) if pattern else ():
                        file.unlink()
                for train in (True, False):
                    dataset(root=root, download=True, **part(dataset, train))  # torchvision checks the MD5s itself
                if wrong := damaged():  # not that of a file that it has found
                    raise UserError(f"{wrong[0]}: damaged; remove it, so that it is downloaded, or set data.root")


def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """By which a file that was written since is told: all of a folder's, with size and time."""
    found = ((path.name, path.stat()) for path in sorted(folder.glob("*")) if path.exists())
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in found)


@functools.cache
def _is_intact(archive: Path, md5: str, split: str | None, stamps: tuple[tuple[str, int, int], ...]) -> bool:  # noqa: ARG001
    """Whether an archive and what was unpacked from it are whole; of each state looked up once in a process."""
    return check_integrity(str(archive), md5) and _is_unpacked(archive, split)


def _is_unpacked(archive: Path, split: str | None) -> bool:
    """Whether the files that torchvision reads have the CRC-32 in which their gzip file ends (RFC 1952)."""
    ends = {}  # of the gzip files
    if archive.suffix == ".gz":
        with archive.open("rb") as file:
            file.seek(-8, os.SEEK_END)
            ends[archive.with_suffix("")] = file.read()
    elif archive.suffix == ".zip":  # of gzip files
        with ZipFile(archive) as outer:
            for name in outer.namelist():
                if name.startswith(f"gzip/emnist-{split}-") and name.endswith("-ubyte.gz"):
                    ends[archive.parent / Path(name).stem] = outer.read(name)[-8:]
    return all(path.is_file() and _crc32(path) == int.from_bytes(end[:4], "little") for path, end in ends.items())


def _crc32(path: Path) -> int:
    """In parts that fit into a processor's cache: a third of the time of reading the file as a whole."""
    total = 0
    with path.open("rb", buffering=0) as file:
        while part := file.read(1 << 18):
            total = zlib.crc32(part, total)
    return total


def read(dataset: Any, root: str, train: bool, targets: Sequence[str]) -> tuple[Any, Tensor, list[str] | None]:
    """What a data set holds: its inputs, its targets `(N,)` int64, and its classes' names, None where it has none.

    `targets` are the attributes that may hold these. `UserError` where there are no inputs, in `data`, or no targets.
    """
    held = dataset(root=root, **part(dataset, train))
    name = next((name for name in targets if hasattr(held, name)), None)
    if name is None or not hasattr(held, "data"):
        text = f"{type(held).__name__} does not hold `data` and `{targets[0]}`"
        raise UserError(f"data.dataset._target_: {text}; {WAY_OUT}")
    found, names = torch.as_tensor(getattr(held, name)).long(), getattr(held, "classes", None)
    if found.ndim == 2:  # QMNIST's say more than the class
        found = found[:, 0]
    if names and names[0] == "N/A":  # of EMNIST's letters, which are 1 to 26
        names, found = names[1:], found - 1
    return held.data, found, names


def channels_first(data: Any) -> Tensor:
    """What a data set holds, a tensor, an array or a list of arrays or pictures, as one tensor `(N, C, H, W)`.

    It may be `(N, H, W)`, `(N, H, W, C)` with C = 1 or 3, or `(N, C, H, W)`.
    """
    inputs = torch.as_tensor(data if isinstance(data, Tensor | np.ndarray) else np.stack(data))
    if inputs.ndim == 3:
        inputs = inputs.unsqueeze(1)
    elif inputs.shape[-1] in (1, 3):
        inputs = inputs.movedim(-1, 1)
    return inputs.contiguous()


def emnist_classes(split: str) -> int:
    """How many classes a split of EMNIST has, for a config."""
    if split not in (choices := EMNIST.classes_split_dict):
        raise UserError(f"data.dataset.split={split}: no such choice. Choices: {', '.join(choices)}.")
    return len(choices[split]) - choices[split].count("N/A")
