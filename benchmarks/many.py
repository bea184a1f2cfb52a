"""Section h: the table of results and TensorBoard over many runs."""

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

RUNS = 10_000
DEFAULT_RUNS = 1_000  # as the default logger leaves them, with pictures
SECONDS, N = 10.0, 5  # what the table may take; how often it is measured
CONFIGS = 50  # that are composed for each measurement
PATIENCE = 600  # seconds after which TensorBoard is given up


def populate(folder: Path) -> float:
    """Make run folders as sweeps leave them, without checkpoints; the MB on disk that a single run's folder takes."""
    run_script("train.py", f"hydra.run.dir={folder}/single")
    run_script("train.py", "-m", "seed=0", "trainer=debug", f"hydra.sweep.dir={folder}/real")
    [small] = (folder / "real").glob("*seed=0*")
    config, metrics = (small / ".hydra/config.yaml").read_text(), json.loads((small / "metrics.json").read_text())
    for number in range(RUNS):
        run = folder / f"sweep/optimizer.lr={number // 5},seed={number % 5}"
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra/config.yaml").write_text(config)
        (run / ".hydra/overrides.yaml").write_text(f"- optimizer.lr={number // 5}\n- seed={number % 5}\n")
        (run / "metrics.json").write_text(json.dumps(metrics | {"val/acc": number * 37 % RUNS / RUNS}))
    shutil.copy(folder / "real/multirun.yaml", folder / "sweep")
    for number in range(DEFAULT_RUNS):
        (folder / f"default/seed={number}").mkdir(parents=True)
        for events in (folder / "single").glob("events.*"):
            (folder / f"default/seed={number}" / events.name).hardlink_to(events)
    return sum(path.stat().st_size for path in (folder / "single").rglob("*") if path.is_file()) / 1e6


def table(folder: Path) -> float:
    """Seconds of the command that prints the results."""
    seconds, output = run_script("-m", "runlab.results", str(folder))
    assert f"... and {RUNS - 20:,} more" in output, output
    return seconds


def dashboard(folder: Path, runs: int) -> tuple[float, float]:
    """Seconds from TensorBoard's start until it shows every run's curves, and the GB of memory that it then holds."""
    command = ["make", "tensorboard", f"ARGS=--logdir {folder} --host 127.0.0.1 --port 0"]
    start, loaded, address = time.perf_counter(), 0, None
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            while loaded < runs:
                time.sleep(0.5)
                if process.poll() is not None or time.perf_counter() - start > PATIENCE:
                    raise RuntimeError(f"{loaded} of {runs} runs shown: {Path(log.name).read_text()}")
                address = address or re.search(r"http://127\.0\.0\.1:\d+/", Path(log.name).read_text())
                if address:
                    with urllib.request.urlopen(f"{address[0]}data/plugin/scalars/tags", timeout=PATIENCE) as answer:
                        loaded = sum("test/acc" in tags for tags in json.load(answer).values())
            seconds = time.perf_counter() - start
            listed = subprocess.run(["ps", "-eo", "pgid=,rss="], capture_output=True, text=True, check=True).stdout
            memory = [int(rss) for group, rss in map(str.split, listed.splitlines()) if int(group) == process.pid]
            return seconds, 1024e-9 * sum(memory)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


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
        size = populate(Path(name))
        seconds = [table(Path(name) / "sweep") for _ in range(N)]
        composed = [composing() for _ in range(N)]
        until, memory = dashboard(Path(name) / "default", DEFAULT_RUNS)
    shown = f"TensorBoard over {DEFAULT_RUNS:,} default runs, with pictures"
    return [
        compared(f"table of {RUNS:,} runs: seconds against {SECONDS:.0f}", [seconds, [SECONDS] * N], "s", 1.0),
        compared("composing a sweep's job: seconds against 1", [composed, [1.0] * N], "s"),
        compared("run folder of `python train.py`: MB against 1", [[size], [1.0]], "MB"),
        compared(f"{shown}: seconds until all are shown, against 60", [[until], [60.0]], "s"),
        compared(f"{shown}: GB of memory against 1", [[memory], [1.0]], "GB"),
    ]
