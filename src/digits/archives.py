"""The archives that a torchvision dataset of MNIST's format is unpacked from: right, or made right, or an error."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from torchvision.datasets.utils import check_integrity

from digits.errors import user_errors


def prepare(dataset: Callable[..., Any], root: str) -> None:
    """Verify the archives and what is unpacked of them; unpack anew what is damaged, download what is missing.

    Args:
        dataset: a torchvision dataset class, or a partial of one.
        root: the folder that holds `<class name>/raw/`.

    Raises:
        UserError: an archive is missing or wrong and cannot be downloaded. It stays as it is.
    """
    cls: Any = getattr(dataset, "func", dataset)
    raw = Path(root) / cls.__name__ / "raw"

    def damaged() -> list[Path]:
        return [raw / Path(name).stem for name, md5 in cls.resources if not _intact(raw / name, md5)]

    if damaged():
        with user_errors(f"{raw}: data missing or damaged, no download; put the archives there or set data.root"):
            raw.mkdir(parents=True, exist_ok=True)
            with FileLock(raw / ".lock"):  # of two runs that start together, one unpacks
                for file in damaged():
                    file.unlink(missing_ok=True)
                dataset(root=root, download=True)  # torchvision checks the MD5s itself


def _intact(archive: Path, md5: str) -> bool:
    """Whether a gzip archive has its MD5, and what is unpacked beside it the CRC-32 at the archive's end (RFC 1952)."""
    unpacked = archive.with_suffix("")
    if not (unpacked.is_file() and unpacked.stat().st_size and check_integrity(str(archive), md5)):
        return False
    crc = int.from_bytes(archive.read_bytes()[-8:-4], "little")
    return zlib.crc32(np.memmap(unpacked, mode="r").data) == crc
