"""Train a run again from its record, and say whether it comes out equal: `make reproduce RUN=<run folder>`.

The exit status is 0 where metrics, confusion matrix and weights are equal, bit for bit, and 1 where they are not.
"""

import json
import sys
from datetime import datetime
from pathlib import Path

import torch

from runlab.config.messages import UserError, listed, report_errors
from runlab.runs import checkpoints
from runlab.runs.code import changed_files
from runlab.runs.record import read_record
from train import train


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two finished runs: metrics but for the time, test counts, the checkpoints' weights."""
    one, two = (json.loads((run / "metrics.json").read_text()) for run in (first, second))
    found = [f"{key}: {one.get(key)} / {two.get(key)}" for key in one | two if one.get(key) != two.get(key)]
    found = [line for line in found if not line.startswith("seconds: ")]
    for path in sorted(first.glob("*.csv")):  # as the counts of a test set
        if path.read_bytes() != (second / path.name).read_bytes():
            found.append(path.name)
    for name in ("best", "last"):
        a, b = (checkpoints.load(run / f"checkpoints/{name}.ckpt")["state_dict"] for run in (first, second))
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            found.append(f"weights of {name}.ckpt")
    return found


def main(run: Path) -> int:
    if not (run / "metrics.json").exists():
        raise UserError(f"RUN={run}: no finished run, as in make reproduce RUN=runs/default/...")
    cfg = read_record(run)
    if not cfg.fit:
        raise UserError(f"RUN={run}: an evaluation, nothing was trained there; name the run that it evaluated")
    cfg.run_dir = str(Path("runs/reproduce") / datetime.now().strftime("%Y%m%d-%H%M%S-%f"))
    if changed := changed_files(run):
        print(f"the code is another than the run's: {listed(changed, 5)} changed since", file=sys.stderr)
    provenance = json.loads((run / "provenance.json").read_text())
    torch.set_num_threads(provenance["threads"])  # another number gives other last bits
    train(cfg)
    found = differences(run, Path(cfg.run_dir))
    if not found:
        print("equal: metrics, confusion matrix and weights, bit for bit")
        return 0
    print("not equal (recorded / now):", *found, sep="\n  ")
    now = json.loads((Path(cfg.run_dir) / "provenance.json").read_text())
    for key in provenance.keys() - {"command"}:
        if provenance[key] != now.get(key):
            print(f"what else differs: {key}: {provenance[key]} / {now.get(key)}")
    return 1


if __name__ == "__main__":
    with report_errors():
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "")))
