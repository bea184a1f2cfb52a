"""The state of objects that keep one: random generators, and what has `state_dict` and `load_state_dict`."""

import random
from typing import Any

import numpy as np
import torch

GENERATORS = torch.Generator | random.Random | np.random.RandomState | np.random.Generator


def has_state(value: Any) -> bool:
    """Whether an object keeps a state that can be asked for and set."""
    named = [callable(getattr(type(value), name, None)) for name in ("state_dict", "load_state_dict")]
    return isinstance(value, GENERATORS) or all(named)


def state_of(value: Any) -> Any:
    """The state: of a generator numbers, tensors and containers of these, else what its `state_dict` returns."""
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return _without_arrays(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return _without_arrays(value.get_state(legacy=False))
    return value.state_dict()


def load_state(value: Any, state: Any) -> None:
    """Set the state of an object to what `state_of` has returned."""
    if isinstance(value, torch.Generator):
        value.set_state(state)
    elif isinstance(value, random.Random):
        value.setstate(state)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = state
    elif isinstance(value, np.random.RandomState):
        value.set_state(state)
    else:
        value.load_state_dict(state)


def _without_arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _without_arrays(item) for key, item in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state
