"""Train an image classifier, test its best checkpoint, write a run folder. `python train.py --help` shows how."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from digits import runs, sweeps
from digits.errors import answered_plainly, check, user_errors
from digits.folder import expanded, recorded
from digits.startup import leaving_quickly, quick_imports


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run what `cfg` describes, write it into `cfg.run_dir`, and return what its `metrics.json` holds."""
    check(cfg, Path(__file__).parent / "conf/rules.yaml")
    run_dir = Path(cfg.run_dir)
    if cfg.resume == "auto" and (metrics := runs.finished(run_dir, cfg)):
        print(f"{os.path.relpath(run_dir)}: this run is finished, nothing is changed")
        return metrics
    with runs.claimed(run_dir, resume=cfg.fit and cfg.resume == "auto"):
        return fit_and_test(cfg, run_dir)


def fit_and_test(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    start = time.perf_counter()
    # Imported here, so that --help, --cfg, a mistake and a finished run are answered without waiting for torch.
    with quick_imports():
        import lightning

        from digits import checkpoints, loggers, parts, progress
    progress.silence_remarks()
    with loggers.closed() as built:
        with user_errors():
            lightning.seed_everything(cfg.seed, workers=True, verbose=False)
            data, model = parts.build_parts(cfg)
            last = parts.last_checkpoint(run_dir, cfg) if cfg.fit else None
            ckpt_path = last or cfg.ckpt_path
            checkpoint = checkpoints.restore(model, ckpt_path) if ckpt_path else {}
            built[:] = loggers.build_loggers(cfg, checkpoint if last else {})
            trainer = parts.build_trainer(cfg, built, data)
            runs.begin(run_dir, cfg, data)
            loggers.log_config(trainer, cfg)

        end = {"epoch": checkpoint.get("epoch", 0) + 1, "global_step": checkpoint.get("global_step", 0)}
        if cfg.fit:
            trainer.fit(model, data, ckpt_path=last, weights_only=True)
            ckpt_path = trainer.checkpoint_callback.best_model_path or run_dir / "checkpoints/last.ckpt"
            checkpoint = checkpoints.restore(model, ckpt_path)
            end = {"epoch": trainer.current_epoch, "global_step": trainer.global_step}
        trainer.test(model, data, verbose=False)
        end |= {"seconds": round(time.perf_counter() - start, 3), "best_checkpoint": ckpt_path}
        scores = checkpoint["metrics"] | trainer.callback_metrics
        return runs.report(run_dir, scores, model.counts["test"].compute(), end)


@hydra.main(version_base=None, config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | str | None:
    """Return the monitored metric, which is what a sweep optimizes, or in a sweep how the job ended without one."""
    return sweeps.job(train, recorded(cfg, HydraConfig.get().overrides.task))


if __name__ == "__main__":
    with leaving_quickly(), answered_plainly():
        sys.argv = expanded(sys.argv)
        main()
