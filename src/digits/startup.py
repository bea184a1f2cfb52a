"""What a short run spends most of its time on: getting torch into the process, and out of it. Imports none of it."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.config_store import ConfigStore

# Hydra copies its store of built-in configs each time it composes, and a hundred times for --help. It reads copies of
# the entries anyway, and nobody adds any by then.
ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]


@contextmanager
def quick_imports() -> Iterator[None]:
    """Around the first import of torch: no garbage is looked for among all that it makes, then or until the exit.

    What else the process holds by then is not looked through either.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # libraries complain about what nobody has collected at the exit


@contextmanager
def leaving_quickly() -> Iterator[None]:
    """Around the whole program: at its end Python leaves without taking torch apart, which takes a second.

    All that is registered meanwhile to happen at the exit happens, and what is printed is written out.
    """
    status: list[int] = []

    def leave() -> None:
        if status:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
            os._exit(status[0])

    atexit.register(leave)  # the first to come is the last to be called
    try:
        yield
        status.append(0)
    except SystemExit as end:
        status.append(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
    except Exception:
        status.append(1)  # Python prints the traceback before it calls what is registered
        raise
