"""What shows whether an attribute was changed, and an attribute as a checkpoint may hold it."""

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

VALUES = (bool, int, float, complex, str, type(None))


class _Ref:
    """An object that is looked at from outside: another one is not equal."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ref) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


def mark(value: Any, depth: int = 0) -> Any:
    """What shows, compared with a later one, whether a value was changed; of tensors and arrays a hash."""
    if type(value) in VALUES:
        return value
    if isinstance(value, dict) and depth < 9:
        return {key: mark(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | deque) and depth < 9:
        return [mark(item, depth + 1) for item in value]
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta:
        # By content: `.data` is written to without a trace.
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return ["tensor", str(value.dtype), tuple(value.shape), hash(content)]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return ["array", str(value.dtype), value.shape, hash(value.tobytes())]
    return _Ref(value)


def plain(value: Any, tensors: list[Tensor], top: bool = False) -> Any:
    """A value as a checkpoint may hold it, with its tensors added to `tensors`; `TypeError` if it may not."""
    kind: Any = type(value)
    if kind in VALUES:
        return value
    if isinstance(value, Tensor):
        value = value.detach().as_subclass(Tensor)
        tensors.append(value)
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value  # else all of it is saved
    if kind is dict or (top and isinstance(value, dict)):
        return {plain(key, []): plain(item, tensors) for key, item in value.items()}
    if kind in (list, tuple, set) or (top and kind is deque):
        return (list if kind is deque else kind)(plain(item, tensors) for item in value)
    raise TypeError(kind)
