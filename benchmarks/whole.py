"""Section a: wall time of the whole process, from the command to the prompt."""

import re
import tempfile

from measure import Row, alternated, compared, run_script

LEAST = 9180  # right answers of 10,000: a script that learns less is no comparison


def seconds(script: str, device: str, *overrides: str) -> float:
    """Wall seconds of one run of `script`, with overrides if it is train.py, which must have learned what it should."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"hydra.run.dir={folder}/run", *overrides] if script == "train.py" else []
        spent, output = run_script(script, *arguments, device=device)
    right = int(re.findall(r"(\d+)/10000", output)[-1])
    assert right >= LEAST, f"{script}: {right} of 10,000"
    return spent


def rows(device: str) -> list[Row]:
    def beside(other: str, n: int) -> list[list[float]]:
        return alternated(n, lambda: seconds("train.py", device), lambda: seconds(f"benchmarks/{other}", device))

    what = "whole process: `python train.py`"
    return [
        compared(f"{what} times faster than notebook.py", beside("notebook.py", 3), "s", 10.0, more=True),
        compared(f"{what} against plain.py", beside("plain.py", 7), "s", 1.15),
    ]
