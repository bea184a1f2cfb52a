"""Section i: the table of results and TensorBoard over 10,000 runs."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from measure import ROOT, Row, compared, run_script
from torch.utils.tensorboard import SummaryWriter

RUNS = 10_000
DEFAULT_RUNS = 1_000  # as the default logger leaves them, with pictures
SECONDS, N = 10.0, 5  # what the table may take; how often it is measured
CONFIGS = 50  # that are composed for each measurement
PATIENCE = 600  # seconds after which TensorBoard is given up
SCALARS = {"train/loss": 20, "val/loss": 5, "val/acc": 5, "test/acc": 1}  # points of each run


def populate(folder: Path) -> None:
    """Make run folders as a sweep leaves them, with all that a table reads and with curves, without checkpoints."""
    real = folder / "real"
    run_script("train.py", "-m", "seed=0", "trainer=debug", "logger=none", f"hydra.sweep.dir={real}")
    [run_dir] = real.glob("*seed=0*")
    config, metrics = (run_dir / ".hydra/config.yaml").read_text(), json.loads((run_dir / "metrics.json").read_text())
    with SummaryWriter(folder / "curves") as writer:
        for name, count in SCALARS.items():
            for step in range(count):
                writer.add_scalar(name, 1 / (step + 1), step)
    [events] = (folder / "curves").iterdir()
    for number in range(RUNS):
        run = folder / f"sweep/optimizer.lr={number // 5},seed={number % 5}"
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra/config.yaml").write_text(config)
        (run / ".hydra/overrides.yaml").write_text(f"- optimizer.lr={number // 5}\n- seed={number % 5}\n")
        (run / "metrics.json").write_text(json.dumps(metrics | {"val/acc": number * 37 % RUNS / RUNS}))
        shutil.copy(events, run)
    shutil.copy(real / "multirun.yaml", folder / "sweep")


def default_runs(folder: Path) -> float:
    """Make folders with the event files of `python train.py`; the MB on disk that one run's folder takes."""
    run_script("train.py", f"hydra.run.dir={folder}/single")
    for number in range(DEFAULT_RUNS):
        (folder / f"default/seed={number}").mkdir(parents=True)
        for events in (folder / "single").glob("events.*"):
            (folder / f"default/seed={number}" / events.name).hardlink_to(events)
    return sum(path.stat().st_size for path in (folder / "single").rglob("*") if path.is_file()) / 1e6


def table(folder: Path) -> float:
    """Seconds of the command that prints the results."""
    seconds, output = run_script("-m", "runlab.runs.record", str(folder))
    assert f"... and {RUNS - 20:,} more" in output, output
    return seconds


def dashboard(folder: Path, runs: int) -> tuple[float, float]:
    """Seconds from TensorBoard's start until it shows every run's curves, and the bytes that it then holds."""
    command = ["make", "tensorboard", f"ARGS=--logdir {folder} --host 127.0.0.1 --port 0"]
    start = time.perf_counter()
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            loaded, address = 0, None
            while loaded < runs:
                time.sleep(0.5)
                if time.perf_counter() - start > PATIENCE:
                    raise TimeoutError(f"{loaded} of {runs} runs after {PATIENCE} s")
                address = address or re.search(r"http://127\.0\.0\.1:\d+/", (folder / "log").read_text())
                if address:
                    with urllib.request.urlopen(f"{address[0]}data/plugin/scalars/tags", timeout=PATIENCE) as answer:
                        loaded = sum("test/acc" in tags for tags in json.load(answer).values())
            return time.perf_counter() - start, resident(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def resident(group: int) -> float:
    """Bytes of memory that the processes of a process group hold."""
    listed = subprocess.run(["ps", "-eo", "pgid=,rss="], capture_output=True, text=True, check=True).stdout
    return sum(1024.0 * int(rss) for pgid, rss in map(str.split, listed.splitlines()) if int(pgid) == group)


def composing() -> float:
    """Seconds in which Hydra composes the config of one of a sweep's jobs."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        loader = GlobalHydra.instance().config_loader()
        cfg = loader.load_configuration("train", [], RunMode.MULTIRUN)
        start = time.perf_counter()
        for seed in range(CONFIGS):
            loader.load_sweep_config(cfg, [f"seed={seed}"])
        return (time.perf_counter() - start) / CONFIGS


def rows(device: str) -> list[Row]:  # noqa: ARG001
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        populate(folder)
        seconds = [table(folder / "sweep") for _ in range(N)]
        composed = [composing() for _ in range(N)]
        shown = {f"{RUNS:,} runs": dashboard(folder / "sweep", RUNS)}
        size = default_runs(folder)
        shown[f"{DEFAULT_RUNS:,} default runs, with pictures"] = dashboard(folder / "default", DEFAULT_RUNS)
    result = [
        compared(f"table of {RUNS:,} runs: seconds against {SECONDS:.0f}", seconds, [SECONDS] * N, "s", 1.0),
        compared("composing the config of one job of a sweep: seconds against 1", composed, [1.0] * N, "s"),
        compared("run folder of `python train.py`: MB against 1", [size], [1.0], "MB"),
    ]
    for runs, (until, memory) in shown.items():
        result.append(
            compared(f"TensorBoard over {runs}: seconds until all are shown, against 60", [until], [60.0], "s")
        )
        result.append(compared(f"TensorBoard over {runs}: GB of memory against 1", [memory / 1e9], [1.0], "GB"))
    return result
