"""Section d: how soon the command line answers, and how soon training begins."""

import tempfile

from measure import Row, compared, run_script

N = 15
COMMANDS = {"`--help`": ["--help"], "`--cfg job`": ["--cfg", "job"], "a misspelt key": ["optimzer.lr=1"]}


def first_step(script: str, device: str) -> float:
    """Seconds from the start of the process until `script` has done its first optimizer step."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"hydra.run.dir={folder}/run"] if script == "train.py" else []
        return run_script("benchmarks/first_step.py", script, *arguments, device=device)[0]


def rows(device: str) -> list[Row]:
    result = []
    for name, arguments in COMMANDS.items():
        pairs = [
            (run_script("train.py", *arguments, check=False)[0], run_script("-c", "import hydra")[0]) for _ in range(N)
        ]
        ours, other = map(list, zip(*pairs, strict=True))
        result.append(compared(f"answer to {name}: against `import hydra`", ours, other, "s", 3.0))
    pairs = [(first_step("train.py", device), first_step("benchmarks/plain.py", device)) for _ in range(N)]
    ours, other = map(list, zip(*pairs, strict=True))
    return [*result, compared("first optimizer step done: against plain.py", ours, other, "s")]
