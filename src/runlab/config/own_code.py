"""Which code is the user's own."""

import sys
import traceback
from pathlib import Path

_ENTRY = str(Path(sys.argv[0]).absolute())  # train.py


def is_own_code(path: str) -> bool:
    """Whether a source file is the user's own: it lies neither in the environment nor in this engine."""
    return not path.startswith((str(Path(__file__).parents[1]), sys.prefix, sys.base_prefix, "<"))


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of an error that are of the user's own code, but train.py's."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if is_own_code(frame.filename) and frame.filename != _ENTRY]


def is_from_own_code(error: BaseException) -> bool:
    """Whether an error came by the user's own code."""
    entry = Path(sys.argv[0]).name
    return any(Path(frame.filename).name != entry for frame in own_frames(error))
