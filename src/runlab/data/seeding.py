"""Seeds that are derived from numbers, and the random generators that get them."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from runlab.data.kept_state import search
from runlab.data.object_state import GENERATORS


def derive_seed(*numbers: int) -> int:
    """Mix whole numbers into a seed of 63 bits (SplitMix64), so that neighbours get unrelated seeds.

    torch and NumPy use the low 32 bits of a seed only: those must differ too, as they would not in a plain sum.
    """
    mask, value = 2**64 - 1, 0
    for number in numbers:
        value = ((value ^ number) + 0x9E3779B97F4A7C15) & mask
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) & mask
        value ^= value >> 31
    return value >> 1


def seed_all(seed: int, generators: Sequence[Any] = ()) -> None:
    """Seed the global generators of torch (CPU, and the current GPU if CUDA is in use), Python and NumPy.

    And the `generators` of a user's objects, of any of these libraries, NumPy's of the old kind and the new.
    `seed` may be any 64-bit integer, also a negative one: torch gets it as it is, the others modulo 2**32, which is all
    that NumPy takes. Takes about 5 microseconds.
    """
    torch.default_generator.manual_seed(seed)  # torch.manual_seed is far slower where CUDA is not in use
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    short = seed % 2**32
    random.seed(short)
    np.random.seed(short)
    for generator in generators:
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(seed).state
        else:
            generator.seed(short)


def generators_of(*owners: Any) -> list[Any]:
    """Find the random generators that objects hold, and what these hold: datasets, samplers, transforms, helpers."""
    found = {id(value): value for _, _, value in search(*owners) if isinstance(value, GENERATORS)}
    return list(found.values())
