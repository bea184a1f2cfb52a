"""What each process of a run has for itself, in the one checkpoint that they share."""

from typing import Any

import lightning as L
import torch


def of_each_process(trainer: L.Trainer, mine: Any) -> list[Any]:
    """Return `mine` of every process, in the order of their ranks. All of them have to call it."""
    if trainer.world_size == 1:
        return [mine]
    every = [None] * trainer.world_size
    torch.distributed.all_gather_object(every, mine)
    return every


def of_this_process(trainer: L.Trainer, every: list[Any], what: str) -> Any:
    """Return this process's share of what `of_each_process` gave; `ValueError` if their number is another now."""
    if len(every) != trainer.world_size:
        raise ValueError(
            f"the checkpoint holds the {what} of {len(every)} process(es), this run has {trainer.world_size}:"
            " resume it with as many"
        )
    return every[trainer.global_rank]
