"""Section e: time and memory as the data grow.

As a script, `python benchmarks/growth.py <count>` trains two epochs on `count` images and prints what they took.
"""

import io
import json
import re
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lightning import Callback
from measure import Row, compared, parts, run_script
from mnist import repeating

N = 5
COUNTS = (60_000, 240_000, 960_000)


class SecondEpoch(Callback):
    """Seconds of the second epoch, from its start to its last training batch: its validation is no growth."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.start = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:  # noqa: ARG002
        self.seconds = time.perf_counter() - self.start


def train(count: int) -> dict[str, float]:
    """Microseconds a training image in the second epoch, and the process's greatest resident set in bytes."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        overrides = ["trainer.max_epochs=2", "trainer.accelerator=cpu", *repeating(count)]
        trainer, model, data = parts(folder, *overrides)
        clock = SecondEpoch()
        trainer.callbacks.append(clock)
        trainer.fit(model, data)
    # Not ru_maxrss, which on Linux begins with that of the process that started this one.
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])
    return {"microseconds": 1e6 * clock.seconds / len(data.train_set), "peak": 1024 * peak}


def rows(device: str) -> list[Row]:  # noqa: ARG001
    runs = [[json.loads(run_script("benchmarks/growth.py", str(count))[1]) for count in COUNTS] for _ in range(N)]
    few, *more = COUNTS
    times = list(zip(*([run["microseconds"] for run in row] for row in runs), strict=True))
    result = [
        compared(f"epoch of {count:,} images: time an image against {few:,}", [[*spent], [*times[0]]], "µs", 1.15)
        for count, spent in zip(more, times[1:], strict=True)
    ]
    slopes = [(row[-1]["peak"] - row[0]["peak"]) / (more[-1] - few) for row in runs]
    assert min(slopes) > 700, f"{slopes}: an image has 784 pixels, this is no measurement"
    what = "peak memory: bytes that one more image costs against its 784 pixels"
    return [*result, compared(what, [slopes, [784.0] * N], "bytes", 1.1)]


if __name__ == "__main__":
    print(json.dumps(train(int(sys.argv[1]))))
