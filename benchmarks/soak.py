"""Kill a training run with SIGKILL at random moments, go on, and compare with the run that nobody killed: `make soak`.

Twenty kills, about seven minutes on two cores. The exit status is 0 where every run comes out equal, bit for bit.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reproduce import differences

KILLS = 20
SETTING = ["model=mlp", "trainer.max_epochs=8", "optimizer.lr=0.01"]


def command(run_dir: Path) -> list[str]:
    return [sys.executable, "train.py", *SETTING, f"hydra.run.dir={run_dir}", "resume=auto"]


def main() -> int:
    rng, kills, runs = random.Random(0), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        straight = Path(folder) / "straight"
        start = time.perf_counter()
        subprocess.run(command(straight), check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - start
        while kills < KILLS:
            run_dir = Path(folder) / f"run{runs}"
            runs += 1
            for _ in range(6):  # moments from the imports to the end; after six kills it may finish
                process = subprocess.Popen(command(run_dir), stdout=subprocess.DEVNULL)
                try:
                    process.wait(timeout=rng.uniform(0.2, 1.0) * whole)
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
            subprocess.run(command(run_dir), check=True, stdout=subprocess.DEVNULL)
            found = differences(straight, run_dir)
            print(f"run {runs}, {kills} kills so far: {found or 'equal'}", flush=True)
            if found:
                return 1
    print(f"{kills} kills in {runs} runs: every run equals the uninterrupted one, bit for bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
