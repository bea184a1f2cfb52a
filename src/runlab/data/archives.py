"""The archives that a torchvision data set is unpacked from: verified, unpacked again, or an error in a line."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from torchvision.datasets.utils import check_integrity

from runlab.config.messages import user_errors


def checksums(dataset: Any) -> dict[str, str]:
    """The MD5 that each archive of a torchvision dataset, a class or a partial of one, has by its authors' word."""
    return dict(getattr(dataset, "func", dataset).resources)


def prepare(dataset: Any, root: str) -> None:
    """Verify `<root>/<class name>/raw/`; unpack anew what is damaged, download what is missing.

    `UserError` where an archive is missing or wrong and cannot be downloaded. It stays as it is.
    """
    raw = Path(root) / getattr(dataset, "func", dataset).__name__ / "raw"

    def damaged() -> list[Path]:
        return [raw / Path(name).stem for name, md5 in checksums(dataset).items() if not _intact(raw / name, md5)]

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
