"""Which batches the training loop takes the short way, and which of its functions a user has defined."""

import lightning as L
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loops.fetchers import _DataFetcher, _PrefetchDataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy

# Methods of the module that take part in a step: where one is overridden, Lightning's own loop runs.
STEP_METHODS = (
    "optimizer_step",
    "optimizer_zero_grad",
    "backward",
    "lr_scheduler_step",
    "_on_before_batch_transfer",
    "_apply_batch_transfer_handler",
)


def is_common_case(trainer: L.Trainer, loop: _TrainingEpochLoop, data_fetcher: _DataFetcher) -> bool:
    """Whether a batch of this epoch is: forward, zero_grad, backward and one optimizer step on one device, no more.

    Clipped and accumulated gradients and bfloat16 are among it. float16 is not: its scaler decides by the gradients
    whether to step.
    """
    module, precision = trainer.lightning_module, trainer.precision_plugin
    is_bfloat16 = type(precision) is MixedPrecision and precision.scaler is None
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and trainer.strategy.model is module
        and (type(precision) is Precision or is_bfloat16)
        and type(trainer.profiler) is PassThroughProfiler  # type: ignore[attr-defined]  # set by a connector
        and type(data_fetcher) is _PrefetchDataFetcher
        and trainer._val_check_time_interval is None  # type: ignore[attr-defined]  # set by a connector
        and module.automatic_optimization
        and not loop.automatic_optimization._skip_backward
        and len(trainer.optimizers) == 1
        and not isinstance(trainer.optimizers[0], LightningOptimizer)
        and not any(c.reduce_on_plateau and c.interval == "step" for c in trainer.lr_scheduler_configs)
        and not any(is_defined(module, method, L.LightningModule) for method in STEP_METHODS)
    )


def is_defined(owner: object, hook: str, *bases: type) -> bool:
    """Whether `owner` has a function of its own named `hook`, instead of one inherited from one of `bases`."""
    function = getattr(owner, hook)
    inherited = [getattr(base, hook, None) for base in bases]
    return callable(function) and getattr(function, "__func__", function) not in inherited
