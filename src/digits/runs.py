"""A run folder: kept by one process, begun, reported, loaded again. Imports torch only where it needs it.

`python -m digits.runs <folder of runs>` prints their results.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from digits import results
from digits.errors import UserError, answered_plainly, plain
from digits.folder import ENDED, PART, RECORD, in_sweep, rank_zero, replaced, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from digits.model import ImageClassifier


@dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    config: DictConfig
    metrics: dict[str, Any]
    model: "ImageClassifier"  # with its best weights, in eval mode
    data: Any  # the data module; `prepare_data` and `setup` come before its loaders


def load_run(run_dir: str | Path, device: str = "cpu") -> Run:
    """Open a finished run for a notebook or a script, on any device; `UserError` where there is none."""
    from digits import checkpoints, parts

    run_dir = Path(run_dir)
    if not ((run_dir / RECORD).exists() and (run_dir / "metrics.json").exists()):
        raise UserError(f"{run_dir}: no finished run, it lacks {RECORD} or metrics.json; go on with it by resume=")
    config: Any = OmegaConf.load(run_dir / RECORD)
    config.run_dir = str(run_dir)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    data, model = parts.build_parts(config)
    checkpoints.restore(model, run_dir / metrics["best_checkpoint"])
    return Run(config, metrics, model.to(device).eval(), data)


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
            (run_dir / ENDED).unlink(missing_ok=True)
            yield
    except Timeout:
        raise UserError(f"{run_dir}: another process is using this run folder; wait for it, or name another") from None


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


def report(run_dir: Path, scores: dict[str, Any], counts: "Tensor", end: dict[str, Any]) -> dict[str, Any]:
    """Write `metrics.json`, say how the run ended, and return what was written.

    `scores` are metrics by their logged names, `train/*` and `val/*` as the tested checkpoint scored them; `counts`
    `(C, C)` int64 is the test set's confusion matrix, which makes `test/acc` exact; `end` has `epoch` and `global_step`
    (epochs and optimizer steps done), `seconds`, and `best_checkpoint`, the path of the one that was tested.
    """
    import numpy as np

    correct, total = int(counts.trace()), int(counts.sum())
    # A float32 as the shortest decimal that stands for it: 0.9222, not 0.9222000241279602.
    metrics = {name: float(str(np.float32(float(value)))) for name, value in scores.items() if "/" in name} | {
        "test/acc": correct / total
    }
    metrics |= end | {"best_checkpoint": os.path.relpath(end["best_checkpoint"], run_dir)}
    if rank_zero():
        write_json(run_dir / "metrics.json", metrics)
    if rank_zero() and not in_sweep():
        folder, command = os.path.relpath(run_dir), "tensorboard"
        if not shutil.which(command):
            command = os.path.relpath(Path(sys.executable).with_name(command))
        print(f"test accuracy  {correct}/{total} = {100 * correct / total:.2f} %")
        print(f"run folder     {folder}\ndashboard      {command} --logdir {folder}", flush=True)
    return metrics


def failed(run_dir: Path, status: str, error: Exception) -> str:
    """Write why a job ended without metrics, and return it in a line; "" if another rank has written why before."""
    message = plain(error) if isinstance(error, HydraException) else f"{type(error).__name__}: {plain(error)}"
    lines = "".join(traceback.format_exception(error)).splitlines()
    with suppress(Timeout), FileLock(run_dir / ".lock", timeout=0) if rank_zero() else nullcontext():
        if (run_dir / ENDED).exists():
            return ""
        if not (run_dir / "metrics.json").exists():
            write_json(run_dir / ENDED, {"status": status, "message": message, "traceback": lines})
    return message


def _record(cfg: DictConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.merge(cfg, {"resume": None, "run_dir": "${hydra:runtime.output_dir}"}))


def _provenance(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """What a run comes from: code, versions, machine, command line, seed, and the data's checksums."""
    import torch

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


if __name__ == "__main__":
    with answered_plainly():
        results.main(sys.argv[1:])
