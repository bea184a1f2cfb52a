"""Open a finished run in a notebook or a script: `load_run("runs/...")`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from runlab.config.messages import UserError
from runlab.runs import checkpoints
from runlab.runs.files import METRICS, RECORD, read_metrics
from runlab.runs.record import read_record
from runlab.training.attributes import restore_task
from runlab.training.build import build_task


@dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    config: DictConfig
    metrics: dict[str, Any]
    model: Any  # the task's module with its best weights, in eval mode
    data: Any  # the data module; call `prepare_data` and `setup` before its loaders


def load_run(run_dir: str | Path, device: str = "cpu") -> Run:
    """Open a finished run on any device; `UserError` where there is none."""
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no finished run, there is no such folder; name another")
    if not ((run_dir / RECORD).exists() and (run_dir / METRICS).exists()):
        raise UserError(f"{run_dir}: no finished run, it lacks {RECORD} or {METRICS}; resume it with resume=")
    config = read_record(run_dir)
    config.run_dir = str(run_dir)
    metrics = read_metrics(run_dir)
    if not metrics["best_checkpoint"]:
        raise UserError(f"{run_dir}: this run wrote no checkpoint, so its weights cannot be loaded")
    data, task = build_task(config)
    checkpoint = checkpoints.restore(task, run_dir / metrics["best_checkpoint"])
    restore_task(task, checkpoint.get("epoch_state", [{}])[0].get("attributes", {}))
    return Run(config, metrics, task.to(device).eval(), data)
