"""What a short run spends most of its time on: getting torch into the process, and out of it. Imports none of it."""

import argparse
import atexit
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.config_store import ConfigStore

# Hydra copies its store of built-in configs each time it composes, and a hundred times for --help. It reads copies of
# the entries anyway, and nobody adds any by then.
ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]

# Its `get_object` logs in three lines what it raises, and what is then answered in one.
logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)

# Python 3.14 formats each help text of argparse as it is added, for which Hydra 1.3 is not made (its issue 3121).
if hasattr(argparse.ArgumentParser, "_check_help"):
    argparse.ArgumentParser._check_help = lambda *_: None


@contextmanager
def fast_imports() -> Iterator[None]:
    """Around the first import of torch, or of pydantic: no garbage collection, and none of what was imported later.

    Objects that exist by then are not looked through again before the process exits.
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
def fast_exit() -> Iterator[None]:
    """Around the whole program: leave Python without unloading torch, which takes a second.

    Exit handlers that were registered inside are called, and output is flushed.
    """
    status: list[int] = []

    def leave() -> None:
        if status:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
            os._exit(status[0])

    atexit.register(leave)  # handlers are called in reverse order: this one is the last
    if util := sys.modules.get("multiprocessing.util"):  # imported before: its handler would come too late
        atexit.unregister(util._exit_function)
        atexit.register(util._exit_function)
    try:
        yield
        status.append(0)
    except SystemExit as end:
        status.append(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
    except Exception:
        status.append(1)  # Python prints the traceback before it calls the exit handlers
        raise
