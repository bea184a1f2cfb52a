"""What a run folder says of its run: the composed config, the provenance, the metrics, why a job has none."""

import os
import shutil
import sys
import traceback
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, cast
from zipfile import is_zipfile

import yaml
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# The resolvers' module also registers what a recorded config refers to.
from runlab.config.check import without_unused
from runlab.config.messages import UserError, listed, one_line, own_line
from runlab.config.processes import in_sweep, rank_zero
from runlab.config.resolvers import path_as_typed, score, typed_path
from runlab.config.secrets import masked
from runlab.runs import older, provenance
from runlab.runs.code import take_finished, write_code
from runlab.runs.files import ENDED, METRICS, RECORD, atomic_write, read_json, read_metrics, write_json
from runlab.runs.run_log import write_traceback


def read_record(run_dir: Path) -> DictConfig:
    """The config that a run was made with, brought up to date: see `up_to_date`.

    `UserError` where it is missing or damaged.
    """
    return older.up_to_date(_load(run_dir), run_dir / RECORD)


def _load(run_dir: Path) -> DictConfig:
    path = run_dir / RECORD
    try:
        text = path.read_text(encoding="utf-8")
        config = OmegaConf.create(text)
        is_whole = text.endswith("\n") and {"task", "data", "trainer", "callbacks", "logger"} <= set(config)
        if isinstance(config, DictConfig) and is_whole:
            return config
        raise ValueError("it was cut")
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: the run's config is missing or damaged; restore it, or begin a new run") from error


def finished_metrics(run_dir: Path, cfg: DictConfig) -> dict[str, Any] | None:
    """The metrics of a run that is finished and whose config and code are those of `cfg` now; None for any other.

    Where the code alone has changed since, `cfg.rerun` decides, see `take_finished`.
    """
    if not (run_dir / METRICS).exists() or not _is_config_of(run_dir, cfg):
        return None
    if not take_finished(run_dir, cfg.get("rerun")):
        return None
    metrics = read_metrics(run_dir)
    best = metrics["best_checkpoint"]
    if best and not is_zipfile(run_dir / best):  # as torch saves them
        print(f"{run_dir / best}: the best checkpoint of this finished run is missing or damaged", file=sys.stderr)
    return metrics


def write_overrides(run_dir: Path, overrides: Any) -> None:
    """Write what a job of a sweep overrides, for the table, unless it stands there already."""
    if not (path := (run_dir / RECORD).with_stem("overrides")).exists():
        with atomic_write(path) as temporary:
            temporary.write_text(OmegaConf.to_yaml(overrides))


def write_record(run_dir: Path, cfg: DictConfig, data: Any, device: Any) -> None:
    """Write the run's config and its provenance. A resumed run adds its own provenance to what stands there."""
    if not rank_zero():
        return
    if not (run_dir / RECORD).exists() and HydraConfig.initialized():
        hydra = HydraConfig.instance().cfg
        for name, part in (("hydra", hydra), ("overrides", HydraConfig.get().overrides.task)):
            with atomic_write((run_dir / RECORD).with_stem(name)) as temporary:
                temporary.write_text(OmegaConf.to_yaml(part))
    source, diff, path = provenance.source(cfg, data, device), "provenance.diff", run_dir / "provenance.json"
    content = source
    if path.exists():
        earlier = read_json(path, "restore it, or move it away: a new one is then written")
        content = earlier | {"resumed": [*earlier.get("resumed", []), source]}
        before, now = earlier.get("data_md5") or {}, source["data_md5"]
        if changed := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
            print(
                f"{path_as_typed(run_dir)}: resumed with other data, {listed(changed, 3)} changed since",
                file=sys.stderr,
            )
        diff = f"provenance-{len(content['resumed'])}.diff"
    with atomic_write(run_dir / RECORD) as temporary:
        temporary.write_text(OmegaConf.to_yaml(_record(cfg)))
    write_code(run_dir)
    write_json(path, content)
    if source["git_dirty"]:
        with atomic_write(run_dir / diff) as temporary:
            temporary.write_bytes(provenance.diff())


