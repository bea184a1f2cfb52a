"""Section e: time and memory as the data grow.

As a script, `python benchmarks/growth.py <count>` trains two epochs on `count` images and prints what they took.
"""

import io
import json
import re
import resource
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lightning import Callback
from measure import Row, compared, parts, repeating, run_script

N = 5
COUNTS = (60_000, 240_000, 960_000)


class SecondEpoch(Callback):
    """Seconds of the second epoch, from its start to its last training batch: its validation is no growth."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.start = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:  # noqa: ARG002
        self.seconds = time.perf_counter() - self.start


def train(count: int) -> dict[str, float]:
    """Microseconds a training image in the second epoch, and the process's peak memory in bytes."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        overrides = ["trainer.max_epochs=2", "trainer.accelerator=cpu", *repeating(count)]
        trainer, model, data = parts(folder, *overrides)
        clock = SecondEpoch()
        trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        trainer.fit(model, data)
    return {"microseconds": 1e6 * clock.seconds / len(data.train_set), "peak": peak()}


def peak() -> int:
    """The process's greatest resident set, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins with that of the process that started this one
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def rows(device: str) -> list[Row]:  # noqa: ARG001
    times: dict[int, list[float]] = {count: [] for count in COUNTS}
    peaks: dict[int, list[float]] = {count: [] for count in COUNTS}
    for _ in range(N):
        for count in COUNTS:
            measured = json.loads(run_script("benchmarks/growth.py", str(count))[1])
            times[count].append(measured["microseconds"])
            peaks[count].append(measured["peak"])
    few, *_, many = COUNTS
    result = [
        compared(f"epoch of {count:,} images: time an image against {few:,}", times[count], times[few], "µs", 1.15)
        for count in COUNTS[1:]
    ]
    slopes = [(most - least) / (many - few) for least, most in zip(peaks[few], peaks[many], strict=True)]
    assert min(slopes) > 700, f"{slopes}: an image has 784 pixels, this is no measurement"
    what = "peak memory: bytes that one more image costs against its 784 pixels"
    return [*result, compared(what, slopes, [784.0] * N, "bytes", 1.1)]


if __name__ == "__main__":
    print(json.dumps(train(int(sys.argv[1]))))
