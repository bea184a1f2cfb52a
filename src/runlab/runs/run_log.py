"""`run.log`: what the user's own code logs from level INFO, every warning, and the traceback of a failure."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runlab.config.messages import UserError
from runlab.config.own_code import is_own_code
from runlab.config.processes import in_sweep, rank
from runlab.config.secrets import masked
from runlab.runs.files import RUN_LOG


class _LogFile(logging.FileHandler):
    """A log file that is appended to; a log that cannot be written, as on a full disk, does not end the run."""

    def __init__(self, run_dir: Path) -> None:
        name = f"run.rank{rank()}.log" if rank() else RUN_LOG  # each rank its own; another one's only if it has a line
        super().__init__(run_dir / name, encoding="utf-8", delay=rank() > 0)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def write(self, name: str, level: int, text: str, exc_info: Any = None) -> None:
        self.handle(logging.LogRecord(name, level, "", 0, text, (), exc_info))

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def run_log(run_dir: Path) -> Iterator[None]:
    """Write what is logged in here into the folder's `run.log`, and show what is the user's own of a single run.

    Nothing is said twice: where a program has handlers of its own, they do the showing.
    """
    log, root = _LogFile(run_dir), logging.getLogger()
    make, show, level = logging.getLogRecordFactory(), warnings.showwarning, root.level
    shown = rank() == 0 and not in_sweep()

    def make_and_write(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        number = record.levelno or 0  # none in a record that comes from another process
        own = number >= logging.INFO and is_own_code(record.pathname)
        if (own or number >= logging.WARNING) and record.name != "py.warnings":
            log.handle(record)
        if own and shown and number < logging.WARNING and not logging.getLogger(record.name).hasHandlers():
            print(record.getMessage(), file=sys.stderr)  # a warning is shown by Python itself
        return record

    def show_and_write(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        show(message, category, filename, lineno, file, line)
        if file is None:
            log.write("warnings", logging.WARNING, warnings.formatwarning(message, category, filename, lineno, line))

    # A record factory sees what any logger logs, a handler only what is handed up to it: Lightning, MLflow and Optuna
    # keep theirs to themselves.
    logging.setLogRecordFactory(make_and_write)
    warnings.showwarning = show_and_write
    root.setLevel(min(level, logging.INFO))
    try:
        yield
    except Exception as error:
        mistake = type(error) is UserError and error.__cause__ is None  # in what was typed: the run has not failed
        if not in_sweep() and not mistake:  # in a sweep it is written with the job's status
            write_traceback(run_dir, error)
        raise
    finally:
        logging.setLogRecordFactory(make)
        warnings.showwarning = show
        root.setLevel(level)
        log.addFilter(lambda _: False)  # a hook that was kept from in here and is restored later opens no file
        with suppress(OSError):
            log.close()


def write_traceback(run_dir: Path, error: Exception) -> None:
    """Append an error with its traceback to the folder's `run.log`."""
    with suppress(OSError):
        file = _LogFile(run_dir)
        file.write("run", logging.ERROR, "failed", (type(error), error, error.__traceback__))
        file.close()
