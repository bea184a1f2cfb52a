"""When what is logged in training goes to the loggers."""

import math

import lightning as L


def logs_this_batch(trainer: L.Trainer) -> bool:
    """Whether what is logged in the current training batch goes to the loggers.

    Lightning's own rule: every `log_every_n_steps`-th batch after which an optimizer stepped. That is no matter of
    `global_step`, which counts each of several optimizers. Holds from `on_train_batch_start` to `on_train_batch_end`.
    """
    gathers = trainer.lightning_module.automatic_optimization and trainer.fit_loop._should_accumulate()
    return not gathers and (trainer._logger_connector.should_update_logs or bool(trainer.fast_dev_run))  # type: ignore[attr-defined]  # set by a connector


class LogOncePerEpoch(L.Callback):
    """Lowers `trainer.log_every_n_steps` where an epoch has fewer steps, so that each epoch logs at least once.

    Lightning warns of such an interval when it sets up the data, which is before any callback could mend it; who
    builds the Trainer filters that warning ("The number of training batches (...) is smaller than the logging
    interval").
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        if math.isfinite(trainer.num_training_batches):
            steps = max(1, int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
            trainer.log_every_n_steps = min(trainer.log_every_n_steps, steps)  # type: ignore[attr-defined]  # set by a connector
