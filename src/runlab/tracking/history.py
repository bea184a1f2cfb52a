"""One history of a run that is resumed, in loggers that would begin a new one each time."""

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import loggers
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from runlab.config.messages import UserError
from runlab.config.processes import rank_zero


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Around what reads a logger's file of a run that is resumed: `UserError` where it is damaged."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise UserError(f"{file}: damaged; restore it, or move it away: the history then begins anew") from error


class OneHistory:
    """Mixed into a logger: a resumed run logs into the run that it began, and nothing twice.

    `name_of_file` in the run folder has the id of that run, and a line for each value that was logged. What is logged
    again, as a kill had cost the weights, is left out; not where it is another value, as a setting was changed.
    """

    name_of_file, id, begun = "", "", False
    file: Path | None = None
    shown: Any = frozenset()  # (name, step, text of the value) of what has been logged from the checkpoint on

    def begin(self, run_dir: Path, step: int, resumed: bool) -> None:
        """To be called before the logger is used. `step` is the optimizer step to resume from, -1 from the start."""
        self.file = run_dir / self.name_of_file
        if not resumed and rank_zero():
            self.file.unlink(missing_ok=True)
        with readable(self.file):
            lines = self.file.read_text().splitlines() if self.file.exists() else []
            rows = [json.loads(line) for line in lines if line.endswith("]")]  # a kill may have cut the last one short
            self.id, self.begun = next((text for name, _, text in rows if name == "id"), ""), len(rows) > 1
            self.shown = {(name, at, text) for name, at, text in rows if (at or 0) >= step}

    @rank_zero_only
    def note(self, *rows: tuple[str, int | None, str]) -> None:
        if self.file:
            with self.file.open("a") as file:
                file.writelines("\n" + json.dumps(row) for row in rows)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        rows = {name: (name, step, str(x) if isinstance(x, int | float) else "") for name, x in metrics.items()}
        new = [name for name in metrics if name == "epoch" or rows[name] not in self.shown]
        if new != ["epoch"] * ("epoch" in metrics):  # which Lightning adds to all others
            super().log_metrics({name: metrics[name] for name in new}, step)  # type: ignore[misc]
            self.note(*(rows[name] for name in new))

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        if not self.begun:  # what the run's first command says stays
            super().log_hyperparams(params)  # type: ignore[misc]


class CSVLogger(OneHistory, loggers.CSVLogger):
    """Lightning's, with one file for a run that is resumed."""

    def begin(self, run_dir: Path, step: int, resumed: bool) -> None:  # noqa: ARG002
        file = Path(self.log_dir, "metrics.csv")
        self.begun = resumed and file.exists()
        if self.begun:
            with readable(file):
                text = file.read_text()
                if not text.endswith("\n"):  # a kill, or a full disk, has cut the last row short
                    text = text[: text.rfind("\n") + 1]
                    file.write_text(text)
                reader = csv.DictReader(text.splitlines(), strict=True)
                rows = [row for row in reader if int(row["step"]) >= step]
                self.shown = {(name, int(row["step"]), value) for row in rows for name, value in row.items()}
                whole = all(isinstance(part, str) for name, _, value in self.shown for part in (name, value))
                if not whole or (text and "step" not in (reader.fieldnames or ())):
                    raise ValueError("it was cut")
        elif rank_zero():
            shutil.rmtree(self.log_dir, ignore_errors=True)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        self._experiment = self._experiment or _Writer(self.log_dir)
        return self._experiment


class _Writer(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Keep the file's columns; Lightning would delete the file."""
        if (file := Path(self.metrics_file_path)).exists():
            with file.open(newline="") as text:
                self.metrics_keys = next(csv.reader(text), [])
