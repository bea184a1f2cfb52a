"""`python benchmarks/first_step.py <script> [arguments]` runs a script until its first optimizer step is done."""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch


def main(script: str) -> None:
    step = torch.optim.SGD.step

    def stepped(self: torch.optim.SGD, *args: Any, **kwargs: Any) -> None:
        step(self, *args, **kwargs)
        os._exit(0)  # at once: what Python does at its end is no part of the start

    torch.optim.SGD.step = stepped  # type: ignore[method-assign]
    sys.argv, sys.path[0] = sys.argv[1:], str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")
    raise RuntimeError(f"{script}: took no optimizer step")


if __name__ == "__main__":
    main(sys.argv[1])
