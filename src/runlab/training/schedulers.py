"""Learning rate schedules: any of torch's by its name in a config, and two that fall to zero over the whole run."""

import inspect
import math
from collections.abc import Callable
from typing import Any

from lightning import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from runlab.config.messages import UserError, user_errors

OF_LIGHTNING = ("interval", "frequency", "monitor", "strict")  # options of a scheduler's config that are not torch's


def linear(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """Let the learning rate fall in a straight line to zero over `total_steps` optimizer steps."""
    return LambdaLR(optimizer, lambda step: 1 - min(step / total_steps, 1.0))


def cosine(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """Let the learning rate fall along half a cosine to zero over `total_steps` optimizer steps."""
    return LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * min(step / total_steps, 1.0))) / 2)


def with_scheduler(optimizer: Optimizer, scheduler: Callable[..., Any] | None, trainer: Trainer) -> Any:
    """What `configure_optimizers` returns for an optimizer and a factory of its scheduler, or None for no scheduler.

    The factory is a `functools.partial` of any scheduler class of torch's. Its `interval` (`step` or `epoch`),
    `frequency`, `monitor` and `strict` go to Lightning. `total_steps`, where the class takes it and nobody has given
    it, is the number of optimizer steps of the whole run, and `interval` is then `step`. `UserError` where that number
    is not known, or where `ReduceLROnPlateau` has no metric to watch.
    """
    if not scheduler:
        return optimizer
    options = dict(getattr(scheduler, "keywords", {}))
    ours = {name: options.pop(name) for name in OF_LIGHTNING if name in options}
    make: Any = getattr(scheduler, "func", scheduler)
    takes_total = "total_steps" in inspect.signature(make).parameters
    if takes_total and options.get("total_steps") is None and not options.get("epochs"):
        options["total_steps"] = _optimizer_steps(trainer)
    if inspect.isclass(make) and issubclass(make, ReduceLROnPlateau) and not ours.get("monitor"):
        raise UserError("scheduler.monitor: ReduceLROnPlateau watches a metric; add +scheduler.monitor=val/loss")
    config = {"interval": "step" if takes_total else "epoch", **ours}
    with user_errors("scheduler"):
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make(optimizer, **options), **config}}


def _optimizer_steps(trainer: Trainer) -> int:
    steps = trainer.estimated_stepping_batches
    if steps == math.inf:
        raise UserError(
            "scheduler: needs the number of optimizer steps, which trainer.max_time does not tell; add"
            " trainer.max_steps=... or trainer.max_epochs=..., or take scheduler=none"
        )
    if steps <= 0:
        raise UserError(
            "scheduler: needs the number of optimizer steps, which training data without a length do not tell; add"
            " trainer.max_steps=..., or take scheduler=none"
        )
    return int(steps)


def step_plateau(trainer: Trainer, epoch: int) -> None:
    """Step the schedulers that watch a metric for an epoch, from 0, that has ended."""
    metrics = trainer.callback_metrics
    for config in trainer.lr_scheduler_configs:
        due = config.reduce_on_plateau and config.interval == "epoch" and (epoch + 1) % config.frequency == 0
        if due and config.monitor in metrics:
            config.scheduler.step(metrics[config.monitor])  # type: ignore[arg-type]  # ReduceLROnPlateau takes it
