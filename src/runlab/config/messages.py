"""What a user got wrong, answered in a line. Imports neither torch nor lightning, so that the answer is quick."""

import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.errors import CompactHydraException, HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import MarkedYAMLError

from runlab.config.hints import HINTS, LIBRARIES, OTHER_WEIGHTS, SAID, SAID_OF_A_STEP
from runlab.config.own_code import is_from_own_code, own_frames
from runlab.config.secrets import masked


class UserError(CompactHydraException):
    """Something that the user can mend. Its text names the bad value and the way out, in one or two lines."""


class Diverged(UserError):
    """Training has left the finite numbers. The checkpoints are those from before."""


class Pruned(UserError):
    """A search has given up on this run, as others did better by the same epoch."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of these the system does not say which file it was

# A disk that is full, read-only, closed to the user, or broken.
_DISK = {
    getattr(errno, name)
    for name in ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST", "EIO", "ENAMETOOLONG"]
} | {errno.EISDIR}

# Of code, also where a library notices them that the code has called.
_MISTAKES = (AttributeError, NameError, TypeError, LookupError, AssertionError, ArithmeticError, NotImplementedError)

_OURS = "PLAIN_ERRORS"  # set where HYDRA_FULL_ERROR was set by us: processes that are started from here have both


def listed(names: Sequence[str], most: int) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most)


@contextmanager
def user_errors(about: str = "") -> Iterator[None]:
    """Around what a user's values decide: whatever fails in here is theirs to mend, and becomes a `UserError`.

    `about` says what was being done, where the message itself does not say where it comes from.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        prefix = f"{about}: " if about and not isinstance(error, InstantiationException) else ""
        raise UserError(prefix + one_line(error) + own_place(error)) from error


@contextmanager
def report_errors() -> Iterator[None]:
    """Around the whole program: what the user can mend is printed to stderr in a line, with exit status 1.

    Any other exception, and with HYDRA_FULL_ERROR=1 every one, goes on with its full traceback.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and _OURS not in os.environ:
        yield
        return
    os.environ["HYDRA_FULL_ERROR"] = os.environ[_OURS] = "1"  # Hydra hands its errors on, and does not print them
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        theirs = isinstance(error, HydraException | OmegaConfBaseException) or getattr(error, "errno", None) in _DISK
        of_a_step = any(said in str(error) for said in SAID_OF_A_STEP)
        theirs |= type(error).__name__ in LIBRARIES or of_a_step or any(said in str(error) for said in SAID)
        theirs |= isinstance(error, MarkedYAMLError) or (OTHER_WEIGHTS in str(error) and not is_from_own_code(error))
        if not (theirs or _is_about_a_path(error)):
            raise
        print(masked(one_line(error) + (own_line(error) if of_a_step else "")), file=sys.stderr)
        sys.exit(1)
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        os.environ.pop(_OURS, None)


def one_line(error: BaseException) -> str:
    """The error's text in at most two lines, with the choices there were."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        hint = suggest(name, error.options) if error.options else " --help lists the choices."  # none for [a,b]
        return f"{group}={name}: no such choice." + hint
    if isinstance(error, InstantiationException):
        where = re.search(r"full_key: (\S+)", str(error))
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            return str(cause)
        text = one_line(cause) if cause is not error else _first_lines(str(error))
        if re.search("Error (loading|locating)", text) and not any("_target_=" in word for word in sys.argv):
            text += "; for a run of an older version write the old and the new name into conf/renamed.yaml"
        return f"{where[1]}: {text}" if where else text
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key is not None:
        key, parent = str(cause.full_key), cause.parent_node
        if "not in struct" in str(cause) and isinstance(parent, DictConfig):
            return f"{key}: no such option.{_nearest(key, parent)}"
        if isinstance(cause, InterpolationResolutionError):
            return f"{key}: {_first_lines(str(cause))}"
    if isinstance(error, OSError) and (error.errno in _DISK or _is_about_a_path(error)):
        what = error.filename or "hydra.run.dir"
        resume = "; saved work can be resumed with resume=" if error.errno in FULL else ""
        return f"{what}: {error.strerror}; mend that, or name another folder{resume}"
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    if "embedded null" in str(error):
        return "a path has a null character in it; name another, without \\0"
    text = _first_lines(str(error)) or type(error).__name__
    for said, hint in HINTS.items():
        if said in text:
            return hint
    return text


def own_line(error: BaseException) -> str:
    """The last line of the user's own code that an error came by, as ` (src/mine.py:12)`; "" where there is none."""
    own = [] if isinstance(error, UserError) else own_frames(error)
    return f" ({os.path.relpath(own[-1].filename)}:{own[-1].lineno})" if own else ""


def own_place(error: BaseException) -> str:
    """Where the user's own code raised an error: file, line, code on lines of their own; "" for a library's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames, own = traceback.extract_tb(error.__traceback__), own_frames(error)
    # A wrong value is often noticed by a library that the user's code has handed it to: that is no mistake of the code.
    if not own or isinstance(error, UserError) or not (own[-1] is frames[-1] or isinstance(error, _MISTAKES)):
        return ""
    lines = (f'\n  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n    {frame.line}' for frame in own)
    return f" ({type(error).__name__})" + "".join(lines)


def _is_about_a_path(error: BaseException) -> bool:
    """Whether the system or Python refused a path that the command or a config names, and not the user's own code."""
    if is_from_own_code(error):
        return False
    return "embedded null" in str(error) or (isinstance(error, OSError) and bool(error.filename))


def _nearest(key: str, parent: DictConfig) -> str:
    """The nearest to a key that `parent`, its group or the whole config, does not have, also in a group; or all."""
    prefix = key.rpartition(".")[0]
    names = [f"{prefix}.{name!s}" if prefix else str(name) for name in parent if not str(name).startswith("_")]
    paths = [] if prefix else [path for path in leaves(OmegaConf.to_container(parent)) if not path.startswith("hydra.")]
    deeper = {path.rpartition(".")[2]: path for path in paths if "." in path and "._" not in path}
    [nearest] = difflib.get_close_matches(key, [*names, *deeper], n=1, cutoff=0.75) or [""]
    if nearest in deeper and nearest not in names:
        return f" Did you mean {deeper[nearest]}?"
    return f"{suggest(key, names)} To add a new one: +{key}=..."


def leaves(config: Any, key: str = "") -> list[str]:
    """The keys of a config's values, with dots."""
    if not isinstance(config, dict):
        return [key]
    return [leaf for name, part in config.items() for leaf in leaves(part, f"{key}.{name}".lstrip("."))]


def suggest(word: str, choices: Iterable[str], unlisted: Iterable[str] = ()) -> str:
    """The choice nearest to a word, and all choices but those that are `unlisted`, as sentences behind a message."""
    names = [str(choice) for choice in choices]
    if not names and not unlisted:
        return ""
    close = difflib.get_close_matches(word, [*names, *unlisted], n=1)
    return (f" Did you mean {close[0]}?" if close else "") + f" Choices: {', '.join(names)}."


def _first_lines(text: str) -> str:
    """The message without its tail of key paths and types, as one line."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not re.match(r"(full_key|object_type|reference_type|set env)", line)]
    return " ".join(kept[:3])
