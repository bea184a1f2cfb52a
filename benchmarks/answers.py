"""Section d: how soon the command line answers, and how soon training begins.

As a script, `python benchmarks/answers.py <script> [arguments]` runs a script until its first optimizer step is done.
"""

import os
import runpy
import sys
import tempfile
from functools import partial
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from measure import Row, alternated, compared, run_script

N = 15
COMMANDS = {"`--help`": (["--help"], 3.0), "`--cfg job`": (["--cfg", "job"], 2.5)}
COMMANDS |= {"a misspelt key": (["optimzer.lr=1"], 2.5)}


class AfterImport(MetaPathFinder):
    """Has `torch.optim.SGD.step` leave the process once it is done; the script itself imports torch, as it does it."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:  # noqa: ARG002
        if name == "torchvision":
            import torch

            sys.meta_path.remove(self)
            step = torch.optim.SGD.step

            def stepped(optimizer: Any, *args: Any, **kwargs: Any) -> None:
                step(optimizer, *args, **kwargs)
                os._exit(0)  # at once: what Python does at its end is no part of the start

            setattr(torch.optim.SGD, "step", stepped)  # noqa: B010


def until_first_step(script: str) -> None:
    sys.meta_path.insert(0, AfterImport())
    sys.argv, sys.path[0] = sys.argv[1:], str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")
    raise RuntimeError(f"{script}: took no optimizer step")


def first_step(script: str, device: str) -> float:
    """Seconds from the start of the process until `script` has done its first optimizer step."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"hydra.run.dir={folder}/run"] if script == "train.py" else []
        return run_script("benchmarks/answers.py", script, *arguments, device=device)[0]


def answer(*arguments: str) -> float:
    return run_script(*arguments, check=False)[0]


def rows(device: str) -> list[Row]:
    result = []
    for name, (arguments, target) in COMMANDS.items():
        sides = alternated(N, partial(answer, "train.py", *arguments), partial(answer, "-c", "import hydra"))
        result.append(compared(f"answer to {name}: against `import hydra`", sides, "s", target))
    scripts = [partial(first_step, script, device) for script in ("train.py", "benchmarks/plain.py")]
    return [*result, compared("first optimizer step done: against plain.py", alternated(N, *scripts), "s", 1.25)]


if __name__ == "__main__":
    until_first_step(sys.argv[1])
