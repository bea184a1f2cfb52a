"""Small archives of each of torchvision's data sets that are held in memory, each in the set's own format."""

import bz2
import gzip
import hashlib
import io
import pickle
import sys
import tarfile
import zipfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torchvision import datasets

Images = NDArray[np.uint8]
TRAIN, TEST = 120, 60  # samples
PARTS = {"train": TRAIN, "test": TEST}
ROTATED = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}


def samples(part: str, shape: tuple[int, ...], classes: int) -> tuple[Images, NDArray[np.uint8]]:
    """Images `(N, *shape)` and labels `(N,)`: each class in turn, which is told by its brightness."""
    labels = np.arange(PARTS[part], dtype=np.uint8) % classes
    noise = np.random.default_rng(len(part)).integers(0, 50, (len(labels), *shape), dtype=np.uint8)
    return noise + (labels * (200 // classes)).reshape(-1, *[1] * len(shape)).astype(np.uint8), labels


def idx(array: NDArray[np.uint8] | NDArray[np.int32]) -> bytes:
    """The IDX format: two zero bytes, the type, the number of dimensions, each of these, and the values, big-endian."""
    kind = {"uint8": 8, "int32": 12}[array.dtype.name]
    shape = np.array(array.shape, dtype=">i4").tobytes()
    return bytes([0, 0, kind, array.ndim]) + shape + array.astype(array.dtype.newbyteorder(">")).tobytes()


def save(path: Path, content: bytes) -> str:
    """The file's MD5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def emnist(root: Path, patch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for split, classes in ROTATED.items():
            for part in PARTS:
                images, labels = samples(part, (28, 28), classes)
                labels += split == "letters"
                for name, array in (("images-idx3", images), ("labels-idx1", labels)):
                    archive.writestr(f"gzip/emnist-{split}-{part}-{name}-ubyte.gz", gzipped(idx(array)))
            archive.writestr(f"gzip/emnist-{split}-mapping.txt", "0 48\n")
    patch.setattr(datasets.EMNIST, "md5", save(root / "EMNIST/raw/gzip.zip", file.getvalue()))
    patch.setattr(datasets.EMNIST, "url", "http://127.0.0.1:9/gzip.zip")


def qmnist(root: Path, patch: pytest.MonkeyPatch) -> None:
    resources = {}
    for part in PARTS:
        images, labels = samples(part, (28, 28), 10)
        full = np.zeros((len(labels), 8), dtype=np.int32)
        full[:, 0], full[:, 1:] = labels, 77
        names = (f"qmnist-{part}-images-idx3-ubyte.gz", idx(images)), (f"qmnist-{part}-labels-idx2-int.gz", idx(full))
        resources[part] = [
            (f"http://127.0.0.1:9/{name}", save(root / "QMNIST/raw" / name, gzipped(content)))
            for name, content in names
        ]
    patch.setattr(datasets.QMNIST, "resources", resources)


def usps(root: Path, patch: pytest.MonkeyPatch) -> None:
    split_list = {}
    for part, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        lines = []
        for image, label in zip(*samples(part, (16, 16), 10), strict=True):
            values = " ".join(f"{i}:{value / 127.5 - 1:.6f}" for i, value in enumerate(image.ravel(), 1))
            lines.append(f"{label + 1} {values} \n")
        md5 = save(root / name, bz2.compress("".join(lines).encode()))
        split_list[part] = [f"http://127.0.0.1:9/{name}", name, md5]
    patch.setattr(datasets.USPS, "split_list", split_list)


def savemat_without_scipy(file: io.BytesIO, arrays: dict[str, Any], do_compression: bool) -> None:  # noqa: ARG001
    np.savez(file, **arrays)


def svhn(root: Path, patch: pytest.MonkeyPatch) -> None:
    """By SciPy where it is installed; elsewhere by a stand-in, which writes and reads another format."""
    savemat = savemat_without_scipy
    if find_spec("scipy"):
        savemat = import_module("scipy.io").savemat
    else:
        patch.setitem(sys.modules, "scipy", scipy := ModuleType("scipy"))
        patch.setitem(sys.modules, "scipy.io", ModuleType("scipy.io"))
        vars(scipy)["io"] = sys.modules["scipy.io"]
        vars(scipy.io)["loadmat"] = np.load
    split_list = {}
    for part in PARTS:
        images, labels = samples(part, (32, 32, 3), 10)
        labels[labels == 0] = 10
        file = io.BytesIO()
        savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None]}, do_compression=True)
        name = f"{part}_32x32.mat"
        split_list[part] = [f"http://127.0.0.1:9/{name}", name, save(root / name, file.getvalue())]
    patch.setattr(datasets.SVHN, "split_list", split_list)


def cifar(
    root: Path, patch: pytest.MonkeyPatch, cls: type, key: str, files: dict[str, list[str]], meta: str, classes: int
) -> None:
    """A tar file of pickles: rows of 3072 values, channel by channel."""
    packed: dict[str, bytes] = {}
    for part, names in files.items():
        images, labels = samples(part, (32, 32, 3), classes)
        rows = images.transpose(0, 3, 1, 2).reshape(len(labels), -1)
        for number, name in enumerate(names):
            mine = slice(number, None, len(names))
            packed[name] = pickle.dumps({"data": rows[mine], key: labels[mine].tolist()})
    packed[meta] = pickle.dumps({cls.meta["key"]: [f"thing {number}" for number in range(classes)]})  # type: ignore[attr-defined]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in packed.items():
            info = tarfile.TarInfo(f"{cls.base_folder}/{name}")  # type: ignore[attr-defined]
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    patch.setattr(cls, "tgz_md5", save(root / cls.filename, content.getvalue()))  # type: ignore[attr-defined]
    patch.setattr(cls, "url", f"http://127.0.0.1:9/{cls.filename}")  # type: ignore[attr-defined]
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in packed.items()}
    for part, names in files.items():
        patch.setattr(cls, f"{part}_list", [[name, md5[name]] for name in names])
    patch.setattr(cls, "meta", cls.meta | {"md5": md5[meta]})  # type: ignore[attr-defined]


def cifar10(root: Path, patch: pytest.MonkeyPatch) -> None:
    files = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
    cifar(root, patch, datasets.CIFAR10, "labels", files, "batches.meta", 10)


def cifar100(root: Path, patch: pytest.MonkeyPatch) -> None:
    cifar(root, patch, datasets.CIFAR100, "fine_labels", {"train": ["train"], "test": ["test"]}, "meta", 100)


MAKERS = {make.__name__: make for make in (emnist, qmnist, usps, svhn, cifar10, cifar100)}
