"""Train a task on data, test its best checkpoint, write a run folder. `python train.py --help` shows how."""

import sys
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from runlab.config.check import check
from runlab.config.help import group_help
from runlab.config.messages import report_errors, user_errors
from runlab.config.resolvers import as_texts, flags_first, for_each_choice, path_as_typed, without_null_groups
from runlab.config.startup import fast_exit, fast_imports
from runlab.runs import record
from runlab.runs.files import run_lock
from runlab.runs.resume import expand_resume
from runlab.runs.run_log import run_log
from runlab.sweeps.jobs import run_job

OPTIONS = ("runlab.training.options", "runlab.tracking.options", "digits.options")  # what the values in conf/ may be


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run what `cfg` describes, write it into `cfg.run_dir`, and return what its `metrics.json` holds."""
    cfg = check(cfg, *OPTIONS)
    run_dir = Path(cfg.run_dir)
    if cfg.resume == "auto" and (metrics := record.finished_metrics(run_dir, cfg)):
        print(f"{path_as_typed(run_dir)}: this run is finished, nothing is changed")
        return metrics
    with run_lock(run_dir, resume=cfg.fit and cfg.resume == "auto"), run_log(run_dir):
        return fit_and_test(cfg, run_dir)


def fit_and_test(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    start = time.perf_counter()
    # Imported here, so that --help, --cfg, a mistake and a finished run are answered without waiting for torch.
    with fast_imports():
        import lightning

        from runlab.data import seeding
        from runlab.runs import checkpoints
        from runlab.tracking import log, loggers
        from runlab.training import build, checkpointing, logged_values, progress
    progress.filter_warnings()
    with loggers.closing_loggers() as built:
        with user_errors():
            lightning.seed_everything(cfg.seed, workers=True, verbose=False)
            data, task = build.build_task(cfg)
            last, checkpoint = checkpoints.to_resume_from(run_dir, cfg) if cfg.fit else (None, {})
            checkpoint = checkpoint or checkpoints.restore(task, cfg.ckpt_path, strict=cfg.ckpt_strict)
            built[:] = loggers.build_loggers(cfg, checkpoint if last else {})
            trainer = build.build_trainer(cfg, built, task)
            record.write_record(run_dir, cfg, data, trainer.strategy.root_device)
            log.log_config(trainer, cfg)

        ckpt_path, end = cfg.ckpt_path, {"epoch": checkpoint["epoch"] + 1, "global_step": checkpoint["global_step"]}
        if cfg.fit:
            seeding.seed_all(cfg.seed)  # and before the test: what the data draw when they are set up is the same
            trainer.fit(task, data, ckpt_path=last, weights_only=True)
            ckpt_path = checkpointing.best_path(trainer, cfg.monitor)
            checkpoint = checkpoints.restore(task, ckpt_path, scores=logged_values.epoch_metrics(trainer))
            end = {"epoch": trainer.fit_loop.epoch_progress.current.ready, "global_step": trainer.global_step}
        tested = checkpointing.test(trainer, task, data, checkpoint, cfg.seed)
        end |= {"seconds": round(time.perf_counter() - start, 3), "best_checkpoint": ckpt_path}
        return record.write_metrics(run_dir, checkpoint["metrics"], tested, end)


@hydra.main(version_base=None, config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | str | None:
    """Return the monitored metric, which is what a sweep optimizes, or in a sweep how the job ended without one."""
    return run_job(train, cfg)


if __name__ == "__main__":
    with fast_exit(), report_errors():
        if not group_help(sys.argv, Path(__file__).parent / "conf", *OPTIONS):
            sys.argv = for_each_choice(as_texts(expand_resume(without_null_groups(flags_first(sys.argv)))))
            main()
