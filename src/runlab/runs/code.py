"""The code that a run was made with: a finished run is taken instead of training again only where it is the same."""

import functools
import hashlib
import json
import sys
from datetime import datetime
from pathlib import Path

from runlab.config.messages import UserError, listed
from runlab.config.processes import rank_zero
from runlab.config.resolvers import PROJECT, path_as_typed
from runlab.runs.files import CODE, run_lock, write_json

_said: set[tuple[Path, str]] = set()  # what was said of the runs in a folder, once


class OtherCode(UserError):
    """A run has finished with other code, and the command does not say whether it is to be run anew."""


@functools.cache
def code_md5() -> dict[str, str]:
    """The MD5 of each Python file of the project, train.py and src/, by its path, as this process has found it."""
    files = [*PROJECT.glob("*.py"), *PROJECT.glob("src/**/*.py")]
    if not (PROJECT / "conf").is_dir():  # the engine is installed alone
        files = list(Path(__file__).parents[1].rglob("*.py"))
    return {str(path.relative_to(PROJECT)): hashlib.md5(path.read_bytes()).hexdigest() for path in sorted(files)}


def changed_files(run_dir: Path) -> list[str] | None:
    """The files of the project that have changed since the run; None where a run of before says nothing of its code."""
    try:
        recorded = json.loads((run_dir / CODE).read_text())
        differing = dict(recorded.items() ^ code_md5().items())
    except (OSError, ValueError, AttributeError):
        return None
    return sorted(differing)


def write_code(run_dir: Path) -> None:
    """Note the code that the run has now; a file that has changed before it was resumed, as of several versions."""
    if changed := changed_files(run_dir):
        print(f"{path_as_typed(run_dir)}: resumed with other code, {listed(changed, 3)} changed since", file=sys.stderr)
    write_json(run_dir / CODE, code_md5() | dict.fromkeys(changed or [], "several versions"))


def take_finished(run_dir: Path, rerun: bool | None) -> bool:
    """Whether a finished run is taken as it is. Of one whose code has changed since, `rerun` decides.

    True moves it aside, to be run anew. False takes it, and says so. None is `OtherCode`, which names the files.
    """
    changed = changed_files(run_dir)
    if changed is None:
        _say_once(run_dir, "finished before runs recorded their code; taken as it is")
    elif changed and rerun is None:
        raise OtherCode(
            f"{path_as_typed(run_dir)}: finished with other code, {listed(changed, 3)} changed since;"
            " rerun=true runs it anew and keeps the old one beside it, rerun=false takes it as it is"
        )
    elif changed and rerun:
        if rank_zero():
            aside = run_dir.with_name(f".{run_dir.name}.{datetime.now():%Y%m%d-%H%M%S-%f}")
            with run_lock(run_dir, resume=True):
                run_dir.rename(aside)
            text = f"{listed(changed, 3)} changed since: run anew; the old run is {path_as_typed(aside)}"
            print(text, file=sys.stderr)
        return False
    elif changed:
        _say_once(run_dir, f"finished with other code, {listed(changed, 3)} changed since; taken as it is")
    return True


def _say_once(run_dir: Path, text: str) -> None:
    """Say it of the first of the runs in a folder."""
    if (run_dir.parent, text) not in _said:
        _said.add((run_dir.parent, text))
        print(f"{path_as_typed(run_dir)}: {text}", file=sys.stderr)
