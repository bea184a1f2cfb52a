"""How the process ends: quickly, with the status and the words that it would have had."""

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys
from runlab.config.startup import fast_exit, fast_imports
atexit.register(lambda: print("skipped"))
with fast_exit():
    atexit.register(lambda: print("registered"))
    print("printed")
    exec(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no')", 1, "no\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
    ],
)
def test_the_end_is_what_it_would_have_been(end: str, status: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, end], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "printed\nregistered\n")
    assert done.stderr.endswith(said)
    assert bool(done.stderr) == bool(said)


def test_garbage_is_looked_for_again_after_the_import() -> None:
    program = "import gc; from runlab.config.startup import fast_imports\nwith fast_imports(): off = gc.isenabled()\n"
    program += "print(off, gc.isenabled(), gc.get_freeze_count() > 0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False True True\n"
