"""Seed the global random generators, and put their states back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed the global generators of torch (CPU, and the current GPU if CUDA is in use), Python and NumPy.

    `seed` may be any 64-bit integer, also a negative one: torch gets it as it is, the others modulo 2**32, which is all
    that NumPy takes. Takes about 5 microseconds.
    """
    torch.default_generator.manual_seed(seed)  # torch.manual_seed is far slower where CUDA is not in use
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    short = seed % 2**32
    random.seed(short)
    np.random.seed(short)


@contextmanager
def preserved_random_states() -> Iterator[None]:
    """Put the states of the generators that `seed_all` seeds back afterwards."""
    on_gpu = torch.cuda.is_initialized()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state(), on_gpu and torch.cuda.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        if on_gpu:
            torch.cuda.set_rng_state(states[3])
