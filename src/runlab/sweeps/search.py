"""The sweeper that searches with Optuna. Hydra imports it at each start: nothing heavy up here."""

import random
import shlex
import warnings
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock
from hydra.core.override_parser.types import Override

from runlab.config.messages import UserError, one_line
from runlab.runs.code import take_finished
from runlab.runs.files import atomic_write, run_lock
from runlab.sweeps import results
from runlab.sweeps.grid import Grid
from runlab.sweeps.space import chosen, distribution, each_choice, readable

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

    Space = dict[str, BaseDistribution]  # by the option's name; in here, as Python 3.10 shows it to Hydra as a class


class Search(Grid):
    """Optuna's search for the best value of the monitored metric.

    The same command with the same `hydra.sweep.dir` resumes the search: killed trials are run again, in their folders.
    The result equals that of a search without a kill: a trial's values depend on `seed`, its number and the results
    before it alone.

    `n_trials` counts all trials, failed ones too; `n_jobs` of them run at a time. `direction` is maximize or minimize,
    `storage` the URL of a database, `sampler` makes an Optuna sampler, given a `seed`. `UserError` if one has failed.
    """

    def __init__(
        self,
        params: dict[str, Any] | None,
        n_trials: int,
        n_jobs: int,
        direction: Literal["maximize", "minimize"],
        seed: int,
        storage: str,
        sampler: "Callable[..., BaseSampler]",
    ) -> None:
        super().__init__(params)
        for name, value in (("n_trials", n_trials), ("n_jobs", n_jobs)):
            if type(value) is not int or value < 1:
                raise UserError(f"hydra.sweeper.{name}={value}: must be integer >= 1")
        self.n_trials, self.n_jobs, self.direction = n_trials, n_jobs, direction
        self.seed, self.storage, self.sampler, self.best = seed, storage, sampler, ""

    def sweep(self, arguments: list[str]) -> None:
        try:
            super().sweep(arguments)
        finally:
            print(self.best, end="", flush=True)  # below the table

    def run(self, overrides: list[Override]) -> list[str]:
        import optuna
        from optuna.trial import TrialState

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space: Space = {}
        fixed: dict[str, str] = {}  # keys by their overrides
        for override in overrides:  # what is typed comes after `params`, and takes their place
            key = override.get_key_element()  # with the + of an added option
            space.pop(key, None)
            values = list(override.sweep_string_iterator()) if override.is_choice_sweep() else []
            if len(values) == 1:
                fixed[f"{key}={values[0]}"] = key
            elif override.is_sweep_override():
                space[key] = distribution(override)
            else:
                fixed[str(override.input_line)] = key
        for job in each_choice(space):
            self.config_of([*fixed, *job])  # `UserError` where one choice lacks what is searched or typed
        if self.cfg.get("rerun"):
            raise UserError("rerun=true: a search has learnt from its trials; name another hydra.sweep.dir")
        words = [word for word, key in fixed.items() if key != "rerun"]
        words += [f"{key}={drawn_from}" for key, drawn_from in space.items()]
        with run_lock(self.folder, resume=True):
            try:
                study = optuna.create_study(
                    study_name="search", storage=database(self.storage), direction=self.direction, load_if_exists=True
                )
            except Exception as error:
                way_out = "remove it if it is damaged: the same command reuses the trials that are finished"
                raise UserError(f"{self.storage}: {one_line(error).partition(' [SQL')[0]}; {way_out}") from error
            if differing := set(study.user_attrs.get("overrides", words)) ^ set(words):
                other = shlex.join(sorted(differing))
                raise UserError(f"{self.folder}: a search that differs in {other}; name another hydra.sweep.dir")
            study.set_user_attr("overrides", words)
            for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
                take_finished(self.folder / str(trial.number), self.cfg.get("rerun"))
            done = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
            print(f"{self.n_trials} trials, {done} of them done, in {self.folder}", flush=True)
            while batch := self.batch(study, space):
                jobs = [[*fixed, *chosen(trial)] for trial in batch]
                for trial in batch:
                    wait(self.folder / str(trial.number))
                for trial, value in zip(batch, self.launch(jobs, batch[0].number), strict=True):
                    if value is None:
                        raise UserError(f"monitor={self.cfg.monitor}: a run has no such metric to search by")
                    if isinstance(value, float) and isfinite(value):
                        study.tell(trial.number, value)
                    else:
                        study.tell(trial.number, state=TrialState.PRUNED if value == "pruned" else TrialState.FAIL)
            self.report(study, fixed)
            lost = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        statuses = [results.read(self.folder / str(trial.number)).status for trial in lost]
        return [one for one in statuses if one in ("failed", "unfinished", "damaged")]  # diverged is an answer too

    def batch(self, study: "Study", space: "Space") -> "list[FrozenTrial]":
        """The trials to run next: those that a kill has left, else `n_jobs` new ones; none at the end.

        All of them are in the storage before the first of them runs, so that a batch that is resumed knows of the
        same results as it did at first.
        """
        from optuna.trial import TrialState

        def running() -> "list[FrozenTrial]":
            return study.get_trials(states=(TrialState.RUNNING,))

        count = len(study.get_trials(deepcopy=False))
        new = -count % self.n_jobs or (0 if running() else self.n_jobs)
        for number in range(count, min(count + new, self.n_trials)):
            self.ask(study, space, number)
        # A launcher numbers its jobs in a row, and a job knows its trial by that number.
        left = running()
        return [trial for place, trial in enumerate(left) if trial.number == left[0].number + place]

    def ask(self, study: "Study", space: "Space", number: int) -> None:
        """Add the next trial to the storage, whole or not at all: it is drawn on a copy of the study in memory."""
        import optuna

        seed = random.Random(f"{self.seed} {number}").getrandbits(32)  # a seed that stays the same repeats trial 0
        draft = optuna.create_study(direction=self.direction, sampler=self.sampler(seed=seed))
        draft.add_trials(study.get_trials(deepcopy=False))
        draft.ask(space)
        trial = draft.trials[-1]
        trial.params = {key: readable(value, space[key]) for key, value in trial.params.items()}
        study.add_trial(trial)

    def report(self, study: "Study", fixed: dict[str, str]) -> None:
        """Draw the history, and note the command that repeats the best trial, without the search around it."""
        from optuna.exceptions import ExperimentalWarning
        from optuna.trial import TrialState

        if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            return
        from matplotlib import pyplot
        from optuna.visualization.matplotlib import plot_optimization_history

        pyplot.switch_backend("agg")  # draws without a display
        with pyplot.rc_context(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*plot_optimization_history is experimental", ExperimentalWarning)
            plot_optimization_history(study, target_name=self.cfg.monitor)
            try:
                with atomic_write(picture := self.folder / "optimization_history.png") as path:
                    pyplot.savefig(path, format="png")
            finally:
                pyplot.close()
        kept = [word for word, key in fixed.items() if not key.startswith(("sweep", "rerun", "callbacks.pruning"))]
        command = shlex.join(["python", "train.py", *kept, *chosen(study.best_trial)])
        self.best = f"history  {picture}\nbest     {self.cfg.monitor} {study.best_value}  {command}\n"


def database(url: str) -> "RDBStorage":
    """Where the trials are kept, without connections that stay open: Python 3.13 warns of those at the end."""
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import NullPool

    return RDBStorage(url, engine_kwargs={"poolclass": NullPool})


def wait(run_dir: Path) -> None:
    """Until no process is in this folder: those that joblib or SLURM started for a search outlive its kill."""
    if (path := run_dir / ".lock").exists():
        with FileLock(path):
            pass
