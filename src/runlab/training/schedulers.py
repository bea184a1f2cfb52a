"""How the learning rate falls, optimizer step by optimizer step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def decay(optimizer: Optimizer, total_steps: int, shape: str) -> LambdaLR:
    """Let the learning rate fall to zero over `total_steps` optimizer steps: linear, or cosine (half a cosine)."""
    factor = {"linear": lambda t: 1 - t, "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2}[shape]
    return LambdaLR(optimizer, lambda step: factor(min(step / total_steps, 1.0)))