def write_metrics(run_dir: Path, scores: dict[str, Any], tested: dict[str, Any], end: dict[str, Any]) -> dict[str, Any]:
    """Write `metrics.json`, say where the run folder is, and return what was written.

    `scores` are metrics by their logged names: what the epoch of the tested checkpoint had logged when it was saved.
    The mean over an epoch is there if all its batches were done by then, and what the validation logs if the epoch was
    validated; no value is of another epoch. `tested` are those of the test; one whose name is taken becomes
    `test/<name>`. `step`, by which Lightning sets the x axis of what is logged with it, is left out. `end` has `epoch`
    and `global_step` (epochs and optimizer steps done), `seconds`, and `best_checkpoint`, the path of the tested
    checkpoint, or None where there is none.
    """
    import numpy as np

    # A float32 as the shortest decimal that stands for it: 0.9222, not 0.9222000241279602.
    scores = scores | {f"test/{name}" if name in {**scores, **end} else name: value for name, value in tested.items()}
    metrics = {name: float(str(np.float32(float(value)))) for name, value in scores.items() if name != "step"} | end
    if metrics["best_checkpoint"]:
        metrics["best_checkpoint"] = os.path.relpath(metrics["best_checkpoint"], run_dir)
    if rank_zero():
        write_json(run_dir / METRICS, metrics)
    if rank_zero() and not in_sweep():
        folder, command = path_as_typed(run_dir), "tensorboard"
        if not shutil.which(command):
            command = path_as_typed(Path(sys.executable).with_name(command))
        if shown := "  ".join(f"{name} {score(value)}" for name, value in metrics.items() if name.startswith("test")):
            print(f"test metrics   {shown}")
        print(f"run folder     {folder}", flush=True)
        if any(run_dir.glob("events*")):
            print(f"dashboard      {command} --logdir {folder} --samples_per_plugin images=0", flush=True)
    return metrics


def write_failure(run_dir: Path, status: str, error: Exception) -> str:
    """Write why a job ended without metrics, and return it in a line; "" if another rank has written why before."""
    message = one_line(error) if isinstance(error, HydraException) else f"{type(error).__name__}: {one_line(error)}"
    message += own_line(error)
    message, lines = masked(message), masked("".join(traceback.format_exception(error))).splitlines()
    with suppress(Timeout, OSError), FileLock(run_dir / ".lock", timeout=0) if rank_zero() else nullcontext():
        write_traceback(run_dir, error)
        if (run_dir / ENDED).exists():
            return ""
        if not (run_dir / METRICS).exists():
            write_json(run_dir / ENDED, {"status": status, "message": message, "traceback": lines})
    return message


def _record(cfg: DictConfig) -> DictConfig:
    """A config as it is recorded: without what only says how the command was typed."""
    typed = {"resume": None, "rerun": None, "run_dir": "${hydra:runtime.output_dir}"}
    return cast("DictConfig", OmegaConf.merge(without_unused(cfg), typed))


def _is_config_of(run_dir: Path, cfg: DictConfig) -> bool:
    now: Any = OmegaConf.to_container(_record(cfg))
    # The quicker one first.
    return any(_is_same(now, OmegaConf.to_container(read(run_dir))) for read in (_load, read_record))


def _is_same(now: Any, recorded: Any) -> bool:
    """Whether two values of a config are equal; a recorded path is absolute, the one of now may be as it is typed."""
    if isinstance(now, dict) and isinstance(recorded, dict):
        return now.keys() == recorded.keys() and all(_is_same(now[key], recorded[key]) for key in now)
    if isinstance(now, list) and isinstance(recorded, list):
        return len(now) == len(recorded) and all(map(_is_same, now, recorded))
    return now == recorded or (isinstance(now, str) and str(typed_path(now)) == recorded)
