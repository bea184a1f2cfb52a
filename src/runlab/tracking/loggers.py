"""The loggers: Lightning's, with what they lack or do too much of."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard.summary import hparams

from runlab.config.instantiate import build
from runlab.config.messages import one_line

# A run sends nothing out unless its user has said so. MLflow and W&B read this as they are imported, later.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # it logs each table that it makes
os.environ.setdefault("WANDB_SILENT", "true")  # set it to false to see where a run is and how to send it


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's, without what it adds: a chart of the epoch, a file of hyperparameters, a wait at each step."""

    def __init__(self, charts: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.charts = charts

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *unused: Any) -> None:  # noqa: ARG002
        """Fill the HPARAMS tab. `params` are ints, floats and strings by their names.

        There is no record of the experiment, of which TensorBoard would take one run's for all: without one it finds
        out by itself which hyperparameters and metrics there are in any run, and shows those first that differ.
        """
        _, session, _ = hparams(params, {})
        self.experiment._get_file_writer().add_summary(session)
        self.experiment.add_custom_scalars(self.charts)

    def save(self) -> None:
        """Lightning calls this at each logged step. The writer's own thread saves every `flush_secs` instead."""

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:  # noqa: ARG002
        self.experiment.flush()  # a run that is resumed from it has its curves until there


class MLFlowLogger(loggers.MLFlowLogger):
    """Lightning's, with a lock: two processes that create a new store's tables or an experiment would collide."""

    def __init__(self, tracking_uri: str, **kwargs: Any) -> None:
        self._lock: Any = nullcontext()
        if str(tracking_uri).startswith("sqlite:///"):
            path = Path(tracking_uri.removeprefix("sqlite:///")).absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        with self._lock:
            super().__init__(tracking_uri=tracking_uri, **kwargs)

    @property
    def experiment(self) -> Any:
        with nullcontext() if self._initialized else self._lock:
            return super().experiment


class WandbLogger(loggers.WandbLogger):
    """Lightning's, without the argument that it always passes on and W&B always answers with a warning."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._wandb_init.pop("anonymous", None)


@contextmanager
def closing_loggers() -> Iterator[list[Any]]:
    """A list for loggers. At the end a W&B run is finished, which Lightning leaves open for the next job of a sweep.

    TensorBoard's thread fails with a line; where the run writes to it next, it fails too.
    """
    opened: list[Any] = []
    failed, hook = True, threading.excepthook
    threading.excepthook = lambda failure: _in_a_line(failure) or hook(failure)
    try:
        yield opened
        failed = False
    finally:
        threading.excepthook = hook
        for logger in opened:
            if isinstance(logger, WandbLogger) and logger._experiment:
                logger._experiment.finish(exit_code=int(failed))


def _in_a_line(failure: threading.ExceptHookArgs) -> bool:
    """Print what keeps TensorBoard's thread from writing, as on a full disk; False for any other thread's failure."""
    if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__name__ == "_AsyncWriterThread"):
        return False
    print(f"TensorBoard: {one_line(failure.exc_value)}", file=sys.stderr)
    return True


def build_loggers(cfg: DictConfig, checkpoint: dict[str, Any]) -> list[Any]:
    """The loggers; a resumed run's TensorBoard no longer shows what was logged after `checkpoint` and lost."""
    lost = {"tensorboard": {"purge_step": checkpoint.get("global_step", -1) + 1}}
    resumed = cfg.resume == "auto" and "tensorboard" in cfg.logger
    return [*build(OmegaConf.merge(cfg.logger, lost if resumed else {})).values()]
