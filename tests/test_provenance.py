"""What a run notes of where it comes from: code, new files, data; and what is said where they have changed."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import PATH, ROOT, Cli, Compose

from digits.data import ImageDataModule
from runlab.runs import provenance
from train import train

QUIET = ["trainer.max_epochs=2", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "logger=none"]


def test_provenance_keeps_what_was_not_committed(composed: Compose, tmp_path: Path) -> None:
    train(composed(*QUIET))
    noted = json.loads((tmp_path / "run/provenance.json").read_text())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert noted["git_commit"] == (commit.stdout.strip() or None)
    diff = tmp_path / "run/provenance.diff"
    assert diff.exists() == bool(noted["git_dirty"])
    written = diff.read_bytes() if diff.exists() else b""
    assert written == provenance.diff()
    if not any(name.endswith((".py", ".yaml", "/")) for name in noted["git_untracked"]):
        changed = subprocess.run(["git", "diff", "HEAD", "--binary"], cwd=ROOT, capture_output=True, check=False)
        assert written == changed.stdout


def test_new_code_is_in_the_diff_from_which_it_can_be_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    git = ["git", "-C", str(project), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for name, text in {"src/engine.py": "a = 1\n", "conf/train.yaml": "a: 1\n", ".gitignore": "runs/\n"}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    for name in ("src/engine.py", "src/mine/net.py", "conf/task/mine.yaml", "runs/one/config.yaml", "data/large.bin"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(f"of {name}\n")
    monkeypatch.setattr(provenance, "__file__", str(project / "src/engine.py"))
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True).stdout
    diff = provenance.diff()
    assert subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True).stdout == status
    subprocess.run([*git, "clone", "-q", str(project), str(tmp_path / "clone")], check=True)
    subprocess.run(["git", "apply"], cwd=tmp_path / "clone", input=diff, check=True)
    files = [path for path in (tmp_path / "clone").rglob("*") if path.is_file() and ".git/" not in str(path)]
    contents = {str(path.relative_to(tmp_path / "clone")): path.read_text() for path in files}
    kept = {name: f"of {name}\n" for name in ("src/engine.py", "src/mine/net.py", "conf/task/mine.yaml")}
    assert contents == kept | {"conf/train.yaml": "a: 1\n", ".gitignore": "runs/\n"}


def test_other_data_than_the_runs_are_said(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(composed(*QUIET))
    train(composed(*QUIET, "resume=auto", "trainer.max_epochs=3"))
    assert "other data" not in capsys.readouterr().err
    monkeypatch.setattr(ImageDataModule, "checksums", {"train-images-idx3-ubyte.gz": "0"})
    train(composed(*QUIET, "resume=auto", "trainer.max_epochs=4"))
    names = "t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz, train-images-idx3-ubyte.gz and 1 more"
    assert f"run: resumed with other data, {names} changed since\n" in capsys.readouterr().err


NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), LAYERS)
"""


@pytest.mark.slow
def test_another_network_than_the_runs_is_a_line(cli: Cli, tmp_path: Path) -> None:
    env = {"PYTHONPATH": f"{tmp_path}:{PATH}"}
    options = ["~model", "+model._target_=net_of_mine.Net", "trainer=debug", "logger=none"]
    (tmp_path / "net_of_mine.py").write_text(NET.replace("LAYERS", "nn.Linear(784, 10)"))
    assert cli(*options, f"hydra.run.dir={tmp_path}/run", env=env).returncode == 0
    (tmp_path / "net_of_mine.py").write_text(NET.replace("LAYERS", "nn.Linear(784, 9), nn.Linear(9, 10)"))
    again = cli(f"resume={tmp_path}/run", "trainer.max_epochs=2", env=env)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith(
        "the network is another than that of the run to resume; restore its"
    )
    assert "Traceback" not in again.stderr
