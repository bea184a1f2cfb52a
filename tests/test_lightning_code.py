"""Lightning's code that the lean loop repeats or relies on is still what it was written from."""

import hashlib
import inspect
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult, _AutomaticOptimization
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection

# Each piece of code with the first digits of its source's SHA-256.
COPIED: dict[Any, str] = {
    _Loop.on_iteration_done: "e30c5339",
    _TrainingEpochLoop.__init__: "dc28ffa4",
    _TrainingEpochLoop.run: "e8393a21",
    _TrainingEpochLoop.reset: "0014631a",
    _TrainingEpochLoop.on_run_start: "4993b0dc",
    _TrainingEpochLoop.advance: "c7555c01",
    _TrainingEpochLoop.on_advance_end: "2d1ddaa4",
    _TrainingEpochLoop.done.fget: "ba06fbd8",  # type: ignore[attr-defined]
    _TrainingEpochLoop._is_training_done.fget: "b6a4cafb",  # type: ignore[attr-defined]
    _TrainingEpochLoop._update_learning_rates: "26ac8752",
    _TrainingEpochLoop._should_check_val_fx: "cf0916b1",
    _TrainingEpochLoop._save_loggers_on_train_batch_end: "bd82b8b3",
    _AutomaticOptimization.run: "385b4373",
    _AutomaticOptimization._make_closure: "b4bd4534",
    _AutomaticOptimization._make_zero_grad_fn: "0f9b56ff",
    _AutomaticOptimization._make_backward_fn: "638ca477",
    _AutomaticOptimization._optimizer_step: "e196b2fa",
    _AutomaticOptimization._on_before_zero_grad: "b7f44d3a",
    _AutomaticOptimization._optimizer_zero_grad: "abd5876a",
    _AutomaticOptimization._training_step: "72e8f952",
    Closure: "bbca72c1",
    ClosureResult: "2da8d811",
    Precision.pre_backward: "f94c53cf",
    Precision.backward: "c45a6fcf",
    Precision.post_backward: "26b545c1",
    Precision._after_closure: "395e9462",
    Precision._wrap_closure: "2d25ccda",
    Precision.optimizer_step: "868b323a",
    Strategy.backward: "627cfe60",
    Strategy.training_step: "e0755d72",
    Strategy.batch_to_device: "e7b211b0",
    L.LightningModule.optimizer_step: "f0727867",
    L.LightningModule.optimizer_zero_grad: "9edadf25",
    L.LightningModule.backward: "798293b0",
    L.LightningModule.lr_scheduler_step: "7cd01c52",
    L.LightningModule.configure_gradient_clipping: "081ca8d4",
    L.LightningModule._call_batch_hook: "7ffd8dfc",
    L.LightningModule._apply_batch_transfer_handler: "4e7f8188",
    L.LightningModule.transfer_batch_to_device: "43187fd3",
    ModelCheckpoint.on_train_batch_end: "71bdc73c",
    call._call_callback_hooks: "c413fb9a",
    call._call_lightning_module_hook: "558a87d0",
    call._call_strategy_hook: "ff429e3a",
    _LoggerConnector.on_batch_start: "5022a98e",
    _LoggerConnector.on_batch_end: "87c0a9cd",
    _LoggerConnector.update_train_step_metrics: "44584c0c",
    _LoggerConnector.should_update_logs.fget: "a60ba9e9",  # type: ignore[attr-defined]
    _ResultCollection.log: "57ea9185",
    _ResultCollection.metrics: "253a052f",
}


def test_lightnings_code_is_what_the_lean_loop_was_written_from() -> None:
    def digest(code: Any) -> str:
        return hashlib.sha256(inspect.getsource(code).encode()).hexdigest()[:8]

    changed = {code.__qualname__: digest(code) for code, known in COPIED.items() if digest(code) != known}
    assert not changed, (
        f"Lightning {L.__version__} has changed {changed}: compare LeanEpochLoop and LeanStep with it,"
        " then renew the digests here"
    )
