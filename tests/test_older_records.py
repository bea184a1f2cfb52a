"""A run folder of an older version of the project: keys that it lacks, names that have changed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Cli

from runlab.load import load_run
from runlab.runs import older

QUICK = ["trainer=debug", "logger=none"]
QUICK += [f"~callbacks.{name}" for name in ("confusion_matrix", "weights", "train_batch", "mistakes", "pr_curves")]


@pytest.fixture
def config(quick_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The config that a finished run has recorded, and a function that writes it anew."""
    assert quick_cli(*QUICK, "model=mlp").returncode == 0
    monkeypatch.setattr(older, "_said", set())
    path = tmp_path / "run/.hydra/config.yaml"
    content = yaml.safe_load(path.read_text())
    return content, lambda: path.write_text(yaml.safe_dump(content))


def test_keys_that_it_lacks_are_those_of_conf(
    quick_cli: Cli, config: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content, write = config
    run = tmp_path / "run"
    for group, key in ((content, "fast_loop"), (content["data"], "per_image"), (content["model"], "dropout")):
        del group[key]
    write()
    said = "config.yaml: lacks fast_loop=True, data.per_image=False, model.dropout=0.1; taken from conf/\n"
    finished = quick_cli(*QUICK, "model=mlp", "resume=auto")
    assert (finished.returncode, "this run is finished" in finished.stdout) == (0, True), finished.stderr
    assert load_run(run).config.data.per_image is False
    assert capfd.readouterr().err == ""  # said once, in the command before
    older._said.clear()
    longer = quick_cli(f"resume={run}", "trainer.max_epochs=2", "data.per_image=false")
    assert (longer.returncode, longer.stderr.splitlines(True)[0]) == (0, f"{run}/.hydra/{said}")
    assert yaml.safe_load((run / ".hydra/config.yaml").read_text())["data"]["per_image"] is False


def test_names_that_have_changed(config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_cli: Cli) -> None:
    content, write = config
    content["model"]["_target_"] = "digits.older.nets.Perceptron"
    write()
    answer = quick_cli(f"resume={tmp_path}/run", "trainer.max_epochs=2")
    assert (answer.returncode, len(answer.stderr.splitlines())) == (1, 1), answer.stderr
    assert "model" in answer.stderr
    assert "digits.older.nets.Perceptron" in answer.stderr
    assert "conf/renamed.yaml" in answer.stderr
    shutil.copytree(older.CONF, tmp_path / "conf")
    names = {"digits.older": "digits.networks", "digits.older.nets": "digits.old", "digits.old": "digits.networks"}
    names |= {"digits.networks.Perceptron": "digits.networks.MLP", "digit": "nothing"}
    (tmp_path / "conf/renamed.yaml").write_text(yaml.safe_dump(names))
    monkeypatch.setattr(older, "CONF", tmp_path / "conf")
    assert type(load_run(tmp_path / "run").model.network).__name__ == "MLP"


REFUSED = [
    ("task=m", "task=m: a resumed run keeps its groups"),
    ("task=classification", "task=classification: a resumed run keeps its groups"),
    ("model=lenet", "model=lenet: a resumed run keeps its groups"),
    ("experiment=notebook", "experiment=notebook: a resumed run keeps its groups"),
    ("sweep=seeds", "sweep=seeds: a resumed run keeps its groups"),
    ("~callbacks.progress", "~callbacks.progress: a resumed run keeps its groups"),
    ("model.dropot=3", "model.dropot=3: the run to resume has no such option. Did you mean dropout?"),
    ("callbacks.weights.x=3", "callbacks.weights.x=3: the run to resume has no such option."),
]


def test_what_a_resumed_run_refuses(config: Any, tmp_path: Path, quick_cli: Cli) -> None:  # noqa: ARG001
    for typed, words in REFUSED:
        answer = quick_cli(f"resume={tmp_path}/run", typed)
        assert (answer.returncode, len(answer.stderr.splitlines())) == (1, 1), answer.stderr
        assert words in answer.stderr


def test_the_key_that_does_not_fit_is_named(quick_cli: Cli) -> None:
    for key, value in (("size", 14), ("channels", 3)):
        answer = quick_cli(f"model.{key}={value}", *QUICK)
        assert answer.returncode == 1
        assert answer.stderr.endswith(f"see model.{key}, data.{key}\n")


@pytest.mark.parametrize(("added", "finished"), [("momentum: 0.9", False), ("momentum: 0", True)])
def test_a_key_that_is_new_in_conf_is_no_setting_of_a_run_without_it(
    quick_cli: Cli, tmp_path: Path, added: str, finished: bool
) -> None:
    (file := tmp_path / "own/optimizer/mine.yaml").parent.mkdir(parents=True)
    file.write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.05\n")
    command = [f"--config-dir={tmp_path}/own", "optimizer=mine", "resume=auto", *QUICK]
    assert quick_cli(*command).returncode == 0
    file.write_text(f"{file.read_text()}{added}\n")
    again = quick_cli(*command)
    assert ("this run is finished" in again.stdout) == finished
    if not finished:
        assert again.returncode == 1
        assert "optimizer.momentum=0.9: the run to resume has None" in again.stderr
