"""The callback of a search's runs: it reports to Optuna, which may end a run early."""

from functools import cached_property

import optuna
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, LightningModule, Trainer
from optuna.pruners import BasePruner

from runlab.config.messages import Pruned
from runlab.config.processes import in_sweep
from runlab.config.resolvers import score
from runlab.sweeps.search import database


class Pruning(Callback):
    """Tells the search each validation's `monitor`, and ends the run with `Pruned` where `pruner` says so.

    The job's number is that of its trial; in a run that is no job this does nothing. `storage` is the URL of the
    search's database. A resumed run may validate an epoch again: the first value is kept.
    """

    def __init__(self, monitor: str | None, storage: str, pruner: BasePruner) -> None:
        self.monitor, self.storage, self.pruner = monitor, storage, pruner

    @cached_property
    def study(self) -> optuna.Study:
        return optuna.load_study(study_name="search", storage=database(self.storage), pruner=self.pruner)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        value = trainer.callback_metrics.get(str(self.monitor))
        if trainer.sanity_checking or not in_sweep() or value is None:
            return
        prune = trainer.is_global_zero and self._prunes(trainer.current_epoch, float(value))
        if trainer.strategy.reduce_boolean_decision(prune, all=False):
            raise Pruned(
                f"{self.monitor} {score(float(value))} after epoch {trainer.current_epoch + 1}: others did better"
                " by then"
            )

    def _prunes(self, epoch: int, value: float) -> bool:
        known = self.study.get_trials(deepcopy=False)[HydraConfig.get().job.num]
        trial = optuna.trial.Trial(self.study, known._trial_id)
        if epoch not in known.intermediate_values:
            trial.report(value, epoch)
        return trial.should_prune()
