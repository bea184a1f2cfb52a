"""Section f: what the default run spends its time on, as shares of the whole process."""

import json
import tempfile
import time

from measure import Row, compared, run_script
from whole import seconds

N = 5
# What the dashboard has besides loss, accuracy and confusion matrix.
EXTRAS = [f"~callbacks.{name}" for name in ("learning_rate", "weights", "train_batch", "mistakes", "pr_curves")]


def measured(device: str) -> dict[str, float]:
    """Seconds of the parts of one run, and of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        _, output = run_script("benchmarks/timed_run.py", f"hydra.run.dir={folder}/run", device=device)
        end = time.time()
    found = json.loads(output.splitlines()[-1])
    parts: dict[str, float] = found["seconds"]
    parts["imports"] = found["imported"] - start
    parts["closing"] = end - found["ended"] - found["counted"]
    return parts | {"whole": end - start}


def rows(device: str) -> list[Row]:
    pairs = [(seconds("train.py", device), seconds("train.py", device, *EXTRAS)) for _ in range(N)]
    ours, other = map(list, zip(*pairs, strict=True))
    extras = compared("whole process: against one without the dashboard's extras", ours, other, "s", 1.1)
    runs = [measured(device) for _ in range(N)]
    whole = [run["whole"] for run in runs]
    around = ("validation", "figures", "checkpoints", "closing")
    shares: dict[str, tuple[str, ...]] = {"validation, figures, checkpoints and closing together": around}
    shares |= {name: (name,) for name in (*around, "imports", "training steps")}
    return [
        extras,
        *(
            compared(
                f"share of the whole process: {name}",
                [sum(run[part] for part in parts) for run in runs],
                whole,
                "s",
                0.25 if len(parts) > 1 else None,
            )
            for name, parts in shares.items()
        ),
    ]
