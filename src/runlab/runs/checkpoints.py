"""Checkpoints that are whole or not there, and hold no code."""

import io
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf
from torch import nn

from runlab.config.messages import UserError
from runlab.config.processes import rank_zero
from runlab.config.secrets import masked_values
from runlab.runs.files import CHECKPOINTS, LAST, atomic_write
from runlab.runs.record import read_record

FIXED = (
    "data",
    "task",
    "model",
    "optimizer",
    "scheduler",
)  # groups that a resumed run keeps, but for resume_may_change


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to disk, made safe: a kill or a full disk while saving leaves the checkpoint that was there."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):  # of a module that calls save_hyperparameters
            if key in checkpoint:
                checkpoint[key] = masked_values(checkpoint[key])
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        return load(path)


def load(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU: tensors and plain values; `UserError` for anything that could run code."""
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name a checkpoint that can be read") from error
    except Exception as error:
        raise UserError(f"{path}: damaged, or holds more than tensors and plain values; name another") from error
    if not isinstance(checkpoint, dict) or "metrics" not in checkpoint:
        raise UserError(f"{path}: no checkpoint of this project, it holds no metrics; name another")
    for state in checkpoint.get("callbacks", {}).values():  # the folder may have been moved since
        if (old := str(state.get("dirpath"))).endswith("/checkpoints"):
            new = str(Path(path).resolve().parent)
            state.update({key: value.replace(old, new) for key, value in state.items() if isinstance(value, str)})
            state["best_k_models"] = {key.replace(old, new): score for key, score in state["best_k_models"].items()}
    return checkpoint


def restore(model: nn.Module, path: str | Path | None, scores: Any = None) -> dict[str, Any]:
    """Put a checkpoint's weights into `model`, and return all that it holds; `UserError` if they do not fit.

    Without a path the model stays as it is, and its `scores` are the metrics.
    """
    if path is None:
        return {"epoch": 0, "global_step": 0, "metrics": dict(scores or {})}
    checkpoint = load(path)
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise UserError(f"{path}: the weights of another network than this one; choose its model=...") from error
    return checkpoint


def newest_sound(folder: Path) -> Path | None:
    """The checkpoint in `folder` with the most optimizer steps; None where there is none. Unreadable ones are named."""
    steps: dict[Path, int] = {}
    for path in folder.glob("*.ckpt"):
        try:
            checkpoint = load(path)
            if checkpoint.get("run", {}).get("resumable", True):  # else in the middle of an epoch that begins again
                steps[path] = checkpoint["global_step"]
        except UserError as error:
            print(f"{error}: passed over", file=sys.stderr)
            steps[path] = -1
    best = max(steps, key=lambda path: (steps[path], path.stem == "last"), default=None)
    if best and steps[best] < 0:
        raise UserError(f"{folder}: no checkpoint can be read; begin anew in another folder")
    return best


def to_resume_from(run_dir: Path, cfg: DictConfig) -> Path | None:
    """The checkpoint to resume from; `UserError` if `cfg` changes what it fixes (data, task, network, optimizer)."""
    if (last := newest_sound(run_dir / CHECKPOINTS)) is None:
        return None
    if (epoch := load(last)["epoch"]) >= cfg.trainer.max_epochs != -1:
        raise UserError(f"trainer.max_epochs={cfg.trainer.max_epochs}: the run to resume has done {epoch + 1}")
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
    if (
        rank_zero() and last != run_dir / LAST
    ):  # a kill came between the two: a finished run would keep an old last.ckpt
        with atomic_write(run_dir / LAST) as temporary:
            shutil.copyfile(last, temporary)
    return last
