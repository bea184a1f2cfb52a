"""Checkpoints that are whole or not there, and hold no code."""

import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any, cast
from zipfile import is_zipfile

import torch
from lightning import LightningModule
from lightning.pytorch.plugins import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils._pytree import tree_map_only

from runlab.config.messages import UserError
from runlab.config.processes import rank_zero
from runlab.config.secrets import masked_values
from runlab.runs import weights
from runlab.runs.files import CHECKPOINTS, LAST, atomic_write
from runlab.runs.record import read_record

FIXED = ("data", "model", "optimizer", "scheduler", "task")  # a resumed run keeps these, but for resume_may_change


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to disk, made safe: a kill or a full disk while saving leaves the checkpoint that was there."""

    def __init__(self) -> None:
        self.left_out: dict[str, set[str]] = {}  # of each group of hyperparameters, what cannot be kept; {} before any

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        first = not self.left_out
        for group in ("hyper_parameters", "datamodule_hyper_parameters"):
            values: Any = checkpoint.get(group, {})
            if OmegaConf.is_config(values):
                values = OmegaConf.to_container(values, resolve=True)
                checkpoint.pop("hparams_type", None)  # a class
            if first:
                self.left_out[group] = {name for name, value in values.items() if _unplain(value)}
                if left_out := sorted(self.left_out[group]):
                    text = "hold objects, and are left out of checkpoints, which hold tensors and plain values"
                    print(f"save_hyperparameters: {', '.join(left_out)} {text}", file=sys.stderr)
            if group in checkpoint:
                kept = {name: values[name] for name in values if name not in self.left_out[group]}
                checkpoint[group] = masked_values(kept)
        # Tensors are looked into once; the rest each time, as a list may get its first NumPy number later.
        content = checkpoint if first else tree_map_only(torch.Tensor, lambda _: None, checkpoint)
        if found := _unplain(content):
            raise UserError(f"a checkpoint cannot hold {found}; keep it out of on_save_checkpoint and of state_dict")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        # No view of the buffer is left to the garbage collection after a full disk: Python up to 3.12.1 would crash.
        with buffer.getbuffer() as view, atomic_write(Path(path)) as temporary, temporary.open("wb") as file:
            file.write(view)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        return load(path)


def _unplain(value: Any) -> str:
    """What in a value is more than tensors and plain values, so that it could not be loaded; "" where nothing is."""
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)
        torch.load(io.BytesIO(buffer.getvalue()), map_location="cpu", weights_only=True)
    except Exception as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        return named[1] if named else f"such an object ({type(error).__name__})"
    return ""


def load(path: str | Path, state_dict: bool = False) -> dict[str, Any]:
    """A checkpoint's content, on the CPU: tensors and plain values; `UserError` for anything that could run code.

    With `state_dict` a bare one is taken too, as `torch.save(model.state_dict(), path)` writes it; its epoch and
    metrics are then empty.
    """
    if Path(path).is_dir():
        raise UserError(f"{path}: a folder; name a checkpoint in it, as .../checkpoints/best.ckpt")
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; name another") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name a checkpoint that can be read") from error
    except Exception as error:
        raise UserError(f"{path}: damaged, or holds more than tensors and plain values; name another") from error
    if state_dict and isinstance(checkpoint, dict) and checkpoint and all(map(torch.is_tensor, checkpoint.values())):
        return {"state_dict": dict(checkpoint), "epoch": -1, "global_step": 0, "metrics": {}}
    if not isinstance(checkpoint, dict) or not {"metrics", "state_dict"} <= checkpoint.keys():
        raise UserError(f"{path}: no checkpoint of this project, it holds no metrics; name another")
    for state in checkpoint.get("callbacks", {}).values():  # the folder may have been moved since
        if (old := str(state.get("dirpath"))).endswith("/checkpoints"):
            new = str(Path(path).resolve().parent)
            state.update({key: value.replace(old, new) for key, value in state.items() if isinstance(value, str)})
            state["best_k_models"] = {key.replace(old, new): score for key, score in state["best_k_models"].items()}
    return checkpoint


def restore(model: nn.Module, path: str | Path | None, *, strict: bool = True, scores: Any = None) -> dict[str, Any]:
    """Put a checkpoint's weights into `model`, and return all that it holds; `UserError` if they do not fit.

    The checkpoint may also be a plain `state_dict`. What does not fit is left out if not `strict`. Without a path the
    model stays as it is, and its `scores` are the metrics.
    """
    if path is None:
        return {"epoch": 0, "global_step": 0, "metrics": dict(scores or {})}
    checkpoint = load(path, state_dict=True)
    if isinstance(model, LightningModule):
        model.configure_model()  # it may make its layers there
        if "loops" in checkpoint:  # else it is a bare state_dict
            model.on_load_checkpoint(checkpoint)  # what the module itself has put into it
    weights.put(checkpoint["state_dict"], model, path, strict)
    return checkpoint


def newest_sound(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """The checkpoint in `folder` with the most optimizer steps, and what it holds; None and {} where there is none.

    Unreadable ones are named.
    """
    newest, content, rank, readable = None, dict[str, Any](), (-1, False), True
    for path in folder.glob("*.ckpt"):
        try:
            checkpoint = load(path)
        except UserError as error:
            print(f"{error}: passed over", file=sys.stderr)
            readable = False
            continue
        # What is not resumable is in the middle of an epoch that begins again.
        found = (checkpoint["global_step"], path.stem == "last")
        if checkpoint.get("run", {}).get("resumable", True) and found > rank:
            newest, content, rank = path, checkpoint, found
    if not newest and not readable:
        raise UserError(f"{folder}: no checkpoint can be read; begin anew in another folder")
    return newest, content


def _check_best(checkpoint: dict[str, Any], folder: Path) -> None:
    """`UserError` where the file that a checkpoint of a run knows as its best one is lost."""
    for state in checkpoint["callbacks"].values():
        path = Path(state.get("best_model_path") or "")
        # Without a score it is the last one, which is written again.
        if state.get("best_model_score") is not None and path.parent == folder.resolve() and not is_zipfile(path):
            raise UserError(
                f"{path}: the best weights of the run to resume, missing or damaged; restore them, or begin a new run"
            )


def to_resume_from(run_dir: Path, cfg: DictConfig) -> tuple[Path | None, dict[str, Any]]:
    """The checkpoint to resume from, and what it holds; None and {} where there is none.

    `UserError` if `cfg` changes what it fixes (data, task, network, optimizer).
    """
    last, checkpoint = newest_sound(run_dir / CHECKPOINTS)
    if last is None:
        return None, {}
    if (steps := checkpoint["global_step"]) > cfg.trainer.get("max_steps", -1) != -1:
        raise UserError(f"trainer.max_steps={cfg.trainer.max_steps}: the run to resume has done {steps}")
    if (epoch := checkpoint["epoch"]) >= cfg.trainer.max_epochs != -1:
        done = f"{epoch + 1}" if checkpoint["run"]["epoch_done"] else f"{epoch} and is within the next"
        raise UserError(f"trainer.max_epochs={cfg.trainer.max_epochs}: the run to resume has done {done}")
    record = OmegaConf.merge(read_record(run_dir), {"run_dir": cfg.run_dir})
    old, new = (cast("dict[str, Any]", OmegaConf.to_container(part, resolve=True)) for part in (record, cfg))
    if old["seed"] != new["seed"]:
        raise UserError(f"seed={new['seed']}: the run to resume has {old['seed']}")
    for group in FIXED:
        before, after = old.get(group) or {}, new.get(group) or {}
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key) and f"{group}.{key}" not in cfg.resume_may_change:
                text = f"{group}.{key}={after.get(key)}: the run to resume has {before.get(key)}"
                raise UserError(f"{text}; to begin a new one with its weights, add ckpt_path=.../checkpoints/best.ckpt")
    before, after = (config["trainer"].get("accumulate_grad_batches", 1) for config in (old, new))
    if before != after and any("gradients" in state for state in checkpoint.get("epoch_state", [])):
        raise UserError(
            f"trainer.accumulate_grad_batches={after}: the run to resume stopped before the optimizer's step, with"
            f" gradients gathered for {before}; resume it with {before}, and change it where an epoch ends"
        )
    _check_best(checkpoint, run_dir / CHECKPOINTS)
    if rank_zero() and last != run_dir / LAST:  # a kill came between: a finished run would keep an old last.ckpt
        with atomic_write(run_dir / LAST) as temporary:
            shutil.copyfile(last, temporary)
    return last, checkpoint
