"""A folder with a sub-folder of PNG or JPEG files for each class: names, files decoded into memory, checksum."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm  # type: ignore[import-untyped]

from runlab.config.messages import UserError, one_line
from runlab.config.processes import rank_zero

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's ImageFolder


def subfolders(root: Path) -> list[str]:
    """The names of a folder's sub-folders in order, without hidden ones; `UserError` where there are none."""
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder {root}")
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise UserError(f"data.root: {root} has no sub-folders; it needs one for each class")
    return names


def count_classes(root: str) -> int:
    """How many classes a folder has, for a config: its sub-folders, or those of its `train/`."""
    train = Path(root, "train")
    return len(subfolders(train if train.is_dir() else Path(root)))


def read(root: Path, names: Sequence[str], channels: int, size: int) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Decode the picture files below the sub-folders `names`, in order; on a terminal with a progress bar.

    Each is turned upright, converted to `channels` (1 or 3) and scaled to `size` x `size` pixels, and comes with the
    number of its name. `UserError` names a file that cannot be decoded, or a sub-folder beside those.
    """
    if strangers := set(subfolders(root)) - set(names):
        raise UserError(f"{root}: sub-folder {min(strangers)} is no class of the training set: {', '.join(names)}")
    pairs = [(path, number) for number, name in enumerate(names) for path in _visible(root / name)]
    if not (pairs := [pair for pair in pairs if pair[0].suffix.lower() in SUFFIXES]):
        raise UserError(f"{root}: its sub-folders have no files {', '.join(SUFFIXES)}")
    decode = partial(_decode, mode={1: "L", 3: "RGB"}[channels], size=size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(decode, [path for path, _ in pairs])
        try:
            pictures = list(tqdm(decoded, "reading files", len(pairs), disable=None if rank_zero() else True))
        finally:
            pool.shutdown(cancel_futures=True)  # else an error waits until all files are read
    return pictures, [number for _, number in pairs]


def _decode(path: Path, mode: str, size: int) -> NDArray[np.uint8]:
    """`(size, size)` uint8 for mode L, `(size, size, 3)` for RGB."""
    try:
        with Image.open(path) as picture:
            if picture.mode[0] in "IF":  # Pillow would cut the values off at 255
                raise ValueError(f"mode {picture.mode} has more than 8 bits a channel")
            upright = ImageOps.exif_transpose(picture).convert(mode)
            return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))
    except Exception as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}; repair it or take it out") from error


def _visible(root: Path) -> Iterator[Path]:
    """The files below a folder in order, without hidden ones, such as the ._ files of macOS."""
    for folder, _, names in sorted(os.walk(root, followlinks=True)):
        if not any(part.startswith(".") for part in Path(folder).relative_to(root).parts):
            yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def checksum(root: Path) -> str:
    """One MD5 over the names and the contents of all files below a folder, without hidden ones."""
    total = hashlib.md5(usedforsecurity=False)
    for path in _visible(root):
        content = path.read_bytes()
        total.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()
