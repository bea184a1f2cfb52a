"""Start a data loader's workers; what cannot be sent to them is named."""

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from runlab.config.messages import UserError

_SENT = ("dataset", "collate_fn", "worker_init_fn", "sampler")
_DEPTH = 9  # of attributes in attributes that are looked through


def started(iterated: DataLoader[Any], loader: DataLoader[Any]) -> Iterator[Any]:
    """An iterator of a loader, with its workers. `UserError` names what of the user's `loader` cannot be sent to them.

    Where processes are spawned (macOS, Windows) or come from a fork server (Linux from Python 3.14 on), all is pickled.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got pickle error")  # torch's, beside the error itself
            return iter(iterated)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        for name in _SENT:
            part = getattr(loader, name)
            if not _can_be_sent(part):
                path = ".".join((type(part).__name__ if name == "dataset" else name, *_unsendable(part)))
                way_out = "put a function with a name in a module in its place, or take num_workers=0"
                raise UserError(f"{path}: cannot be sent to a worker process, {error}; {way_out}") from error
        raise


def _unsendable(value: Any, depth: int = _DEPTH) -> tuple[str, ...]:
    """The path, in `value`, to the innermost attribute or item that cannot be pickled."""
    items = enumerate(value) if isinstance(value, list | tuple) else getattr(value, "__dict__", value)
    for name, part in items.items() if isinstance(items, dict) else items if isinstance(items, enumerate) else ():
        if depth and not _can_be_sent(part):
            return (str(name), *_unsendable(part, depth - 1))
    return ()


def _can_be_sent(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
