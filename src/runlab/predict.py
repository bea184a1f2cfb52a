"""Run a finished run's module on inputs and write what it returns, for any task.

What a task offers is found by name, and what is missing is answered in a line:

- module.predict_step returns, for a batch, a tensor, or tensors in mappings and tuples.
- module.output_columns(outputs, batch, data), optional: the columns of a .csv, as a dict of B values each by name.
- data.predict_dataloader, else data.test_dataloader: the batches where no input is named.
- data.read_input(source): a sample, from the path of a file or an array (a part of a .npy, a row of a .csv), or an
  exception that says why not. Threads call it; samples are stacked, and pass the data module's transfer hooks.
- data.example_input, for `runlab.export`: a batch of two or more such samples.
"""

import csv
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, default_collate

from runlab.config.messages import UserError, one_line, own_place, user_errors
from runlab.data.folders import visible_files
from runlab.load import Run
from runlab.training import progress
from runlab.training.remade import SameWeights


class Inputs:
    """Batches of the samples in `path` that can be read; `errors` says why the others cannot, by their number from 0.

    `names` are the files' names as str, or int indices. `UserError` where there is nothing to read.
    """

    def __init__(self, data: Any, path: Path, batch_size: int) -> None:
        if not hasattr(data, "read_input"):
            raise UserError(f"input={path}: {type(data).__name__} has no read_input(source); leave input= out")
        with user_errors(f"input={path}"):
            sources = _sources(path)
        if not sources:
            raise UserError(f"input={path}: no such file or folder, or nothing in it")
        self.data, self.batch_size, self.errors = data, batch_size, dict[int, str]()
        self.names, self.sources = list(sources), list(sources.values())

    def __len__(self) -> int:
        return -(-len(self.names) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(self.names), self.batch_size):
                numbers = range(len(self.names))[start : start + self.batch_size]
                samples = list(pool.map(self._read, numbers))
                if readable := [sample for i, sample in zip(numbers, samples, strict=True) if i not in self.errors]:
                    yield default_collate(readable)

    def _read(self, number: int) -> Any:
        source = self.sources[number]
        try:
            return self.data.read_input(_parsed(source) if isinstance(source, str) else source)
        except Exception as error:
            self.errors[number] = one_line(error) + own_place(error)


def _sources(path: Path) -> dict[Any, Any]:
    """The visible files of a folder by name, or one file; or by index an array's parts, a table's lines."""
    if path.suffix == ".csv":
        rows = [row for row in path.read_text(encoding="utf-8-sig").splitlines() if row.strip()]
        header = bool(rows) and not any(map(_is_number, rows[0].split(",")))
        return dict(enumerate(rows[header:]))
    if path.suffix in (".npy", ".npz"):
        if path.suffix == ".npy":
            return dict(enumerate(np.load(path, mmap_mode="c")))
        with np.load(path) as arrays:
            if len(arrays.files) != 1:
                raise UserError(f"input={path}: holds {', '.join(arrays.files) or 'nothing'}; save one array alone")
            return dict(enumerate(arrays[arrays.files[0]]))
    return {path.name: path} if path.is_file() else {str(file.relative_to(path)): file for file in visible_files(path)}


def _is_number(cell: str) -> bool:
    with suppress(ValueError):
        return isinstance(float(cell), float)
    return False


def _parsed(row: str) -> Any:
    """The numbers of a table's line: int64 if all are whole, else float64."""
    numbers = np.loadtxt([row], delimiter=",", ndmin=1)
    return numbers.astype(np.int64) if (numbers % 1 == 0).all() else numbers


class Batches(LightningDataModule):
    """Batches that pass the transfer hooks of a run's data module, which for inputs need not be set up.

    Of a run without one its module has the loaders, and Lightning sets it up.
    """

    def __init__(self, data: LightningDataModule | LightningModule, inputs: Inputs | None) -> None:
        super().__init__()
        self.data, self.inputs = data, inputs
        for hook in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
            setattr(self, hook, getattr(data, hook))

    def predict_dataloader(self) -> Any:
        self.data.trainer = self.trainer  # as Lightning does
        if self.inputs is not None:
            return self.inputs
        for stage in ("predict", "test"):
            if is_overridden(f"{stage}_dataloader", self.data):
                if isinstance(self.data, LightningDataModule):
                    self.data.prepare_data()
                    self.data.setup(stage)
                loaders = getattr(self.data, f"{stage}_dataloader")()
                return tree_map_only(DataLoader, iter, loaders)  # Lightning fails to rebuild some that predict
        raise UserError(f"{type(self.data).__name__} has no predict_dataloader and no test_dataloader; name an input=")


