"""What the sections of bench.py share: a row of the table, the project's parts, processes and their times."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra import compose, initialize_config_dir
from lightning import Trainer
from torch import Tensor
from torchvision import datasets, transforms

from runlab.tracking.loggers import build_loggers
from runlab.training.build import build_task, build_trainer
from runlab.training.progress import filter_warnings

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


def compared(
    what: str, ours: list[float], other: list[float], unit: str, target: float | None = None, more: bool = False
) -> Row:
    """A row: the ratios of values measured side by side, ours[i] and then other[i], in `unit`.

    The ratio is ours / other, and less is better. With `more` it says how many times faster ours is: more is better.
    """
    turned = more and not unit.endswith("/s")  # of times, the smaller is the faster
    ratios = [b / a if turned else a / b for a, b in zip(ours, other, strict=True)]
    ratio = statistics.median(ratios)
    return {
        "what": what,
        "ratio": ratio,
        "smallest": min(ratios),
        "largest": max(ratios),
        "n": len(ratios),
        "ours": statistics.median(ours),
        "other": statistics.median(other),
        "unit": unit,
        "more_is_better": more,
        "target": target,
        "met": None if target is None else (ratio >= target if more else ratio <= target),
    }


def run_script(*arguments: str, device: str = "cpu", check: bool = True) -> tuple[float, str]:
    """Wall seconds of the whole process `python <arguments>` in the project's folder, and what it wrote to stdout."""
    env = dict(os.environ) if device == "cuda" else {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if check and done.returncode:
        raise RuntimeError(f"{arguments}: status {done.returncode}\n{done.stderr}")
    return seconds, done.stdout


def parts(run_dir: str, *overrides: str) -> tuple[Trainer, Any, Any]:
    """Trainer, module and data module as train.py makes them: default config, callbacks and logger, and overrides."""
    filter_warnings()
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = compose("train", [f"run_dir={run_dir}", f"data.root={ROOT}/data", *overrides])
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    data, model = build_task(cfg)
    return build_trainer(cfg, build_loggers(cfg, {})), model, data


def pil_mnist() -> datasets.MNIST:
    """The notebook's training set: each image through PIL, `ToTensor` and `Normalize` when it is asked for."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    return datasets.MNIST(ROOT / "data", train=True, transform=transform, download=True)


def repeated(count: int) -> tuple[Tensor, Tensor]:
    """The training images again and again, `(count, 28, 28)` uint8, and their labels `(count,)` int64."""
    mnist = datasets.MNIST(ROOT / "data", train=True, download=True)
    images, labels = torch.empty(count, 28, 28, dtype=torch.uint8), torch.empty(count, dtype=torch.int64)
    # Slice by slice: torch.cat of a list would do, but this has no transient, which growth.py would count.
    for start in range(0, count, len(mnist.data)):
        part = slice(start, start + len(mnist.data))
        images[part], labels[part] = mnist.data[: count - start], mnist.targets[: count - start]
    return images, labels


class Repeated:
    """A dataset of MNIST's format with `count` training images, for `data.dataset`."""

    resources: tuple[tuple[str, str], ...] = ()  # no archives of its own to verify
    classes = datasets.MNIST.classes

    def __init__(self, root: str, train: bool, count: int) -> None:  # noqa: ARG002
        assert train, "it has no test set"
        self.data, self.targets = repeated(count)


def repeating(count: int) -> list[str]:
    """The overrides for `count` training images."""
    return ["data.dataset._target_=measure.Repeated", f"+data.dataset.count={count}"]
