"""`python benchmarks/timed_run.py [overrides]` runs train.py with timers, and prints them as JSON."""

import json
import runpy
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from runlab.config.startup import fast_imports

ROOT = Path(__file__).parents[1]


class Timers:
    """Seconds inside named calls, each without the named calls that it made itself."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.ended = 0.0  # when the last epoch did (time.time)
        self.at_end: dict[str, float] = {}  # the seconds by then
        self._inside: list[float] = []

    def around(self, owner: Any, method: str, name: str) -> None:
        call = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            self._inside.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                spent = time.perf_counter() - start
                self.seconds[name] += spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent
                if name == "epoch end":
                    self.ended, self.at_end = time.time(), dict(self.seconds)

        setattr(owner, method, timed)


def main() -> None:
    # Here, so that what Python needs to begin is part of what is measured too, and as train.py does it.
    with fast_imports():
        from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
        from lightning.pytorch.loops.fit_loop import _FitLoop
        from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

        from digits import callbacks
        from runlab.data.outputs import Predictions
        from runlab.runs.checkpoints import AtomicCheckpointIO

    imported, timers = time.time(), Timers()
    timers.around(_TrainingEpochLoop, "run", "training steps")
    timers.around(_EvaluationLoop, "run", "validation")
    timers.around(callbacks.ConfusionMatrix, "_draw", "figures")
    timers.around(callbacks.Weights, "on_train_epoch_end", "figures")
    timers.around(callbacks.TrainBatch, "on_train_batch_start", "figures")
    timers.around(Predictions, "on_test_end", "figures")
    timers.around(AtomicCheckpointIO, "save_checkpoint", "checkpoints")
    timers.around(_FitLoop, "on_advance_end", "epoch end")
    sys.argv[0], sys.path[0] = "train.py", str(ROOT)
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    timers.seconds["validation"] = timers.at_end["validation"]  # the test is an evaluation too, but part of closing
    counted = sum(timers.seconds[name] - timers.at_end.get(name, 0.0) for name in ("figures", "checkpoints"))
    print(json.dumps({"imported": imported, "ended": timers.ended, "counted": counted, "seconds": timers.seconds}))


if __name__ == "__main__":
    main()
