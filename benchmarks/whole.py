"""Section a: wall time of the whole process, from the command to the prompt."""

import re
import tempfile

from measure import Row, compared, run_script

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
    result = []
    for other, n, target, more in (("notebook.py", 3, 10.0, True), ("plain.py", 7, 1.5, False)):
        pairs = [(seconds("train.py", device), seconds(f"benchmarks/{other}", device)) for _ in range(n)]
        ours, others = map(list, zip(*pairs, strict=True))
        how = "times faster than" if more else "against"
        result.append(compared(f"whole process: `python train.py` {how} {other}", ours, others, "s", target, more))
    return result
