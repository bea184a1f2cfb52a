"""Seeds that are derived from numbers, and the random generators that get them."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler


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
    """Find the random generators that are attributes of the objects, or of datasets, samplers and transforms in these.

    Containers are searched up to 100 items: a longer one holds samples.
    """
    found: list[Any] = []
    seen: dict[int, Any] = {}  # keeps what it has seen alive, so that no id comes twice
    todo: list[Any] = [getattr(owner, "__dict__", {}) for owner in owners]
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, torch.Generator | random.Random | np.random.RandomState | np.random.Generator):
            found.append(value)
        elif isinstance(value, list | tuple | dict):
            if len(value) <= 100:
                todo.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, Dataset | Sampler) or (callable(value) and not isinstance(value, type)):
            todo.append(getattr(value, "__dict__", {}))
    return found
