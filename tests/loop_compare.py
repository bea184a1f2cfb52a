"""Runs a module through Lightning's training loop and the lean one, and compares all that can be seen."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from loop_cases import Batches, Row, Rows

from runlab.training.fit_loop import use_engine_loops
from runlab.training.lean_loop import LeanEpochLoop

HOOKS = (
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_end",
    "on_train_epoch_end",
    "on_train_end",
)


class Recorder(L.Callback):
    """Notes each hook with the counters and metrics that it sees, and logs a value at each batch's end."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        for hook in HOOKS:
            setattr(self, hook, lambda *args, hook=hook: self.note(hook, *args))

    def note(self, hook: str, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        outputs = {k: float(v) for k, v in args[0].items()} if hook == "on_train_batch_end" and args[0] else None
        counters = (
            str(loop.batch_progress),
            str(loop.scheduler_progress),
            str(loop.automatic_optimization.optim_progress),
        )
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        learning_rate = [o.param_groups[0]["lr"] for o in trainer.optimizers]
        stepped = trainer.global_step, loop._batches_that_stepped
        self.seen.append((hook, module._current_fx_name, stepped, counters, metrics, outputs, learning_rate, args[2:]))
        if hook == "on_train_batch_end":
            module.log("seen", float(trainer.global_step), batch_size=1)


def build(loop: str, callbacks: list[L.Callback], **options: Any) -> L.Trainer:
    """A quiet Trainer whose loop is Lightning's ("stock"), that with seeds ("seeded"), or the lean one ("lean")."""
    quiet: dict[str, Any] = dict.fromkeys(("enable_checkpointing", "enable_progress_bar"), False)
    quiet |= {
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "accelerator": "cuda" if torch.cuda.is_available() else "cpu",
        "logger": Rows(),
    }
    trainer = L.Trainer(callbacks=callbacks, **{**quiet, "max_epochs": 2, "log_every_n_steps": 3, **options})
    if loop != "stock":
        use_engine_loops(trainer, seed=3, fast=loop == "lean")
    return trainer


def outcome(trainer: L.Trainer) -> dict[str, Any]:
    """What must not depend on the loop: weights, optimizer states, loop counters, rows."""
    module, loop = trainer.lightning_module, trainer.fit_loop
    state, connector = loop.state_dict(), trainer._logger_connector
    newest: Any = connector._callback_metrics, connector._logged_metrics, connector._progress_bar_metrics
    kept = state["state_dict"].pop("data_module", None)  # the engine's own entry, which Lightning's loop has not
    return {
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "optimizers": str([optimizer.state_dict() for optimizer in trainer.optimizers]),
        "loops": str(state),
        "kept": str(kept),
        "stepped": (trainer.global_step, loop.epoch_loop._batches_that_stepped),
        "rows": rows(trainer),
        "metrics": [{name: float(value) for name, value in metrics.items()} for metrics in newest],
        "name": module._current_fx_name,
    }


def rows(trainer: L.Trainer) -> list[Row]:
    logger = trainer.loggers[0]
    assert isinstance(logger, Rows)
    return logger.rows


def ran_lean(trainer: L.Trainer) -> int:
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, LeanEpochLoop)
    return loop.ran_lean


def compare(make: Callable[[], L.LightningModule], lean: int, reference: str = "seeded", **options: Any) -> None:
    """Run it by two loops, with and without a callback at each hook; `lean` batches must take the short way."""
    length, data = options.pop("length", 5), options.pop("data", None)
    extra = options.pop("callbacks", list)
    for record in (True, False):
        results = []
        for loop in (reference, "lean"):
            torch.manual_seed(1)
            module, recorder = make(), Recorder()
            trainer = build(loop, [*extra(), *([recorder] if record else [])], **options)
            if data is None:
                trainer.fit(module, Batches(length), Batches(2))
            else:
                trainer.fit(module, datamodule=data())
            results.append({"seen": recorder.seen, **outcome(trainer)})
        if reference == "stock":
            del results[0]["kept"]
        for name, value in results[0].items():
            assert results[1][name] == value, name
        assert ran_lean(trainer) == lean
