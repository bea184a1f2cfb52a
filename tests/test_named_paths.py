"""Whatever is wrong with a path that the user names is answered in a line: no folder, a loop, too long, a null byte."""

from pathlib import Path

import pytest
from conftest import Cli, status_of

QUICK = ["trainer=debug", "logger=none"]
BAD = {
    "not there": ("/proc/nowhere/run", "No such file or directory"),
    "a file": ("{tmp}/file", ""),
    "below a file": ("{tmp}/file/run", "Not a directory"),
    "a broken link": ("{tmp}/broken", ""),
    "a loop": ("{tmp}/loop/run", "Too many levels of symbolic links"),
    "too long": ("{tmp}/" + 300 * "a", "File name too long"),
    "null": ("{tmp}/a\\0b", "a path has a null character in it"),
}
USES = {
    "run folder": "hydra:\n  run:\n    dir: {path}\n",
    "sweep folder": "hydra:\n  mode: MULTIRUN\n  sweep:\n    dir: {path}\n",
    "data": "data:\n  root: {path}\n",
    "checkpoint": "ckpt_path: {path}\n",
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("use", USES)
def test_a_path_in_a_config(tmp_path: Path, capfd: pytest.CaptureFixture[str], use: str, bad: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "own/experiment").mkdir(parents=True)
    text = USES[use].format(path='"' + bad.format(tmp=tmp_path) + '"')
    (tmp_path / "own/experiment/bad.yaml").write_text(f"# @package _global_\n{text}")
    places = ["hydra.run.dir", "hydra.sweep.dir"]
    if (use, bad) == ("data", BAD["a broken link"][0]):
        reason = "data missing"
    if use == "checkpoint" and bad in (BAD["not there"][0], BAD["null"][0]):
        reason = "no such checkpoint" if bad == BAD["not there"][0] else "damaged"
    folders = [f"{key}={tmp_path}/run" for key in places if key[6:9] != use[:3] and key[6:11] != use[:5]]
    assert status_of(f"--config-dir={tmp_path}/own", "experiment=bad", *QUICK, *folders) == 1
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert reason in err
    assert "Traceback" not in err


@pytest.mark.parametrize("bad", [bad for bad, _ in BAD.values() if "\\0" not in bad], ids=[*BAD][:-1])
def test_a_folder_to_resume(tmp_path: Path, quick_cli: Cli, bad: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    answer = quick_cli(f"resume={bad.format(tmp=tmp_path)}")
    assert (answer.returncode, len(answer.stderr.splitlines())) == (1, 1), answer.stderr
    assert bad.format(tmp=tmp_path) in answer.stderr
