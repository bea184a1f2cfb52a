"""The loggers: Lightning's, with what they lack or do too much of."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock
from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard.summary import hparams

from runlab.config.instantiate import build
from runlab.config.messages import Pruned, one_line
from runlab.config.signatures import check_signatures
from runlab.tracking.history import OneHistory

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


class MLFlowLogger(OneHistory, loggers.MLFlowLogger):
    """Lightning's, with a lock: two processes that create a new store's tables or an experiment would collide."""

    name_of_file = ".mlflow.jsonl"

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
        if self._initialized:
            return super().experiment
        with self._lock:
            self._run_id = self._run_id or self.id or None
            client = super().experiment
        if self.id:
            client.update_run(self._run_id, "RUNNING")
        self.note(("id", None, str(self._run_id)))
        return client

    @rank_zero_only
    def log_image(self, tag: str, picture: Any, step: int) -> None:
        if (tag, step, "") not in self.shown:
            self.experiment.log_image(self.run_id, picture, key=tag, step=step)
            self.note((tag, step, ""))

    def finalize(self, status: str = "success") -> None:
        """Lightning calls this after training and after the test; how the run ends `end` says."""

    def end(self, status: str) -> None:
        super().finalize(status)


class WandbLogger(OneHistory, loggers.WandbLogger):
    """Lightning's, without the argument that it always passes on and W&B always answers with a warning."""

    name_of_file = ".wandb.jsonl"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._wandb_init.pop("anonymous", None)

    def begin(self, run_dir: Path, step: int, resumed: bool) -> None:
        super().begin(run_dir, step, resumed)
        self._id = self._wandb_init["id"] = self._id or self.id or uuid4().hex[:8]
        self.note(("id", None, self._id))

    def end(self, status: str) -> None:
        if self._experiment:  # Lightning leaves it open for the next job of a sweep; 255 is W&B's own for Ctrl-C
            self._experiment.finish(exit_code={"FINISHED": 0, "KILLED": 255}.get(status, 1))


@contextmanager
def closing_loggers() -> Iterator[list[Any]]:
    """A list for loggers. At the end MLflow and W&B are told how the run has ended: FINISHED, KILLED or FAILED.

    TensorBoard's thread fails with a line; where the run writes to it next, it fails too.
    """
    opened: list[Any] = []
    status = "KILLED"  # by Ctrl-C, SIGTERM, or a search
    hook = threading.excepthook
    threading.excepthook = lambda failure: _in_a_line(failure) or hook(failure)
    try:
        yield opened
        status = "FINISHED"
    except Exception as error:
        status = status if isinstance(error, Pruned) else "FAILED"
        raise
    finally:
        threading.excepthook = hook
        for logger in opened:
            if isinstance(logger, MLFlowLogger | WandbLogger):
                logger.end(status)


def _in_a_line(failure: threading.ExceptHookArgs) -> bool:
    """Print what keeps TensorBoard's thread from writing, as on a full disk; False for any other thread's failure."""
    if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__name__ == "_AsyncWriterThread"):
        return False
    print(f"TensorBoard: {one_line(failure.exc_value)}", file=sys.stderr)
    return True


def build_loggers(cfg: DictConfig, checkpoint: dict[str, Any]) -> list[Any]:
    """The loggers; those of a resumed run go on with what they have, without what was logged after `checkpoint`."""
    loops = checkpoint.get("loops")  # Lightning's x axis
    step = loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] if loops else -1
    resumed, changed = cfg.resume == "auto", cfg.logger
    check_signatures(cfg, "logger")
    if resumed and "tensorboard" in cfg.logger:
        changed = OmegaConf.merge(cfg.logger, {"tensorboard": {"purge_step": step + 1}})
    built = [*build(changed).values()]
    for logger in built:
        if isinstance(logger, OneHistory):
            logger.begin(Path(cfg.run_dir), step, resumed)
    return built
