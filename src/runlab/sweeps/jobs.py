"""A job of a sweep: it fails alone, and trains on several devices in its own process. Imports no torch."""

import atexit
import inspect
import multiprocessing
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig

from runlab.config.messages import Diverged, Pruned, UserError, report_errors
from runlab.config.processes import POSIX, SIGKILL, in_sweep, launched_processes, rank_zero
from runlab.config.resolvers import as_typed, quoted, score
from runlab.config.secrets import masked
from runlab.runs.files import ENDED
from runlab.runs.record import write_failure, write_overrides
from runlab.runs.resume import with_record
from runlab.sweeps import results
from runlab.sweeps.workers import JOBLIB, SIGNALS, SUBMITIT, busy, exit_with_parent, signal_handler, stoppable

Train = Callable[[DictConfig], dict[str, Any]]
STATUS: dict[type[Exception], str] = {Diverged: "diverged", Pruned: "pruned"}  # any other exception: failed
# Of what was typed about Hydra itself, this belongs to the sweep and not to a job of it.
OF_THE_SWEEP = re.compile(r"[+~]*hydra[./](mode|run|sweep|sweeper|launcher)\b")
gpu: list[FileLock] = []  # the lock on this process's GPU, held until its end


@stoppable
def run_job(train: Train, cfg: DictConfig) -> float | str | None:
    """Train what `cfg` describes, and return the monitored metric.

    In a sweep a job resumes what its folder holds, prints one line, and fails alone: an exception is printed and
    written into its folder, and its status (failed, diverged, pruned) is returned in place of the metric.
    """
    if not in_sweep():
        with report_errors():  # before Hydra writes a line of its own about it
            cfg = with_record(cfg, HydraConfig.get().overrides.task)
            return train(cfg).get(cfg.monitor)
    cfg = with_record(cfg, HydraConfig.get().overrides.task)
    hydra, run_dir = HydraConfig.get(), Path(cfg.run_dir)
    cfg.resume = cfg.resume or "auto"
    if hydra.mode == RunMode.MULTIRUN and several_devices(cfg):
        return run_in_subprocess(inspect.getfile(train), cfg)
    if hydra.mode != RunMode.MULTIRUN:
        busy.set()  # SIGTERM has its work saved, and ends it
        exit_with_parent()
    try:
        if rank_zero():
            (run_dir / ENDED).unlink(missing_ok=True)
            write_overrides(run_dir, hydra.overrides.task)
        if JOBLIB in hydra.launcher._target_:
            # joblib's own way, which it makes that of its workers, starts no process of a data loader.
            multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
            reserve_gpu(Path(hydra.sweep.dir))
        metrics = train(cfg)
    except Exception as error:
        status = STATUS.get(type(error), "failed")
        report_failure(status, error, run_dir)
        if SUBMITIT in hydra.launcher._target_ and status != "pruned":
            fail_for_the_cluster(error)
        if hydra.mode != RunMode.MULTIRUN:
            sys.exit(1)  # the process that waits for this one hears of it
        return status
    if rank_zero():
        scores = "  ".join(f"{name} {score(metrics[name])}" for name in results.main_metrics([metrics], cfg.monitor))
        print(f"{job_name()}  {scores}  {metrics['seconds']:.1f} s", flush=True)
    return metrics.get(cfg.monitor)


def job_name() -> str:
    """A job's number, from 1, and its overrides."""
    return f"{HydraConfig.get().job.num + 1}  {' '.join(as_typed(HydraConfig.get().overrides.task))}"


def report_failure(status: str, error: Exception, run_dir: Path) -> None:
    """Write into a job's folder why it has no metrics, and print it, if none of its other processes has done so."""
    if message := write_failure(run_dir, status, error):
        print(f"{job_name()}  {status}: {message}", file=sys.stderr, flush=True)


def fail_for_the_cluster(error: Exception) -> None:
    """Have this process, a job of a cluster, end with status 1, and print the traceback into the job's log.

    It ends when submitit has handed the job's result over: to raise here would keep that from the sweep.
    """
    print(masked("".join(traceback.format_exception(error))), file=sys.stderr, flush=True)

    def leave() -> None:
        sys.stdout.flush()
        os._exit(1)

    atexit.register(leave)


def several_devices(cfg: DictConfig) -> bool:
    """Whether Lightning is to start processes for a run. Under torchrun and srun they are there already."""
    if launched_processes() > 1:
        return False
    devices = cfg.trainer.devices
    one = len(devices) == 1 if isinstance(devices, ListConfig) else str(devices) == "1"
    return not one or cfg.trainer.get("num_nodes", 1) > 1


def run_in_subprocess(script: str, cfg: DictConfig) -> float | str | None:
    """Run this job as a command of its own, wait for it, and return what `run_job` would.

    The other ranks of a run repeat its command: the sweep's command would make each of them a sweep. Signals go on to
    the job, once each: it is in a session of its own, where Ctrl-C on the terminal does not reach it.
    """
    if not POSIX:
        with report_errors():
            raise UserError(f"trainer.devices={cfg.trainer.devices}: on Windows each job of a sweep has one device")
    hydra, run_dir = HydraConfig.get(), Path(cfg.run_dir)
    sources = {source.provider: source.path for source in hydra.runtime.config_sources}
    options = [f"--config-name={hydra.job.config_name}", f"--config-path={sources['main']}"]
    options += [f"--config-dir={sources['command-line']}"] if "command-line" in sources else []
    kept = [override for override in as_typed(hydra.overrides.hydra) if not OF_THE_SWEEP.match(override)]
    place = ["hydra.mode=RUN", f"hydra.run.dir={quoted(run_dir)}", f"hydra.job.num={hydra.job.num}"]
    command = [sys.executable, script, *options, *as_typed(hydra.overrides.task), *kept, *place]
    process = subprocess.Popen(command, cwd=hydra.runtime.cwd, start_new_session=True)
    asked: list[int] = []

    def hand_on(signum: int, _: object) -> None:
        asked.append(signum)
        process.send_signal(signum)

    with signal_handler(hand_on):
        status = process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, SIGKILL)  # a rank that it has left behind
    stops = {128 + signum for signum in SIGNALS}
    if asked or status in stops:  # it was stopped, and so is the sweep
        sys.exit(128 + asked[0] if asked else status)
    if status:
        report_failure("failed", RuntimeError(f"its process ended with status {status}"), run_dir)
    row = results.read(run_dir)
    if row.status != "finished":
        return row.status
    return "failed" if status else row.metrics.get(cfg.monitor)


def reserve_gpu(sweep_dir: Path) -> None:
    """Let this process see one GPU alone until its end: the first that no other worker of the sweep has.

    More workers than GPUs share them evenly. NVIDIA's are counted as devices of the system: to ask CUDA would be to
    start it, and then it is too late to choose.
    """
    every = ",".join(str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*")))
    names = os.environ.get("CUDA_VISIBLE_DEVICES", every).split(",")
    for turn in range(len(names) * (os.cpu_count() or 1) if len(names) > 1 and not gpu else 0):
        lock = FileLock(sweep_dir / f".gpu{turn}.lock", timeout=0)
        with suppress(Timeout):
            lock.acquire()
            gpu.append(lock)
            os.environ["CUDA_VISIBLE_DEVICES"] = names[turn % len(names)]
            return
