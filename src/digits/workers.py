"""Jobs of a sweep in parallel worker processes, joblib's: all of them end together, each with its work saved."""

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from itertools import takewhile
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from digits.errors import UserError
from digits.folder import in_sweep

Job = TypeVar("Job", bound=Callable[..., Any])
JOBLIB = "joblib"  # stands in the names of its launcher and of that one's module
SIGNALS = (signal.SIGINT, signal.SIGTERM)

# What a worker process knows of itself: whether it has a job, and the exit statuses of what it was stopped by.
busy, stopped = threading.Event(), list[Any]()


def launched(launcher: Any, jobs: Sequence[Sequence[str]], first: int) -> list[Any]:
    """What each of the jobs returns; they are numbered from `first` on.

    joblib alone would kill its workers on Ctrl-C before they have saved, and leave them behind on SIGTERM. Here either
    signal goes on to the workers, no further job begins, and when the workers are done this process exits with 130 or
    143; a second signal kills them. `UserError` if a worker is killed by somebody else.
    """
    if JOBLIB not in type(launcher).__module__:
        return [job.return_value for job in launcher.launch(jobs, first)]
    asked: list[int] = []

    def ask(signum: int, _: object) -> None:
        asked.append(signum)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signum if len(asked) == 1 else signal.SIGKILL)

    class UntilAsked(list[Any]):  # joblib draws a job when a worker is free, and so none after a signal
        def __iter__(self) -> Iterator[Any]:
            return takewhile(lambda _: not asked, super().__iter__())

    before = {signum: signal.signal(signum, ask) for signum in SIGNALS}
    try:
        return [job.return_value for job in launcher.launch(UntilAsked(jobs), first)]
    except Exception as error:
        if type(error).__name__ != "TerminatedWorkerError":  # joblib's, which is not imported here
            raise
        end = re.search(r"{(.*)}", str(error))
        text = f"a worker process was ended by {end[1] if end else 'something'}, perhaps for want of memory"
        again = f"the same command with hydra.sweep.dir='{launcher.config.hydra.sweep.dir}' goes on"
        raise UserError(f"{text} (hydra.launcher.n_jobs=1 takes less); {again}") from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if asked:
            sys.exit(128 + asked[0])


def stoppable(job: Job) -> Job:
    """Have `job`, where it is called in a worker process, end by the signals that `launched` hands on.

    Training is stopped by `StopOnSignal`, what comes before and after it at once. No other job begins in that process.
    """

    @wraps(job)
    def wrapped(*arguments: Any) -> Any:
        if not in_sweep() or HydraConfig.get().mode != RunMode.MULTIRUN:
            return job(*arguments)
        if JOBLIB not in HydraConfig.get().launcher._target_:
            return job(*arguments)
        if signal.getsignal(signal.SIGTERM) != _stop:
            for signum in SIGNALS:
                signal.signal(signum, _stop)
            threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
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


def _end_with(parent: int) -> None:
    """End this process after the one that launched it, by whatever that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    while busy.is_set():
        time.sleep(0.1)
    os._exit(128 + signal.SIGTERM)
