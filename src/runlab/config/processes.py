"""What this process is: a rank of a run on several devices, a job of a sweep."""

import os
import signal

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

POSIX = hasattr(signal, "SIGUSR1")  # Linux and macOS, not Windows
SIGKILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows ends a process at once by either


def rank_zero() -> bool:
    """Whether this process is the first of a run on several devices, or the only one."""
    return rank() == 0


def rank() -> int:
    """The number of this process, from 0, in a run on several devices."""
    return max(int(os.environ.get(name) or 0) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))


def launched_processes() -> int:
    """How many processes torchrun or srun has started for this run; 1 where it was neither."""
    started = os.environ.get("WORLD_SIZE" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_STEP_NUM_TASKS", 1)
    return int(started)


def in_sweep() -> bool:
    """Whether this process runs a job of a sweep: Hydra numbers those."""
    return HydraConfig.initialized() and not OmegaConf.is_missing(HydraConfig.get().job, "num")
