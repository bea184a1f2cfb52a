"""Logged means over all processes: what `self.log` gathers over an epoch is that of all samples, whoever had them."""

from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection


class ProcessResults(_ResultCollection):
    """Lightning's collection of logged values, whose epoch values are those of all processes together.

    Lightning leaves this to `sync_dist=True` at each call, without which the first process's values are reported, and
    then divides by a mean number of samples that it has rounded to a whole one.
    """

    def log(self, fx: str, name: str, value: Any, **options: Any) -> None:
        if not torch.distributed.is_initialized():
            super().log(fx, name, value, **options)
            return
        if options.get("on_epoch", True) and not options.get("rank_zero_only"):
            options["sync_dist"] = True
        super().log(fx, name, value, **options)
        for metric in self.values():
            if metric.meta.name == name and metric.is_tensor and metric.meta.is_mean_reduction:
                metric.cumulated_batch_size = metric.cumulated_batch_size.double()


def use_process_means(trainer: Trainer) -> None:
    """Have the evaluation loops of a Trainer gather their values so; the training loop is `LeanEpochLoop`."""
    for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop):
        loop._results = ProcessResults(training=False)
