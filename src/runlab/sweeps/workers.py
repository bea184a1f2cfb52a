"""Jobs of a sweep in other processes: joblib's workers, which end together, each with its work saved; SLURM's jobs."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import takewhile
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from runlab.config.messages import UserError, suggest, user_errors
from runlab.config.processes import SIGKILL
from runlab.config.startup import fast_imports

Job = TypeVar("Job", bound=Callable[..., Any])
JOBLIB = "joblib"  # stands in the names of its launcher and of that one's module
SUBMITIT = "submitit"  # the same of the one for clusters
SIGNALS = (signal.SIGINT, signal.SIGTERM)

# What a worker process knows of itself: whether it has a job, and the exit statuses of what it was stopped by.
busy, stopped = threading.Event(), list[Any]()


@contextmanager
def signal_handler(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Hand Ctrl-C and SIGTERM to `handler`, and restore the earlier handlers at the end."""
    before = {signum: signal.signal(signum, handler) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier)


def check_launcher(launcher: DictConfig) -> None:
    """`UserError` for an option that a launcher of `hydra/launcher` does not have, or a value of another type."""
    store = ConfigStore.instance()
    for known in (store.load(f"hydra/launcher/{name}").node for name in store.list("hydra/launcher")):
        for key in map(str, launcher if known._target_ == launcher._target_ else ()):
            if key not in known:
                raise UserError(f"hydra.launcher.{key}: no such option.{suggest(key, map(str, known))}")
            with user_errors(f"hydra.launcher.{key}"):
                known[key] = launcher[key]


def launch_jobs(launcher: Any, jobs: Sequence[Sequence[str]], first: int) -> list[Any]:
    """What each of the jobs returns; they are numbered from `first` on.

    joblib alone would kill its workers on Ctrl-C before they have saved, and leave them behind on SIGTERM. Here either
    signal is passed to the workers, no further job begins, and when the workers are done this process exits with 130 or
    143; a signal a second later kills them.
    """
    if SUBMITIT in type(launcher).__module__:
        return launch_slurm_jobs(launcher, jobs, first)
    if JOBLIB not in type(launcher).__module__:
        return [job.return_value for job in launcher.launch(jobs, first)]
    asked: list[int] = []
    since = 0.0

    def ask(signum: int, _: object) -> None:
        nonlocal since
        if asked and time.monotonic() - since < 1:  # the same one again, as to a process and to its group
            return
        since = since or time.monotonic()
        asked.append(signum)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signum if len(asked) == 1 else SIGKILL)

    class UntilAsked(list[Any]):  # joblib draws a job when a worker is free, and so none after a signal
        def __iter__(self) -> Iterator[Any]:
            return takewhile(lambda _: not asked, super().__iter__())

    try:
        with signal_handler(ask):
            return [job.return_value for job in launcher.launch(UntilAsked(jobs), first)]
    finally:
        if asked:
            sys.exit(128 + asked[0])


def launch_slurm_jobs(launcher: Any, jobs: Sequence[Sequence[str]], first: int) -> list[Any]:
    """What each of the jobs returns; "unfinished" for one that was killed: submitit would then wait for no other."""
    from unittest.mock import patch

    from submitit import Job as SlurmJob
    from submitit.core.utils import FailedJobError, UncompletedJobError

    results = SlurmJob.results

    def results_or_status(self: Any) -> list[Any]:
        try:
            return results(self)
        except (FailedJobError, UncompletedJobError) as error:
            print(f"SLURM's job {self.job_id}  unfinished: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
            return [JobReturn(status=JobStatus.COMPLETED, _return_value="unfinished")]

    with patch.object(SlurmJob, "results", results_or_status):
        return [job.return_value for job in launcher.launch(jobs, first)]


def stoppable(job: Job) -> Job:
    """Have `job`, where it is called in a worker process, end by the signals that `launch_jobs` hands on.

    Training is stopped by `StopOnSignal`, what comes before and after it at once. No other job begins in that process.
    """

    @wraps(job)
    def wrapped(*arguments: Any) -> Any:
        if multiprocessing.current_process().name == "MainProcess":  # joblib takes it for a job at a time
            return job(*arguments)
        if signal.getsignal(signal.SIGTERM) != _stop:
            for signum in SIGNALS:
                signal.signal(signum, _stop)
            exit_with_parent()
            with fast_imports():  # joblib would take what they need for a leak, had the first job ended before them
                import lightning  # noqa: F401
        busy.set()
        try:
            return "stopped" if stopped else job(*arguments)
        except SystemExit as end:
            stopped.append(end.code)
            return "stopped"
        finally:
            busy.clear()

    return wrapped  # type: ignore[return-value]


def _stop(signum: int, _: object) -> None:
    first = not stopped
    stopped.append(128 + signum)
    if first and busy.is_set():
        sys.exit(128 + signum)


def exit_with_parent() -> None:
    """End this process by SIGTERM once the process that started it has gone, when it is no longer `busy`."""
    threading.Thread(target=_exit_with, args=[os.getppid()], daemon=True).start()


def _exit_with(parent: int) -> None:
    """Wait for the parent to go, however it was killed, and end this process."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    while busy.is_set():
        time.sleep(0.1)
    os._exit(128 + signal.SIGTERM)
