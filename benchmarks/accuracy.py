"""Test accuracy over seeds: trains each setting with each seed, writes accuracy.json, README's rows and picture.

`make accuracy`: about four minutes on two cores.
"""

import json
import platform
import shutil
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path

from hydra import compose, initialize_config_dir
from measure import ROOT, replace_between

from train import train

SETTINGS = {  # what is typed after `python train.py` -> what it is
    "": "linear, 5 epochs of batch 256",
    "experiment=notebook": "linear, the notebook's setting",
    "model=mlp": "two hidden layers of 256",
    "model=lenet": "LeNet-5",
}
SEEDS = range(5)


def measure(arguments: str, seed: int) -> tuple[int, float]:
    """Right answers among the 10,000 test images, and the seconds that the run took."""
    with tempfile.TemporaryDirectory() as run_dir, initialize_config_dir(str(ROOT / "conf"), version_base=None):
        metrics = train(compose("train", [*arguments.split(), f"seed={seed}", f"run_dir={run_dir}"]))
        if not arguments and seed == 0:
            shutil.copy(Path(run_dir) / "confusion_matrix.png", ROOT / "docs")
    return round(metrics["test/acc"] * 10_000), metrics["seconds"]


def rows(results: dict[str, dict[str, object]]) -> str:
    """README's table."""
    lines = ["| command | network | test accuracy, n = 5 seeds | seconds |", "|---|---|---|---|"]
    for arguments, result in results.items():
        lines.append(
            f"| `python train.py{' ' * bool(arguments)}{arguments}` | {result['what']} "
            f"| {result['mean']:.2f} % ± {result['std']:.2f} | {result['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    results: dict[str, dict[str, object]] = {}
    for arguments, what in SETTINGS.items():
        correct, seconds = zip(*(measure(arguments, seed) for seed in SEEDS), strict=True)
        percent = [count / 100 for count in correct]
        results[arguments] = {
            "what": what,
            "correct": correct,
            "mean": round(statistics.mean(percent), 3),
            "std": round(statistics.stdev(percent), 3),
            "seconds": round(statistics.median(seconds), 1),
        }
    about = {"machine": f"{platform.machine()}, 2 cores", "torch": version("torch"), "lightning": version("lightning")}
    lines = ",\n".join(f"{json.dumps(arguments)}: {json.dumps(result)}" for arguments, result in results.items())
    content = f'{{"about": {json.dumps(about)}, "results": {{\n{lines}\n}}}}\n'
    (ROOT / "benchmarks/accuracy.json").write_text(content)
    replace_between(ROOT / "README.md", "accuracy", rows(results))


if __name__ == "__main__":
    main()
