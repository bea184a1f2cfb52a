"""Read a folder that has a sub-folder of files for each class: the classes' names, the decoded files, a checksum."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from runlab.config.messages import UserError, user_errors
from runlab.config.processes import rank_zero


def subfolders(root: Path) -> list[str]:
    """The names of a folder's sub-folders in order, without hidden ones; `UserError` where there are none."""
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder {root}")
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise UserError(f"data.root: {root} has no sub-folders; it needs one for each class")
    return names


def parts(root: str) -> dict[str, Path]:
    """The folders of the parts `train`, `val` and `test`, where there is one for `train`; else the whole as `train`."""
    found = {name: Path(root, name) for name in ("train", "val", "test") if Path(root, name).is_dir()}
    return found if "train" in found else {"train": Path(root)}


def count_classes(root: str) -> int:
    """How many classes a folder has, for a config: its sub-folders, or those of its `train/`."""
    return len(subfolders(parts(root)["train"]))


def read(
    root: Path, names: Sequence[str], suffixes: tuple[str, ...], decode: Callable[[Path], Any]
) -> tuple[list[Any], Tensor]:
    """`decode(path)` of the files below the sub-folders `names`, in order, and the numbers `(N,)` of their sub-folders.

    Files are decoded by as many threads as there are cores, on a terminal with a progress bar. `UserError` names a file
    that cannot be decoded, or a sub-folder that is none of `names`.
    """
    if strangers := set(subfolders(root)) - set(names):
        raise UserError(f"{root}: sub-folder {min(strangers)} is no class of the training set: {', '.join(names)}")
    pairs = [(path, number) for number, name in enumerate(names) for path in visible_files(root / name)]
    if not (pairs := [pair for pair in pairs if pair[0].suffix.lower() in suffixes]):
        raise UserError(f"data.root: the sub-folders of {root} have no files {', '.join(suffixes)}")

    def read_one(path: Path) -> Any:
        with user_errors(f"{path}: cannot be read, repair it or take it out"):
            return decode(path)

    paths, numbers = zip(*pairs, strict=True)
    hidden = None if rank_zero() else True
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = tqdm(pool.map(read_one, paths), desc="reading files", total=len(paths), disable=hidden)
        return list(decoded), torch.tensor(numbers)


def visible_files(root: Path) -> Iterator[Path]:
    """The files below a folder in order, without hidden ones, such as the ._ files of macOS."""
    for folder, _, names in sorted(os.walk(root, followlinks=True)):
        if not any(part.startswith(".") for part in Path(folder).relative_to(root).parts):
            yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def checksum(root: Path) -> str:
    """One MD5 over the names and the contents of all files below a folder, without hidden ones."""
    total = hashlib.md5(usedforsecurity=False)
    for path in visible_files(root):
        content = path.read_bytes()
        total.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()
