"""What the rooms' tests share: composed configs, small archives in MNIST's format, the command line."""

import gzip
import hashlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torchvision import datasets

ROOT = Path(__file__).parents[1]
PATH = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])  # so that a run finds faults.py
SMALL_TRAIN, SMALL_TEST = 300, 100  # samples in the small archives

Compose = Callable[..., DictConfig]
Cli = Callable[..., subprocess.CompletedProcess[str]]

torch.set_num_threads(1)  # the tests run in parallel

# Marker -> the programs that its tests need, none for those that run only if all are wanted, and how to get them.
NEEDED: dict[str, tuple[tuple[str, ...], str]] = {
    "browser": (("chromium", "chromedriver"), "apt-get install chromium chromium-driver fonts-dejavu-core"),
    "editor": (("yaml-language-server",), "apt-get install npm && npm install -g yaml-language-server@1.25.0"),
    "slurm": (("slurmctld", "slurmd", "sbatch", "munged"), "apt-get install slurmctld slurmd slurm-client munge"),
    "slow": ((), "make test-all"),
    "gpu": ((), "make test-gpu, on a machine with a GPU"),
    "registry": ((), "make test-all, which needs the package registry"),
}


def left_out(config: pytest.Config) -> dict[str, str]:
    """The markers whose tests are not run here, each with the way to run them; with --all that is `gpu` alone."""
    marks = {"gpu"} if config.getoption("--all") else {*NEEDED}
    if config.getoption("--gpu"):
        marks.discard("gpu")
    needed = {mark: (programs, way) for mark, (programs, way) in NEEDED.items() if mark in marks}
    return {
        mark: way for mark, (programs, way) in needed.items() if not (programs and all(map(shutil.which, programs)))
    }


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run all tests, also those whose programs are not installed")
    parser.addoption("--gpu", action="store_true", help="let the tests use a GPU, which is hidden from them else")


def pytest_configure(config: pytest.Config) -> None:
    """Hide NVIDIA's GPUs: the same tests, with the same bits, whether there are any or not."""
    if not config.getoption("--gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        raise pytest.UsageError("--gpu: no GPU can be used on this machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose programs are not on this machine, unless all are wanted."""
    unwanted = [item for item in items if any(item.get_closest_marker(mark) for mark in left_out(config))]
    items[:] = [item for item in items if item not in unwanted]
    config.hook.pytest_deselected(items=unwanted)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for mark, way in left_out(config).items():
        terminalreporter.write_line(f"left out: the {mark} tests; to run them: {way}")


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Take back what a run sets in the environment of its process, as DDP its port."""
    with patch.dict(os.environ):
        yield


def install(folder: Path, *what: str) -> None:
    """Install packages from the registry into a folder, to be put in front of what is installed."""
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "-q", "--python", sys.executable]
    subprocess.run([*uv, "--target", str(folder), *what], check=True)


def choices(group: str) -> list[str]:
    """The options that a config group holds."""
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def of_the_example(group: str) -> list[str]:
    """The options of conf/data/ or conf/experiment/ but those for a task of one's own, which go with no other task."""
    texts = {name: (ROOT / f"conf/{group}/{name}.yaml").read_text() for name in choices(group)}
    if group == "data":  # of the example's class, or built upon another
        return [
            name for name, text in texts.items() if re.search(r"^_target_: \w+\.data\.|^defaults:", text, re.MULTILINE)
        ]
    return [name for name, text in texts.items() if "override /task" not in text]


def readme(words: str) -> list[str]:
    """The arguments of the one command in README or docs/ that has these words: what comes after `train.py`."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    lines = [line for page in pages for line in page.read_text().splitlines()]
    commands = [line for line in lines if re.match(r"(python|torchrun|srun) .*train.py .*", line)]
    [command] = [command for command in commands if words in command]
    return shlex.split(command.partition("train.py ")[2], comments=True)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """The network of a run's last checkpoint."""
    checkpoint: Any = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    return dict(checkpoint["state_dict"])


@pytest.fixture
def composed(tmp_path: Path) -> Compose:
    """Compose the config with overrides; the run goes to a temporary folder."""

    def composed(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base=None):
            return compose("train", [f"run_dir={tmp_path}/run", *overrides])

    return composed


def placed(arguments: Sequence[str], folder: Path) -> list[str]:
    """The arguments, and that run folders come into `folder`, unless they need none or name one."""
    if any(argument.startswith(("--help", "--cfg", "hydra.run.dir", "resume=/")) for argument in arguments):
        return [*arguments]
    return [*arguments, f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `python train.py` as a user does, with its run folders under a temporary one; text comes back."""

    def cli(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "train.py", *placed(arguments, tmp_path)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATH, **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return cli


def status_of(*arguments: str) -> int:
    """The exit status of `python train.py`, run in this process, which has imported torch already."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        monkeypatch.setattr("runlab.config.startup.fast_exit", nullcontext)  # this process stays
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        try:
            runpy.run_path("train.py", run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None  # else the next run takes itself for this one's job
    return 0


@pytest.fixture
def quick_cli(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    """As `cli`, in this process: for what does not depend on a process of its own."""

    def quick_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        status = status_of(*placed(arguments, tmp_path))
        return subprocess.CompletedProcess(arguments, status, *capfd.readouterr())

    return quick_cli


@pytest.fixture
def small_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with small FashionMNIST and KMNIST archives, whose MD5s torchvision is told to expect."""
    rng = np.random.default_rng(0)
    for cls in (datasets.FashionMNIST, datasets.KMNIST):
        raw = tmp_path / "data" / cls.__name__ / "raw"
        raw.mkdir(parents=True)
        resources = []
        for prefix, size in (("train", SMALL_TRAIN), ("t10k", SMALL_TEST)):
            labels = np.arange(size, dtype=np.uint8) % 10
            images = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
            for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
                # The IDX format: two zero bytes, 8 for uint8, the number of dimensions, each as a big-endian int32.
                header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
                archive = gzip.compress(header + array.tobytes(), mtime=0)
                (raw / f"{name}.gz").write_bytes(archive)
                resources.append((f"{name}.gz", hashlib.md5(archive).hexdigest()))
        monkeypatch.setattr(cls, "resources", resources)
        monkeypatch.setattr(cls, "mirrors", ["http://127.0.0.1:9/"])  # nothing answers there
    return tmp_path / "data"
