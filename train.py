"""Train an image classifier, test its best checkpoint, write a run folder. `python train.py --help` shows how."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from digits.errors import answered_plainly, check, user_errors


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run what `cfg` describes and write it into `cfg.run_dir`.

    Returns:
        What `metrics.json` holds: metrics by their logged names (`train/*` and `val/*` as the tested checkpoint scored
        them), `epoch` and `global_step` (epochs and optimizer steps done), `seconds`, `best_checkpoint`.
    """
    start = time.perf_counter()
    check(cfg, Path(__file__).parent / "conf/rules.yaml")
    # Imported here, so that --help, --cfg and a misspelt key are answered without waiting for torch.
    import lightning

    from digits.callbacks import silence_remarks
    from digits.model import ImageClassifier
    from digits.runs import as_logged, closing_lines, load_checkpoint, provenance, write_json

    silence_remarks()
    run_dir = Path(cfg.run_dir)
    build = partial(hydra.utils.instantiate, _convert_="all")  # plain lists and dicts, which a checkpoint may hold
    with user_errors():
        lightning.seed_everything(cfg.seed, workers=True, verbose=False)
        data = build(cfg.data)
        model = ImageClassifier(build(cfg.model), build(cfg.optimizer), build(cfg.scheduler) or None, data.num_classes)
        callbacks, loggers = build(cfg.callbacks), build(cfg.logger)
        trainer = build(cfg.trainer, callbacks=[*callbacks.values()], logger=[*loggers.values()])
        if cfg.ckpt_path:
            checkpoint = load_checkpoint(cfg.ckpt_path)
            model.load_state_dict(checkpoint["state_dict"])
        if trainer.is_global_zero:
            write_json(run_dir / "provenance.json", provenance(cfg.seed, trainer.strategy.root_device))

    best_checkpoint = cfg.ckpt_path
    if cfg.fit:
        trainer.fit(model, data, ckpt_path=cfg.ckpt_path, weights_only=True)
        best_checkpoint = trainer.checkpoint_callback.best_model_path
        checkpoint = load_checkpoint(best_checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
    trainer.test(model, data, verbose=False)

    counts = model.counts("test").compute()
    correct, total = int(counts.trace()), int(counts.sum())
    scores = checkpoint["metrics"] | trainer.callback_metrics
    metrics = {
        **{name: as_logged(value) for name, value in scores.items()},
        "test/acc": correct / total,
        "epoch": trainer.current_epoch if cfg.fit else checkpoint["epoch"] + 1,
        "global_step": trainer.global_step if cfg.fit else checkpoint["global_step"],
        "seconds": round(time.perf_counter() - start, 3),
        "best_checkpoint": os.path.relpath(best_checkpoint, run_dir),
    }
    if trainer.is_global_zero:
        write_json(run_dir / "metrics.json", metrics)
        print(closing_lines(correct, total, run_dir))
    return metrics


@hydra.main(version_base=None, config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Return the monitored metric, which is what a sweep optimizes."""
    return train(cfg).get(cfg.monitor)


if __name__ == "__main__":
    with answered_plainly():
        main()
