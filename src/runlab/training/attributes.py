"""Plain attributes that training changes: what a module counts by hand, what a hook has set for an epoch."""

import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from runlab.data.kept_state import put_back

VALUES = (bool, int, float, complex, str, type(None))
LIMIT = 256 * 2**20  # bytes of tensors in them that a checkpoint takes


class Attributes:
    """The attributes of the user's objects that are no parameter, buffer or module, and that training has changed.

    Looked at are the task's module with its submodules (those of torchmetrics have their own way), the user's callbacks
    that save no state by themselves, and what they hold of the user's own classes. Numbers, strings, tensors, and
    lists, tuples, sets and dicts of them can be saved. A deque, or a subclass of dict, only if the attribute held that
    same object when training began: the content is put back into it.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        """Note what they are when training begins, before `restore`."""
        self.trainer, self.lightnings = trainer, vars(L.LightningModule()).keys() - {"training"}
        self.first = {f"{path}.{name}": (value, _mark(value)) for path, _, name, value in self._all()}

    def changed(self) -> tuple[dict[str, Any], list[str]]:
        """Those that are others than at first, for `restore`, and the names of others that cannot be saved."""
        module, saved, left_out, size = self.trainer.lightning_module, {}, [], 0
        state = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
        for path, _, name, value in self._all():
            key, tensors = f"{path}.{name}", list[Tensor]()
            first, mark = self.first.get(key, (..., ...))
            if mark == _mark(value):
                continue
            try:
                plain = _plain(value, tensors, top=first is value)
            except TypeError:
                left_out.append(key)
                continue
            if any(tensor.untyped_storage().data_ptr() in state for tensor in tensors if tensor.numel()):
                continue  # the state of the module, which is saved as such, by another name
            size += sum(tensor.nbytes for tensor in tensors)
            if size > LIMIT:
                left_out.append(key)
            else:
                saved[key] = [plain, any(not tensor.is_cpu for tensor in tensors), first is value]
        return saved, left_out

    def restore(self, saved: dict[str, Any]) -> list[str]:
        """Set them to what they were; return the names of those whose object is not there."""
        owners, missing = dict(self._owners()), []
        for key, (value, on_device, same_object) in saved.items():
            path, _, name = key.rpartition(".")
            if path not in owners:
                missing.append(key)
                continue
            if on_device:
                value = move_data_to_device(value, self.trainer.strategy.root_device)
            names = vars(owners[path])  # past nn.Module.__setattr__, which would look for a parameter
            names[name] = put_back(names.get(name), value) if same_object else value
        return missing

    def _owners(self) -> Iterator[tuple[str, Any]]:
        """The objects, by names that a resumed run finds them by too."""
        seen, kinds = set[int](), list[type]()
        todo: list[tuple[str, Any]] = [
            (f"task.{name}".rstrip("."), part)
            for name, part in self.trainer.lightning_module.named_modules()
            if not type(part).__module__.startswith("torchmetrics.")
        ]
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
            if is_users(kind := type(callback)) and (kind.state_dict, kind.on_save_checkpoint) == (
                L.Callback.state_dict,
                L.Callback.on_save_checkpoint,
            ):
                kinds.append(kind)
                todo.append((f"callbacks.{kind.__name__}.{kinds.count(kind)}", callback))
        while todo:
            path, owner = todo.pop()
            if id(owner) in seen:
                continue
            seen.add(id(owner))
            yield path, owner
            todo += [(f"{path}.{name}", value) for name, value in vars(owner).items() if _is_owner(value)]

    def _all(self) -> Iterator[tuple[str, Any, str, Any]]:
        loop = self.trainer.fit_loop.epoch_loop.val_loop
        modes = loop._module_mode.mode if self.trainer.validating else {}  # else what a validation has switched
        for path, owner in self._owners():
            skipped = self.lightnings if isinstance(owner, nn.Module) else ()
            for name, value in vars(owner).items():
                if name == "training" and isinstance(owner, nn.Module):
                    value = modes.get(path.removeprefix("task").removeprefix("."), value)
                if name not in skipped and not _is_owner(value):
                    yield path, owner, name, value


class _Ref:
    """An object that is looked at from outside: another one, or a tensor or array with other values, is not equal."""

    def __init__(self, value: Any) -> None:
        self.value, self.version = value, 0
        if isinstance(value, Tensor) and not value.is_inference():
            self.version = value._version
        elif isinstance(value, np.ndarray):
            self.version = hash(value.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ref) and self.value is other.value and self.version == other.version

    __hash__ = None  # type: ignore[assignment]


def _mark(value: Any, depth: int = 0) -> Any:
    """What shows, compared with a later one, whether a value was changed; tensors are not copied."""
    if type(value) in VALUES:
        return value
    if isinstance(value, dict) and depth < 9:
        return {key: _mark(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | deque) and depth < 9:
        return [_mark(item, depth + 1) for item in value]
    return _Ref(value)


def _plain(value: Any, tensors: list[Tensor], top: bool = False) -> Any:
    """A value as a checkpoint may hold it, with its tensors added to `tensors`; `TypeError` if it may not."""
    kind: Any = type(value)
    if kind in VALUES:
        return value
    if isinstance(value, Tensor):
        value = value.detach().as_subclass(Tensor)
        tensors.append(value)
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value  # else all of it is saved
    if kind is dict or (top and isinstance(value, dict)):
        return {_plain(key, []): _plain(item, tensors) for key, item in value.items()}
    if kind in (list, tuple, set) or (top and kind is deque):
        return (list if kind is deque else kind)(_plain(item, tensors) for item in value)
    raise TypeError(kind)


def _is_owner(value: Any) -> bool:
    """Whether an attribute is an object of the user's own classes with attributes of its own."""
    others = (type, nn.Module, L.Callback, L.LightningDataModule, L.Trainer, torch.utils.data.Dataset)
    return hasattr(value, "__dict__") and not isinstance(value, others) and is_users(type(value))


def is_users(kind: Any) -> bool:
    """Whether a class or function is the user's own: neither Python's, nor this package's, nor an installed one's."""
    root, file = kind.__module__.partition(".")[0], getattr(sys.modules.get(kind.__module__), "__file__", None)
    return root not in (*sys.stdlib_module_names, "runlab") and not (file and "-packages" in file)
