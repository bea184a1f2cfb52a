"""Section f: what the default run spends its time on, as shares of the whole process.

As a script, `python benchmarks/shares.py [overrides]` runs train.py with timers and prints the seconds as JSON.
"""

import json
import runpy
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

from measure import ROOT, Row, compared, run_script

N = 7
TARGETS = {"figures": 0.05, "imports": None, "training steps": None, "validation": None, "checkpoints": None}
spent: dict[str, float] = defaultdict(float)  # seconds inside named calls, without the named calls within them
inside = [0.0]  # seconds of named calls within each call that has not returned


def timed(owner: Any, method: str, name: str) -> None:
    call = getattr(owner, method)

    def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        inside.append(0.0)
        try:
            return call(*args, **kwargs)
        finally:
            seconds = time.perf_counter() - start
            spent[name] += seconds - inside.pop()
            inside[-1] += seconds

    setattr(owner, method, measured)


def main() -> None:
    from runlab.config.startup import fast_imports

    with fast_imports():  # as train.py does it
        from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
        from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

        from digits import callbacks
        from runlab.data.outputs import Predictions
        from runlab.runs.checkpoints import AtomicCheckpointIO

    imported = time.time()
    timed(_TrainingEpochLoop, "run", "training steps")
    timed(_EvaluationLoop, "run", "validation")
    timed(callbacks.ConfusionMatrix, "_draw", "figures")
    timed(callbacks.Weights, "on_train_epoch_end", "figures")
    timed(callbacks.TrainBatch, "on_train_batch_start", "figures")
    timed(Predictions, "on_test_end", "figures")
    timed(AtomicCheckpointIO, "save_checkpoint", "checkpoints")
    sys.argv[0], sys.path[0] = "train.py", str(ROOT)
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    print(json.dumps({"imported": imported, **spent}))


def measured(device: str) -> dict[str, float]:
    """Seconds of the parts of one run, and of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        whole, output = run_script("benchmarks/shares.py", f"hydra.run.dir={folder}/run", device=device)
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found | {"imports": found["imported"] - start, "whole": whole}


def rows(device: str) -> list[Row]:
    runs = [measured(device) for _ in range(N)]
    whole = [run["whole"] for run in runs]
    shares = {name: [run[name] for run in runs] for name in TARGETS}
    what = "share of the whole process"
    return [compared(f"{what}: {name}", [shares[name], whole], "s", target) for name, target in TARGETS.items()]


if __name__ == "__main__":
    main()
