"""Kill runs with SIGKILL at random moments, resume them, and compare with runs that nobody killed: `make soak`.

The example and the five foreign tasks in tests/tasks/, 100 kills in all; `make soak ARGS=30` for 30. About ten minutes
on two cores, two tasks at a time. The exit status is 0 where every run can be resumed and comes out equal, bit for bit.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reproduce import differences

KILLS = 100
EARLY = 0.2  # the share of the kills that come before a process trains
IN_A_ROW = 6  # kills of one run; then it may finish
TASKS = {  # each trains for some seconds, beside the imports
    "example": ["model=mlp", "trainer.max_epochs=4", "optimizer.lr=0.01"],
    "autoencoder": ["task=autoencoder", "data=autoencoder", "monitor=val_loss", "mode=min", "trainer.max_epochs=40"],
    "characters": ["task=characters", "data=characters", "monitor=null", "trainer.max_epochs=20"],
    "colour": ["task=colour", "data=colour", "monitor=val/loss", "mode=min", "trainer.max_epochs=20"],
    "gan": ["task=gan", "data=gan", "monitor=val_distance", "mode=min", "trainer.max_epochs=30"],
    "regression": ["task=regression", "data=regression", "monitor=val_loss", "mode=min", "trainer.max_epochs=60"],
}
PATHS = os.pathsep.join(["src", "tests", os.environ.get("PYTHONPATH", "")])
ENV = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}


def start(task: str, run_dir: Path) -> "subprocess.Popen[str]":
    """A process that begins the run in this folder, or resumes it."""
    options = [f"hydra.run.dir={run_dir}", "resume=auto", "--config-dir=tests/tasks/conf"]
    command = [sys.executable, "train.py", *TASKS[task], *options]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def until_recorded(process: "subprocess.Popen[str]", run_dir: Path) -> float:
    """Wait until a run has written its record, before it trains; the seconds that it took."""
    path, begun, clock = run_dir / "provenance.json", time.time(), time.perf_counter()
    while process.poll() is None and not (path.exists() and path.stat().st_mtime >= begun):
        time.sleep(0.01)
    return time.perf_counter() - clock


def finish(process: "subprocess.Popen[str]") -> None:
    """Wait for the end of a run; `RuntimeError` with what it says where it fails."""
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(said)


def soak(task: str, kills: int) -> str:
    """Kill runs of a task so many times, and say how they came out; `RuntimeError` where one is not equal."""
    rng, killed, runs, moments = random.Random(task), 0, 0, {"before": 0, "training": 0, "later": 0}
    with tempfile.TemporaryDirectory() as folder:
        straight = Path(folder) / "straight"
        process = start(task, straight)
        waited = until_recorded(process, straight)
        begun = time.perf_counter()
        finish(process)
        trained = time.perf_counter() - begun
        while killed < kills:
            run_dir = Path(folder) / f"run{runs}"
            runs += 1
            for _ in range(min(IN_A_ROW, kills - killed)):
                process = start(task, run_dir)
                early = rng.random() < EARLY
                if not early:
                    until_recorded(process, run_dir)
                try:
                    process.communicate(timeout=rng.random() * (waited if early else trained))
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    killed += 1
                    has = [(run_dir / name).exists() for name in ("provenance.json", "metrics.json")]
                    moments[("before", "training", "later")[sum(has)]] += 1
            finish(start(task, run_dir))
            if found := differences(straight, run_dir):
                raise RuntimeError(f"{task}: not equal after {killed} kills: {', '.join(found)}")
            print(f"{task}: {killed} of {kills} kills so far, run {runs} is equal", flush=True)
    where = "{before} before the record was written, {training} from then on, {later} after metrics.json"
    return f"{task}: {killed} kills ({where.format(**moments)}) in {runs} runs, all equal"


def main(kills: int) -> int:
    shares = {task: (kills + place) // len(TASKS) for place, task in enumerate(TASKS)}
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(soak, task, share) for task, share in shares.items()]
    failures = [str(error) for job in jobs if (error := job.exception())]
    print(*[job.result() for job in jobs if not job.exception()], sep="\n")
    if failures:
        print(*failures, sep="\n", file=sys.stderr)
    else:
        print(f"{kills} kills of {len(TASKS)} tasks: every run equals the uninterrupted one, bit for bit")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS))
