"""Plain attributes that training changes: what a module counts by hand, what a hook has set for an epoch."""

import io
import sys
from collections.abc import Iterator
from typing import Any

import lightning as L
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from runlab.data.object_state import has_state, load_state, state_of
from runlab.data.plain import put_back
from runlab.training.marks import VALUES, mark, plain

LIMIT = 256 * 2**20  # bytes of tensors in them that a checkpoint takes
# What has a state and is not the task's: Lightning's own, and loaders.
NOT_STATEFUL = (LightningOptimizer, L.Callback, L.LightningDataModule, L.Trainer, DataLoader)


class Attributes:
    """The attributes of the user's objects that are no parameter, buffer or module, and that training has changed.

    Looked at are the task's module with its submodules (those of torchmetrics have their own way), the user's callbacks
    that save no state by themselves, and what they hold of the user's own classes, also in lists and dicts. Numbers,
    strings, tensors, and lists, tuples, sets and dicts of them can be saved, and objects that have a state of their
    own: generators, networks that are no submodules, optimizers. A deque, or a subclass of dict, only if the attribute
    held that same object when training began: the content is put back into it.
    """

    def __init__(self, module: L.LightningModule, trainer: L.Trainer | None = None) -> None:
        """Without a trainer those of a module alone."""
        self.module, self.trainer, self.lightnings = module, trainer, vars(L.LightningModule()).keys() - {"training"}
        self.first: dict[str, tuple[Any, Any]] = {}
        self.before: dict[str, Any] = {}

    def note(self, before: dict[str, Any]) -> None:
        """Note what they are when training begins, before `restore`: what `changed` compares with.

        And what numbers and texts were `before` the hooks of its start and the sanity check: a resumed run has not had
        that check, and a value that training has brought back to what it was is another one than such a hook sets.
        """
        self.first, self.before = {key: (value, mark(value)) for key, value, _ in self._now()}, before

    def plain_values(self) -> dict[str, Any]:
        """Those that are numbers or texts."""
        return {key: value for key, value, _ in self._now() if type(value) in VALUES}

    def changed(self) -> tuple[dict[str, Any], list[str]]:
        """Those that are others than at first, for `restore`, and the names of others that cannot be saved."""
        saved, left_out, size = dict[str, Any](), list[str](), 0
        weights = {part.untyped_storage().data_ptr() for part in (*self.module.parameters(), *self.module.buffers())}
        for key, value, is_state in self._now():
            first, noted = self.first.get(key, (..., ...))
            if hasattr(value, "__next__") and not isinstance(value, io.IOBase):
                left_out.append(key)  # it goes on with each item, which nothing shows
                continue
            now = mark(value)
            if noted == now == (mark(self.before[key]) if key in self.before else now):
                continue
            tensors = list[Tensor]()
            try:
                saved_value = plain(value, tensors, top=is_state or first is value)
            except TypeError:
                left_out.append(key)
                continue
            if any(tensor.untyped_storage().data_ptr() in weights for tensor in tensors if tensor.numel()):
                continue  # the state of the module, which is saved as such, by another name
            size += sum(tensor.nbytes for tensor in tensors)
            if size > LIMIT:
                left_out.append(key)
            else:
                on_device = any(not tensor.is_cpu for tensor in tensors)
                saved[key] = [saved_value, on_device, "state" if is_state else first is value]
        return saved, left_out

    def restore(self, saved: dict[str, Any], device: Any = None) -> list[str]:
        """Set them to what they were; return the names of those whose object is not there.

        Tensors that were on a GPU come to `device`, if None to the module's.
        """
        owners, stateful, missing = dict(self._owners()), dict(self.stateful()), []
        for key, (value, on_device, how) in saved.items():
            if on_device:
                value = move_data_to_device(value, device or self.module.device)
            path, _, name = key.rpartition(".")
            if how == "state" and key in stateful:
                load_state(stateful[key], value)
            elif how != "state" and path in owners:
                names = vars(owners[path])  # past nn.Module.__setattr__, which would look for a parameter
                names[name] = put_back(names.get(name), value) if how else value
            else:
                missing.append(key)
        return missing

    def _owners(self) -> Iterator[tuple[str, Any]]:
        """The objects, by names that a resumed run finds them by too."""
        seen, kinds = set[int](), list[type]()
        todo: list[tuple[str, Any]] = [
            (f"task.{name}".rstrip("."), part)
            for name, part in self.module.named_modules()
            if not type(part).__module__.startswith("torchmetrics.")
        ]
        for callback in self.trainer.callbacks if self.trainer else ():  # type: ignore[attr-defined]
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
            todo += [(where, value) for where, value in self._held(path, owner) if _is_owner(value)]

    def _held(self, path: str, owner: Any) -> Iterator[tuple[str, Any]]:
        """The values of an object's attributes, and what these have in them if they are lists or dicts."""
        skipped = self.lightnings if isinstance(owner, nn.Module) else ()
        for name, value in vars(owner).items():
            if name in skipped:
                continue
            yield f"{path}.{name}", value
            if isinstance(value, list | tuple | dict) and len(value) <= 100:
                items = value.items() if isinstance(value, dict) else enumerate(value)
                yield from ((f"{path}.{name}.{key}", item) for key, item in items)

    def stateful(self) -> Iterator[tuple[str, Any]]:
        """The objects with a state of their own that the module and the Trainer do not save themselves."""
        known = {id(part) for part in self.module.modules()}
        if self.trainer:
            known |= {*map(id, self.trainer.optimizers)}
            known |= {id(config.scheduler) for config in self.trainer.lr_scheduler_configs}
        for path, owner in self._owners():
            for where, value in self._held(path, owner):
                if has_state(value) and id(value) not in known and not isinstance(value, NOT_STATEFUL):
                    yield where, value

    def _now(self) -> Iterator[tuple[str, Any, bool]]:
        """Keys and values, and whether the value is an object's state."""
        modes = {}
        if self.trainer and self.trainer.validating:  # which has switched them
            modes = self.trainer.fit_loop.epoch_loop.val_loop._module_mode.mode
        for path, owner in self._owners():
            skipped = self.lightnings if isinstance(owner, nn.Module) else ()
            for name, value in vars(owner).items():
                if name == "training" and isinstance(owner, nn.Module):
                    value = modes.get(path.removeprefix("task").removeprefix("."), value)
                if name not in skipped and not _is_owner(value) and not has_state(value):
                    yield f"{path}.{name}", value, False
        for path, value in self.stateful():
            yield path, state_of(value), True


def restore_task(module: L.LightningModule, saved: dict[str, Any], device: Any = None) -> None:
    """Set the attributes of a task's module to what a checkpoint holds of them, but for the mode, train or eval."""
    own = (key for key in saved if key.startswith("task.") and not key.endswith(".training"))
    Attributes(module).restore({key: saved[key] for key in own}, device)


def _is_owner(value: Any) -> bool:
    """Whether an attribute is an object of the user's own classes with attributes of its own."""
    others = (type, nn.Module, L.Callback, L.LightningDataModule, L.Trainer, Dataset)
    return hasattr(value, "__dict__") and not isinstance(value, others) and is_users(type(value))


def is_users(kind: Any) -> bool:
    """Whether a class or function is the user's own: neither Python's, nor this package's, nor an installed one's."""
    root, file = kind.__module__.partition(".")[0], getattr(sys.modules.get(kind.__module__), "__file__", None)
    return root not in (*sys.stdlib_module_names, "runlab") and not (file and "-packages" in file)
