"""The sweeper that runs every combination. Hydra imports it at each start: nothing heavy in here."""

import pickle
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from runlab.config.messages import UserError, user_errors
from runlab.config.processes import launched_processes
from runlab.config.resolvers import quoted
from runlab.config.secrets import as_written
from runlab.runs.code import OtherCode
from runlab.runs.files import atomic_write
from runlab.runs.record import finished_metrics, write_overrides
from runlab.sweeps import picture, table, workers


class KeptConfigs:
    """What Hydra's launcher of jobs in this process composes them by: hands out what the sweep has composed before.

    No job of a grid is composed twice, and all are of conf/ as it was when the sweep began.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        # By the job's overrides. A DictConfig would take ten times as much memory.
        self.kept: dict[tuple[str, ...], bytes] = {}

    def keep(self, job: Sequence[str], cfg: DictConfig) -> None:
        with suppress(pickle.PicklingError, AttributeError, TypeError):  # of a class that has no module: composed anew
            self.kept[tuple(job)] = pickle.dumps(cfg)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        if kept := self.kept.pop(tuple(sweep_overrides), None):
            cfg: DictConfig = pickle.loads(kept)
            OmegaConf.copy_cache(from_config=master_config, to_config=cfg)
            return cfg
        return self.loader.load_sweep_config(master_config, sweep_overrides)


class Grid(Sweeper):
    """Runs every combination of the values, as Hydra's own sweeper does, but not the jobs that are finished already.

    At the end, and also where the sweep is stopped, the table of all jobs in the sweep's folder is printed and written
    as `results.csv`. `UserError` if a job has failed. `params` is a mapping of more overrides.
    torchrun and srun cannot start a sweep: each of their processes would be one.
    """

    def __init__(self, params: dict[str, Any] | None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.cfg, self.configs, self.folder = config, hydra_context.config_loader, Path(config.hydra.sweep.dir)
        self.params = as_written(config.hydra.sweeper).get("params") or {}
        with read_write(config):  # a sweep may be over `name`, which the folder has in its name: fix it now
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(self.folder)}")
        workers.check_launcher(config.hydra.launcher)
        self.kept = KeptConfigs(self.configs)
        jobs: Any = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)
        if config.hydra.launcher._target_.endswith(".BasicLauncher"):  # others compose by themselves
            jobs.hydra_context = HydraContext(cast("ConfigLoader", self.kept), hydra_context.callbacks)
        self.jobs = jobs

    def sweep(self, arguments: list[str]) -> None:
        if launched_processes() > 1:
            raise UserError(
                "a sweep starts the processes of its jobs itself: leave out torchrun or srun, or leave out -m"
            )
        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        overrides = OverridesParser.create(config_loader=self.configs).parse_overrides(words)
        for override in overrides:
            if override.key_or_group == "sweep" and override.is_sweep_override():
                names = str(override.input_line).partition("=")[2]
                raise UserError(f"sweep={names}: one sweep a command; all combinations of both: 'sweep=[{names}]'")
        with atomic_write(self.folder / "multirun.yaml") as path:
            OmegaConf.save(self.cfg, path)
        try:
            ended = self.run(overrides)
        finally:
            if rows := table.show(self.folder):
                print(f"\nresults  {table.write_csv(self.folder, rows)}", flush=True)
                if drawn := picture.write(self.folder, rows, self.cfg.monitor):
                    print(f"picture  {drawn}", flush=True)
        if ended:
            raise UserError(f"{len(ended)} of this sweep's jobs: {', '.join(sorted(set(ended)))}, see above")

    def run(self, overrides: list[Override]) -> list[str]:
        """Run the jobs, and return the statuses of those that have no metrics."""
        jobs = BasicSweeper.split_arguments(overrides, None)[0]
        folders: dict[Path, Sequence[str]] = {}
        missing = []
        words: dict[Path, Any] = {}
        for job in jobs:
            folder, cfg, typed = self.composed(job)
            if folders.setdefault(folder, job) is not job:
                raise UserError(f"{' '.join(job)}: its folder is that of {' '.join(folders[folder])}; leave one out")
            try:
                finished = finished_metrics(folder, cfg)
            except OtherCode:
                raise
            except UserError:  # a damaged file of this job, which says so itself and fails alone
                finished = None
            if finished is None:
                missing.append(job)
                words[folder] = typed
            else:
                self.kept.kept.pop(tuple(job), None)
        for folder, typed in words.items():  # the table has them also where the sweep is stopped before their turn
            write_overrides(folder, typed)
        print(f"{len(jobs)} jobs, {len(jobs) - len(missing)} of them finished, in {self.folder}", flush=True)
        return [value for value in self.launch(missing, 0) if isinstance(value, str)]

    def launch(self, jobs: Sequence[Sequence[str]], first: int) -> list[Any]:
        """What each of the jobs returns. They are numbered from `first` on; each is a list of overrides."""
        return workers.launch_jobs(self.jobs, jobs, first) if jobs else []

    def composed(self, job: Sequence[str]) -> tuple[Path, DictConfig, Any]:
        """A job's folder, its config, and its overrides."""
        cfg = self.config_of(job)
        self.kept.keep(job, cfg)
        folder, words = Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir), cfg.hydra.overrides.task
        with open_dict(cfg):
            del cfg["hydra"]
        return folder, cfg, words

    def config_of(self, job: Sequence[str]) -> DictConfig:
        """A job's config with Hydra's. What is wrong is found here, before the first job begins."""
        with user_errors(" ".join(job)):
            cfg = self.configs.load_sweep_config(self.cfg, [*job])
        for part in ("launcher", "sweeper"):  # an experiment's own would not be asked
            ours, theirs = (OmegaConf.to_container(each.hydra[part], resolve=False) for each in (self.cfg, cfg))
            if ours != theirs:
                way = "hydra/launcher=local" if part == "launcher" else "sweep=seeds"
                raise UserError(f"{' '.join(job)}: a file of it sets the {part}, which all jobs share; type it, {way}")
        return cfg
