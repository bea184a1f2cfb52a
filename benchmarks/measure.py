"""The harness of the sections: values measured side by side, a row of the table, processes, the project's parts."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


def alternated(n: int, *calls: Callable[[], float]) -> list[list[float]]:
    """What each call returns, `n` times, in alternation: what else the machine does meets all of them."""
    return [list(values) for values in zip(*([call() for call in calls] for _ in range(n)), strict=True)]


def compared(
    what: str, sides: Sequence[list[float]], unit: str, target: float | None = None, more: bool = False
) -> Row:
    """A row: the ratios of values in `unit` that were measured side by side, `sides[0]` ours and `sides[1]` the others.

    The ratio is ours / other, and less is better. With `more` it says how many times faster ours is: more is better.
    """
    ours, other = sides
    turned = more and not unit.endswith("/s")  # of times, the smaller is the faster
    ratios = [b / a if turned else a / b for a, b in zip(ours, other, strict=True)]
    row = {"what": what, "ratio": statistics.median(ratios), "smallest": min(ratios), "largest": max(ratios)}
    row |= {"n": len(ratios), "ours": statistics.median(ours), "other": statistics.median(other), "unit": unit}
    return row | {"more_is_better": more, "target": target}


def run_script(*arguments: str, device: str = "cpu", check: bool = True) -> tuple[float, str]:
    """Wall seconds of the whole process `python <arguments>` in the project's folder, and what it wrote to stdout."""
    env = dict(os.environ) if device == "cuda" else {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if check and done.returncode:
        raise RuntimeError(f"{arguments}: status {done.returncode}\n{done.stderr}")
    return seconds, done.stdout


def parts(run_dir: str, *overrides: str) -> tuple[Any, Any, Any]:
    """Trainer, module and data module as train.py makes them: default config, callbacks and logger, and overrides."""
    # Here, so that a script which imports this file times its own imports.
    import lightning
    from hydra import compose, initialize_config_dir

    from runlab.tracking.loggers import build_loggers
    from runlab.training.build import build_task, build_trainer
    from runlab.training.progress import filter_warnings

    filter_warnings()
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = compose("train", [f"run_dir={run_dir}", f"data.root={ROOT}/data", *overrides])
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    data, model = build_task(cfg)
    return build_trainer(cfg, build_loggers(cfg, {})), model, data


def replace_between(page: Path, name: str, text: str) -> None:
    """Put `text` between `<!-- name -->` and `<!-- /name -->`; `ValueError` where the page lacks these markers."""
    opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    content = page.read_text()
    before, found, rest = content.partition(opening)
    _, ended, after = rest.partition(closing)
    if not (found and ended):
        raise ValueError(f"{page}: lacks {opening.strip()} ... {closing}")
    page.write_text(f"{before}{opening}{text}\n{closing}{after}")
