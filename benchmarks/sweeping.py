"""Section h: eight jobs as eight processes, as one multirun, and as one by the parallel launcher."""

import json
import tempfile
from pathlib import Path

from measure import Row, alternated, compared, run_script

JOBS = 8
SHORT = ["trainer.max_epochs=1"]
NOTEBOOK = ["experiment=notebook", "trainer.max_epochs=2"]  # 7,500 steps of batch 16
PARALLEL = "hydra/launcher=local"


def processes(*overrides: str) -> float:
    """Seconds of the jobs as single runs, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [["train.py", f"seed={seed}", *overrides, f"hydra.run.dir={folder}/{seed}"] for seed in range(JOBS)]
        return sum(run_script(*run)[0] for run in runs)


def multirun(*overrides: str) -> float:
    """Seconds of the same jobs as one command, all of which must have finished."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["train.py", "-m", f"seed=range({JOBS})", *overrides, f"hydra.sweep.dir={folder}"]
        seconds, _ = run_script(*command)
        steps = [json.loads(path.read_text())["global_step"] for path in Path(folder).glob("*/metrics.json")]
    assert len(steps) == JOBS, steps
    return seconds


def rows(device: str) -> list[Row]:  # noqa: ARG001
    single, parallel, eight = alternated(
        5, lambda: multirun(*SHORT), lambda: multirun(*SHORT, PARALLEL), lambda: processes(*SHORT)
    )
    long = alternated(3, lambda: multirun(*NOTEBOOK, PARALLEL), lambda: multirun(*NOTEBOOK))
    what, faster = f"{JOBS} jobs of one epoch", "the parallel launcher times faster than one multirun"
    return [
        compared(f"{what}: one multirun against {JOBS} processes", [single, eight], "s", 0.33),
        compared(f"{what}: the parallel launcher against {JOBS} processes", [parallel, eight], "s"),
        compared(f"{what}: {faster}", [parallel, single], "s", more=True),
        compared(f"{JOBS} jobs of the notebook's, two epochs: {faster}", long, "s", 1.6, more=True),
    ]
