"""Seeds that are derived from numbers, and the random generators that an object holds."""

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

_MASK = 2**64 - 1


def derive_seed(*numbers: int) -> int:
    """Mix whole numbers into a seed of 63 bits (SplitMix64), so that neighbours get unrelated seeds.

    torch and NumPy use the low 32 bits of a seed only: those must differ too, as they would not in a plain sum.
    """
    value = 0
    for number in numbers:
        value = ((value ^ number) + 0x9E3779B97F4A7C15) & _MASK
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return value >> 1


def generators_of(*owners: Any) -> list[Any]:
    """Find the random generators that are attributes of the objects, or of datasets, samplers and transforms in these.

    Containers are searched up to 100 items: a longer one holds samples.
    """
    found: list[Any] = []
    seen: dict[int, Any] = {}  # keeps what it has seen alive, so that no id comes twice
    todo: list[Any] = [vars(owner) for owner in owners if hasattr(owner, "__dict__")]
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


def seed_generator(generator: Any, seed: int) -> None:
    """Seed a generator of torch, Python or NumPy, be it of the old kind or the new."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        bits: Any = generator.bit_generator
        bits.state = type(bits)(seed).state
    else:
        generator.seed(seed % 2**32)  # RandomState takes 32 bits only
