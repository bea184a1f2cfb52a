"""Values that a checkpoint may hold: copied, compared, and put back where they came from."""

import copy
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runlab.data.object_state import GENERATORS, load_state

STATE = "state of a generator"  # the key of what stands for one
LIMIT = 1 << 20  # numbers or strings of one value that a checkpoint takes
PLAIN = bool | int | float | str | bytes | None


class Opaque:
    """A value that cannot be saved, and what shows later whether it has changed."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.mark = self._mark()

    def _mark(self) -> Any:
        """The items of a list; of a tensor or array its version, shape and a thousand of its elements, as bytes."""
        value, version = self.value, 0
        some: Any = None
        if isinstance(value, list | tuple | deque):
            return list(value)
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta:
            version = 0 if value.is_inference() else value._version
            if value.is_contiguous():  # else to look at some would copy all
                few = value.detach().view(-1)[:: 1 + value.numel() // 1000]
                some = few.cpu().contiguous().view(torch.uint8).numpy().tobytes()
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            some = value.flat[:: 1 + value.size // 1000].tobytes()
        else:
            return None
        return version, (tuple(value.shape), some)

    def has_changed(self, before: Any) -> bool:
        """Whether a tensor, array or list is not what it was `before`; a list that was filled where it was None is."""
        mark, earlier = self.mark, before.mark if isinstance(before, Opaque) else before
        if isinstance(mark, list) and isinstance(earlier, list | tuple):
            pairs = zip(mark, earlier, strict=False)
            return len(mark) != len(earlier) or any(old is not new and old is not None for new, old in pairs)
        if not (isinstance(before, Opaque) and isinstance(mark, tuple) and isinstance(earlier, tuple)):
            return False
        is_one = self.value is before.value and isinstance(self.value, Tensor)
        return mark[0] != earlier[0] if is_one else mark[1] != earlier[1]


def _are_scalars(items: Any) -> bool:
    """Whether all are plain numbers or strings; quick, for there may be as many as samples."""
    return {*map(type, items)} <= {bool, int, float, str, bytes, type(None)}


def copied(value: Any, limit: int, most: int = LIMIT, inner: bool = False) -> Any:
    """A copy that a checkpoint may hold, or `Opaque`; for an array a tensor, for a set or a deque a list.

    `most` numbers or strings, or `limit` other things.
    """
    if isinstance(value, np.float64 | np.integer | np.bool_) and not inner:  # another float has another precision
        value = value.item()
    if _are_scalars([value]):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8 and not inner:
        if value.size > most:
            return Opaque(value)
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if isinstance(value, Tensor) and value.numel() <= most:
        return value.detach().cpu().clone()
    is_known = type(value) in (list, tuple, dict) or (isinstance(value, list | dict | set | deque) and not inner)
    if not is_known or len(value) > most:
        return Opaque(value)
    keys = list(value) if isinstance(value, dict) else []
    items = list(value.values()) if keys else sorted(value, key=repr) if isinstance(value, set) else list(value)
    if not _are_scalars(items):
        if len(items) > limit:
            return Opaque(value)
        items = [copied(item, limit // len(items), most // len(items), inner=True) for item in items]
    if not _are_scalars(keys) or any(isinstance(item, Opaque) for item in items):
        return Opaque(value)
    kind = type(value) if isinstance(value, tuple) else list
    return dict(zip(keys, items, strict=True)) if isinstance(value, dict) else kind(items)


def put_back(old: Any, new: Any) -> Any:
    """What an attribute gets that holds `old`: `new` in the form of `old`, put into it where others may hold it too."""
    new = copy.deepcopy(new)
    if isinstance(new, dict) and STATE in new:
        if isinstance(old, GENERATORS):  # else it is made when it is needed
            load_state(old, new[STATE])
        return old
    if isinstance(new, Tensor) and isinstance(old, np.ndarray | Tensor):
        new = new.numpy() if isinstance(old, np.ndarray) else new
        is_fixed = not old.flags.writeable if isinstance(old, np.ndarray) else old.is_inference()
        if is_fixed or (old.shape, old.dtype) != (new.shape, new.dtype):
            return new
        with torch.no_grad():
            old[...] = new
    elif isinstance(old, list) and isinstance(new, list):
        old[:] = new
    elif type(old) is type(new) is tuple and len(old) == len(new):
        return tuple(map(put_back, old, new))
    elif isinstance(old, set | deque) and isinstance(new, list | set):
        old.clear()
        old.update(new) if isinstance(old, set) else old.extend(new)
    elif isinstance(old, dict) and isinstance(new, dict):
        old.clear()
        old.update(new)
    else:
        return new
    return old


def is_same(first: Any, second: Any) -> bool:
    """Whether two values are equal, as far as they are plain or hold what is; NaN equals itself."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            return False
        return bool(((first == second) | ((first != first) & (second != second))).all())
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if _are_scalars(first) and _are_scalars(second) and first == second:
            return True
        return len(first) == len(second) and all(map(is_same, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(is_same(first[key], second[key]) for key in first)
    if isinstance(first, PLAIN) and isinstance(second, PLAIN):
        return first == second or first != first
    return type(first) is type(second) and not isinstance(first, PLAIN)
