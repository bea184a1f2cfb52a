"""`make update`: what the template changes reaches a project that was renamed and edited, as a merge."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from test_project import NEEDS_GIT, PACKAGE, copied, run_in

pytestmark = NEEDS_GIT


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    run = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@b")
    folder = copied(tmp_path / "template")
    git(folder, "init", "-q")
    commit(folder, "The template")
    return folder


def project(template: Path, clone: bool) -> Path:
    """A project made from the template by a clone or as a mere copy of its files, renamed and edited."""
    folder = template.parent / "project"
    git(template.parent, "clone", "-q", "template", "project")
    if not clone:
        shutil.rmtree(folder / ".git")
        git(folder, "init", "-q")
        commit(folder, "Begin")
    assert make(folder, "rename", "NAME=my_project").returncode == 0
    edit(folder / "src/my_project/networks.py", "Softmax regression", "My regression")
    edit(folder / "conf/trainer/default.yaml", "max_epochs: 5 ", "max_epochs: 1 ")
    commit(folder, "Mine")
    return folder


def change(template: Path) -> None:
    """Lines that name the package, beside such that do; a file that is new, a file that goes."""
    source = template / "src" / PACKAGE.name
    edit(source / "callbacks.py", "import", "import math  # new\nimport")
    edit(source / "networks.py", "Two hidden layers", "Hidden layers, two of them")
    (source / "extra.py").write_text(f"from {PACKAGE.name}.networks import MLP\n\nALL = [MLP]\n")
    edit(
        template / "conf/model/mlp.yaml",
        f"_target_: {PACKAGE.name}.networks.MLP",
        f"# changed\n_target_: {PACKAGE.name}.networks.MLP",
    )
    (template / "docs/notebook.md").unlink()
    commit(template, "Change")


@pytest.mark.parametrize("clone", [True, False], ids=["clone", "copy"])
@pytest.mark.slow
def test_both_sides_changes_are_there_and_it_trains(template: Path, clone: bool) -> None:
    folder = project(template, clone)
    before = git(folder, "rev-parse", "HEAD").strip()
    change(template)
    answer = make(folder, "update", f"FROM={template}")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"git reset --hard {before[:10]} undoes it" in answer.stdout
    networks = (folder / "src/my_project/networks.py").read_text()
    assert "My regression" in networks
    assert "Hidden layers, two of them" in networks
    assert "from my_project.networks import MLP" in (folder / "src/my_project/extra.py").read_text()
    assert "# changed\n_target_: my_project.networks.MLP" in (folder / "conf/model/mlp.yaml").read_text()
    assert not (folder / "src" / PACKAGE.name).exists()
    assert not (folder / "docs/notebook.md").exists()
    assert "\ntitle: my_project\n" in (folder / "CITATION.cff").read_text()
    changed = git(folder, "diff", "--name-only", before).split()
    assert changed == [
        "conf/model/mlp.yaml",
        "docs/notebook.md",
        "src/my_project/callbacks.py",
        "src/my_project/extra.py",
        "src/my_project/networks.py",
    ]
    assert git(folder, "status", "--porcelain") == ""

    assert "has not changed since" in make(folder, "update", f"FROM={template}").stdout
    edit(template / "src" / PACKAGE.name / "extra.py", "[MLP]", "[MLP, MLP]")
    commit(template, "Another")
    assert make(folder, "update", f"FROM={template}").returncode == 0
    assert git(folder, "diff", "--name-only", "HEAD^").split() == ["src/my_project/extra.py"]
    if clone:
        quick = ["trainer.limit_train_batches=2", "logger=none", f"data.root={ROOT}/data", "hydra.run.dir=run"]
        run_in(folder, "train.py", *quick)
        assert json.loads((folder / "run/metrics.json").read_text())["global_step"] == 2


def test_a_line_that_both_changed_is_in_conflict_and_can_be_undone(template: Path) -> None:
    folder = project(template, clone=True)
    before = git(folder, "rev-parse", "HEAD")
    edit(template / "conf/trainer/default.yaml", "max_epochs: 5 ", "max_epochs: 7 ")
    edit(template / "src" / PACKAGE.name / "networks.py", "Two hidden layers", "Hidden layers, two of them")
    commit(template, "Other epochs")
    answer = make(folder, "update", f"FROM={template}")
    assert answer.returncode != 0
    assert "both sides changed these lines" in answer.stderr
    assert git(folder, "diff", "--name-only", "--diff-filter=U").split() == ["conf/trainer/default.yaml"]
    assert "max_epochs: 1 " in (folder / "conf/trainer/default.yaml").read_text()
    undo = answer.stderr.partition("undo it all with ")[2].splitlines()[0]
    subprocess.run(undo, shell=True, cwd=folder, check=True, capture_output=True)
    assert git(folder, "rev-parse", "HEAD") == before
    assert git(folder, "status", "--porcelain") == ""


def test_what_cannot_be_merged_is_a_line(template: Path, tmp_path: Path) -> None:
    folder = project(template, clone=True)
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    (other / "file").touch()
    commit(other, "Other")
    answers = [make(folder, "update", f"FROM={place}").stderr for place in ("", tmp_path / "nothing", other)]
    (folder / "train.py").write_text("")
    answers.append(make(folder, "update", f"FROM={template}").stderr)
    for answer, words in zip(
        answers, ("FROM= is missing", "no git repository", "shares no commit", "not committed"), strict=True
    ):
        assert words in answer
