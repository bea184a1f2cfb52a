"""A run folder: kept by one process, begun, reported, and loaded again."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from digits import checkpoints
from digits.errors import UserError
from digits.folder import PART, RECORD, rank_zero, replaced, write_json
from digits.model import ImageClassifier
from digits.overhead import without_idle_hooks

FREE = {"root", "num_workers", "eval_batch_size", "device_resident"}  # data.*: what a resumed run may change
build = partial(instantiate, _convert_="all")  # plain lists and dicts: what a checkpoint may hold


@dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    config: DictConfig
    metrics: dict[str, Any]
    model: ImageClassifier  # with its best weights, in eval mode
    data: Any  # the data module; `prepare_data` and `setup` come before its loaders


def load_run(run_dir: str | Path, device: str = "cpu") -> Run:
    """Open a finished run for a notebook or a script, on any device; `UserError` where there is none."""
    run_dir = Path(run_dir)
    if not ((run_dir / RECORD).exists() and (run_dir / "metrics.json").exists()):
        raise UserError(f"{run_dir}: no finished run, it lacks {RECORD} or metrics.json; go on with it by resume=")
    config: Any = OmegaConf.load(run_dir / RECORD)
    config.run_dir = str(run_dir)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    data, model = build_parts(config)
    checkpoints.restore(model, run_dir / metrics["best_checkpoint"])
    return Run(config, metrics, model.to(device).eval(), data)


def build_parts(cfg: DictConfig) -> tuple[Any, ImageClassifier]:
    """The data module and the module to train that a config describes."""
    factories = build(cfg.model), build(cfg.optimizer), build(cfg.scheduler) or None
    return build(cfg.data), ImageClassifier(*factories, cfg.data.num_classes)


@contextmanager
def claimed(run_dir: Path, resume: bool) -> Iterator[None]:
    """Keep other processes out of the run folder; `UserError` if one is in it, or it holds a run and not `resume`."""
    if not rank_zero():  # rank 0 keeps the folder for all
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run_dir / ".lock", timeout=0):
            if not resume and any((run_dir / name).exists() for name in ("metrics.json", "checkpoints")):
                raise UserError(f"{run_dir}: holds a run; add resume=auto to go on with it, or name another folder")
            for folder in (run_dir, run_dir / "checkpoints", run_dir / ".hydra"):
                for leftover in folder.glob(f".*{PART}"):
                    leftover.unlink()
            yield
    except Timeout:
        raise UserError(f"{run_dir}: another process is using this run folder; wait for it, or name another") from None


def last_checkpoint(run_dir: Path, cfg: DictConfig) -> Path | None:
    """The checkpoint to go on from; `UserError` if `cfg` changes what it fixes (network, optimizer, data)."""
    if (last := checkpoints.newest_sound(run_dir / "checkpoints")) is None:
        return None
    if (epoch := checkpoints.load(last)["epoch"]) >= cfg.trainer.max_epochs:
        raise UserError(f"trainer.max_epochs={cfg.trainer.max_epochs}: the run to go on with has done {epoch + 1}")
    record = OmegaConf.merge(OmegaConf.load(run_dir / RECORD), {"run_dir": cfg.run_dir})
    old, new = (cast("dict[str, Any]", OmegaConf.to_container(part, resolve=True)) for part in (record, cfg))
    for group in ("data", "model", "optimizer", "scheduler"):
        for key in sorted((old[group].keys() | new[group].keys()) - FREE):
            if old[group].get(key) != new[group].get(key):
                text = f"{group}.{key}={new[group].get(key)}: the run to go on with has {old[group].get(key)}"
                raise UserError(f"{text}; to begin a new one with its weights, say ckpt_path=.../checkpoints/best.ckpt")
    return last


def build_trainer(cfg: DictConfig, loggers: list[Any], data: Any) -> Any:
    """The Trainer with its callbacks.

    `UserError` for more CPU processes than there are cores, or samplers that cannot be shared among devices.
    """
    callbacks = [without_idle_hooks(callback) for callback in build(cfg.callbacks).values()]
    trainer: Trainer = build(cfg.trainer, callbacks=callbacks, logger=loggers)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # else deterministic mode writes every new tensor twice
    wanted, cores = trainer.num_devices, os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and wanted > cores:
        raise UserError(f"trainer.devices={wanted}: this machine has {cores} CPU cores; take at most {cores}")
    if trainer.world_size > 1 and (getattr(data, "sampler", None) or getattr(data, "batch_sampler", None)):
        raise UserError(f"trainer.devices={wanted}: data.sampler and data.batch_sampler work on one device alone")
    return trainer


def finished(run_dir: Path, cfg: DictConfig) -> dict[str, Any] | None:
    """The metrics of a run that is finished and whose config is `cfg`; None for any other."""
    if not (run_dir / "metrics.json").exists() or (run_dir / RECORD).read_text() != _record(cfg):
        return None
    metrics: dict[str, Any] = json.loads((run_dir / "metrics.json").read_text())
    return metrics


def begin(run_dir: Path, cfg: DictConfig, data: Any) -> None:
    """Write what the run comes from: its config and its provenance, to which a resumed run adds."""
    if not rank_zero():
        return
    if not (run_dir / RECORD).exists() and HydraConfig.initialized():
        hydra = HydraConfig.instance().cfg
        for name, part in (("hydra", hydra), ("overrides", HydraConfig.get().overrides.task)):
            with replaced((run_dir / RECORD).with_stem(name)) as temporary:
                temporary.write_text(OmegaConf.to_yaml(part))
    with replaced(run_dir / RECORD) as temporary:
        temporary.write_text(_record(cfg))
    source, diff, path = _provenance(cfg, data), "provenance.diff", run_dir / "provenance.json"
    content = source
    if path.exists():
        earlier = json.loads(path.read_text())
        content = earlier | {"resumed": [*earlier.get("resumed", []), source]}
        diff = f"provenance-{len(content['resumed'])}.diff"
    write_json(path, content)
    if source["git_dirty"]:
        with replaced(run_dir / diff) as temporary:
            temporary.write_bytes(_git("diff", "HEAD", "--binary", "--no-color", "--no-ext-diff"))


def report(run_dir: Path, scores: dict[str, Any], counts: Tensor, end: dict[str, Any]) -> dict[str, Any]:
    """Write `metrics.json`, say how the run ended, and return what was written.

    `scores` are metrics by their logged names, `train/*` and `val/*` as the tested checkpoint scored them; `counts`
    `(C, C)` int64 is the test set's confusion matrix, which makes `test/acc` exact; `end` has `epoch` and `global_step`
    (epochs and optimizer steps done), `seconds`, and `best_checkpoint`, the path of the one that was tested.
    """
    correct, total = int(counts.trace()), int(counts.sum())
    # A float32 as the shortest decimal that stands for it: 0.9222, not 0.9222000241279602.
    metrics = {name: float(str(np.float32(float(value)))) for name, value in scores.items() if "/" in name} | {
        "test/acc": correct / total
    }
    metrics |= end | {"best_checkpoint": os.path.relpath(end["best_checkpoint"], run_dir)}
    if rank_zero():
        write_json(run_dir / "metrics.json", metrics)
        folder, command = os.path.relpath(run_dir), "tensorboard"
        if not shutil.which(command):
            command = os.path.relpath(Path(sys.executable).with_name(command))
        print(f"test accuracy  {correct}/{total} = {100 * correct / total:.2f} %")
        print(f"run folder     {folder}\ndashboard      {command} --logdir {folder}", flush=True)
    return metrics


def _record(cfg: DictConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.merge(cfg, {"resume": None, "run_dir": "${hydra:runtime.output_dir}"}))


def _provenance(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """What a run comes from: code, versions, machine, command line, seed, and the data's checksums."""
    commit, changes = _git("rev-parse", "HEAD").decode().strip(), _git("status", "--porcelain").decode().splitlines()
    return {
        "git_commit": commit or None,
        "git_dirty": bool(changes) if commit else None,
        "git_untracked": [line[3:] for line in changes if line.startswith("??")],  # these are not in the .diff
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "lightning", "hydra-core")},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),  # the number of threads changes the last bits of a sum
        "command": sys.argv,
        "seed": cfg.seed,
        "data_md5": getattr(data, "checksums", {}),
    }


def _git(*args: str) -> bytes:
    """The output of a git command on the project's own checkout; nothing where there is no git or no checkout."""
    command = ["git", "-C", str(Path(__file__).parent), *args]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""
