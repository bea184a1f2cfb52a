"""What a user's samplers and data sets keep from one batch or epoch to the next: found, saved and restored."""

import io
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from runlab.data.object_state import GENERATORS, state_of
from runlab.data.plain import LIMIT, PLAIN, STATE, Opaque, copied, is_same, put_back

Found = tuple[str, bool, Any]  # the path to a value, and whether it is an attribute


def search(*owners: Any, skip: tuple[Any, ...] = ()) -> Iterator[Found]:
    """Go through all that objects hold: attributes, items of containers, what functions are bound to.

    Values in `skip` are left out, by identity or by type. Containers are searched up to 100 items: a longer one holds
    samples.
    """
    types = (type, ModuleType, pl.Trainer, *(kind for kind in skip if isinstance(kind, type)))
    seen: dict[int, Any] = {id(value): value for value in skip}  # kept alive, so that no id comes twice
    todo: list[Found] = [(f"{number}", False, owner) for number, owner in enumerate(owners)]
    while todo and len(seen) < 10_000:
        path, is_attribute, value = todo.pop()
        if isinstance(value, types) or any(value is skipped for skipped in skip):
            continue
        yield path, is_attribute, value
        if id(value) in seen or isinstance(value, PLAIN | Tensor):
            continue
        seen[id(value)] = value
        items: Any = ()
        if isinstance(value, list | tuple | dict):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            items = items if len(value) <= 100 else ()
        elif isinstance(value, MethodType):
            items = [("self", value.__self__)]
        elif isinstance(value, FunctionType):
            items = enumerate(cell.cell_contents for cell in value.__closure__ or ())
        elif isinstance(value, partial):
            items = enumerate((value.func, value.args, value.keywords))
        todo += [(f"{path}.{name}", False, item) for name, item in items]
        todo += [(f"{path}.{name}", True, item) for name, item in getattr(value, "__dict__", {}).items()]


class KeptState:
    """The attributes of objects that have changed since this was made, as far as they are plain values.

    Plain are numbers, strings, tensors, arrays, and lists, tuples, dicts, sets and deques of these, up to `LIMIT`
    items, of other things than numbers and strings up to `limit`; and with `generators` the states of random
    generators.
    """

    def __init__(self, *owners: Any, limit: int = LIMIT, skip: tuple[Any, ...] = (), generators: bool = False) -> None:
        self.owners, self.limit, self.skip, self.generators = owners, limit, (*skip, nn.Module), generators
        self.start = self._now()

    def _now(self) -> dict[str, Any]:
        found = search(*self.owners, skip=self.skip)
        return {path: self._copy(value) for path, is_attribute, value in found if is_attribute}

    def _copy(self, value: Any) -> Any:
        if self.generators and isinstance(value, GENERATORS):
            return {STATE: state_of(value)}
        return copied(value, self.limit)

    def changes(self) -> dict[str, Any]:
        """The values, by path, of what is other than it was at the start; a checkpoint may hold them."""
        now = {path: value for path, value in self._now().items() if not isinstance(value, Opaque)}
        return {path: value for path, value in now.items() if not is_same(value, self.start.get(path, Opaque(0)))}

    def restore(self, changes: dict[str, Any]) -> None:
        """Set every plain value to what it was when `changes` was asked for."""
        owners = {path: value for path, _, value in search(*self.owners, skip=self.skip)}
        for path, new in (self.start | changes).items():
            owner, _, name = path.rpartition(".")
            if owner in owners and not isinstance(new, Opaque):
                held = vars(owners[owner])
                if not is_same(self._copy(held.get(name)), new):
                    held[name] = put_back(held.get(name), new)

    def lost(self) -> list[str]:
        """The names of attributes that hold something else than at the start, and cannot be saved.

        What is opened or built when it is first needed is not meant.
        """
        now = {path: kept.value for path, kept in self._now().items() if isinstance(kept, Opaque)}
        before = {path: kept.value for path, kept in self.start.items() if isinstance(kept, Opaque)}
        return [
            path.partition(".")[2]
            for path, value in now.items()
            if (hasattr(value, "__next__") and not isinstance(value, io.IOBase))
            or (not callable(value) and before.get(path, value) is not value)
        ]

    def outgrown(self) -> list[str]:
        """The names of tensors, arrays and lists that have changed and are too large to be saved."""
        now = self._now().items()
        found = [path for path, kept in now if isinstance(kept, Opaque) and kept.has_changed(self.start.get(path))]
        return [path.partition(".")[2] for path in found]