class Outputs(Callback):
    """Keeps what is written of each batch: arrays by name, which for a .csv are columns."""

    def __init__(self, run: Run, suffix: str) -> None:
        self.run, self.suffix, self.batches = run, suffix, list[dict[str, Any]]()

    def on_predict_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: int) -> None:  # noqa: ARG002
        if self.suffix == ".npz":
            tensors = leaves(outputs)
        elif hasattr(pl_module, "output_columns"):
            tensors = pl_module.output_columns(outputs, batch, self.run.data)
        elif isinstance(outputs, Tensor) and outputs.ndim in (1, 2):
            columns = outputs.unbind(1) if outputs.ndim == 2 else ()
            tensors = {f"output_{i}": column for i, column in enumerate(columns)} or {"output": outputs}
        else:
            raise UserError("a .csv takes a tensor (B,) or (B, k) of predict_step, or output_columns; name a .npz")
        arrays = {name: _array(values) for name, values in tensors.items()}
        if self.batches and arrays.keys() != self.batches[0].keys():
            raise UserError(f"predict_step returned {', '.join(self.batches[0])}, then {', '.join(arrays)}")
        self.batches.append(arrays)


def leaves(outputs: Any, name: str = "") -> dict[str, Any]:
    """Tensors in mappings and tuples, by the keys and numbers that lead to them, as in `hidden.0`."""
    if isinstance(outputs, Tensor):
        return {name or "output": outputs}
    if not isinstance(outputs, Mapping | tuple):
        raise UserError(f"predict_step returns {type(outputs).__name__}, not tensors or mappings or tuples of tensors")
    pairs: Any = outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs)
    return {leaf: x for key, part in pairs for leaf, x in leaves(part, f"{name}.{key}".lstrip(".")).items()}


def _array(values: Any) -> Any:
    if isinstance(values, Tensor):  # NumPy has no bfloat16
        values = (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
    return np.atleast_1d(values)


def check_module(module: LightningModule) -> None:
    if not is_overridden("predict_step", module, LightningModule):
        raise UserError(f"{type(module).__name__} has no predict_step of its own, which says what is predicted")


def predict(run: Run, inputs: Inputs | None, device: str | None, suffix: str) -> list[dict[str, Any]]:
    """What is written of each batch, from the inputs or, if None, the data module's own, to a .csv or .npz."""
    check_module(run.model)
    progress.filter_warnings()
    lightning.seed_everything(run.config.seed, workers=True, verbose=False)  # noise drawn while reading is repeated
    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise UserError("device=cuda: no GPU can be used on this machine; take device=cpu")
    same = {key: run.config.trainer[key] for key in ("precision", "deterministic") if key in run.config.trainer}
    quiet = {"logger": False, "enable_checkpointing": False}
    options: dict[str, Any] = {**same, **quiet, "accelerator": "gpu" if gpu and device != "cpu" else "cpu"}
    outputs = Outputs(run, suffix)
    callbacks = [outputs, progress.bar(refresh_rate=1), SameWeights(fit=False)]
    trainer = Trainer(callbacks=callbacks, devices=1, **options)
    trainer.predict(run.model, datamodule=Batches(run.data or run.model, inputs), return_predictions=False)
    return outputs.batches


def write(path: Path, suffix: str, batches: list[dict[str, Any]], inputs: Inputs | None) -> None:
    """Write a row a sample, with the error of each that was not read; or a .npz, with input.name and input.error."""
    keys = batches[0] if batches else ()
    arrays: dict[str, Any] = {}
    for key in keys:
        with user_errors(f"{key}: the batches of predict_step have different shapes"):
            arrays[key] = np.concatenate([batch[key] for batch in batches])
    names, errors = (inputs.names, inputs.errors) if inputs else ([], {})
    numbers = [i for i in range(len(names)) if i not in errors]  # of the inputs that were read
    if suffix == ".npz":
        if inputs:
            arrays["input.name"] = np.array([names[i] for i in numbers])
            arrays["input.error"] = np.array([f"{names[i]}: {errors[i]}" for i in sorted(errors)], dtype=str)
        with path.open("wb") as file:
            np.savez(file, **arrays)
        return
    rows = list(zip(*(array.astype(str).tolist() for array in arrays.values()), strict=True))
    if inputs and len(rows) != len(numbers):
        raise UserError(f"predict_step returned {len(rows)} values for {len(numbers)} inputs; name a .npz")
    with path.open("w", newline="") as table:
        writer = csv.writer(table)
        if not inputs:
            writer.writerow(["index", *arrays])
            writer.writerows([i, *row] for i, row in enumerate(rows))
            return
        cells, empty = dict(zip(numbers, rows, strict=True)), [""] * len(arrays)
        writer.writerow(["file" if isinstance(names[0], str) else "index", *arrays, "error"])
        for i, name in enumerate(names):
            writer.writerow([name, *cells.get(i, empty), errors.get(i, "").partition("\n")[0]])
