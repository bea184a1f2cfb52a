"""What comes from the environment is used and never written out: no file of a run holds its value."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from omegaconf import OmegaConf

from runlab.config.secrets import as_written, masked

SECRET, NUMBER = "hunter2-Zq9", "3718293846"  # so long that no clock shows it by chance
OPTIONS = [
    *(f"~callbacks.{name}" for name in ("confusion_matrix", "weights", "train_batch", "mistakes", "pr_curves")),
    "+note=${oc.env:SECRET}",
    "+again=${note}",
    "+prefixed=user:${note}@host",
    "+decoded='${oc.decode:${oc.env:SECRET}}'",
    "+created={inner: {key: '${oc.create:{a: ${note}}}'}}",
    "+list=[a,'${oc.env:SECRET}']",
    "seed='${oc.decode:${oc.env:NUMBER}}'",
    "hyperparameters=[note,again,prefixed,decoded,seed]",
]
KEEPER = ["~task", "+task._target_=noisy.Keeper", "+task.lr=0.1", "+task.token=${oc.env:SECRET}", "+task.fails=false"]
KEEPER += ["~data", "+data._target_=mine.Mine", "+data.num_classes=10", "+data.batch_size=64", "monitor=null"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("NUMBER", NUMBER)


def holding(folder: Path) -> Iterator[str]:
    """The files and folders below `folder` that have a secret in them or in their names."""
    for path in folder.rglob("*"):
        held = path.read_bytes() if path.is_file() else b""
        if any(value in path.name or value.encode() in held for value in (SECRET, NUMBER)):
            yield str(path)


def loggers(tmp_path: Path) -> list[str]:
    store = f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/mlflow.db"
    return ["logger=[tensorboard,csv,mlflow,wandb]", store, f"logger.mlflow.artifact_location={tmp_path}/artifacts"]


@pytest.mark.parametrize("options", [OPTIONS, KEEPER], ids=["the example", "a module that keeps its arguments"])
def test_no_file_of_a_run_holds_it(quick_cli: Cli, tmp_path: Path, options: list[str]) -> None:
    answer = quick_cli("trainer=debug", *options, *(loggers(tmp_path) if options is OPTIONS else []))
    assert answer.returncode == 0, answer.stderr
    assert list(holding(tmp_path)) == []
    record = (tmp_path / "run/.hydra/config.yaml").read_text()
    assert "${oc.env:SECRET}" in record
    if options is OPTIONS:
        assert json.loads((tmp_path / "run/provenance.json").read_text())["seed"] == "${oc.decode:${oc.env:NUMBER}}"
        resumed = quick_cli(f"resume={tmp_path}/run", "trainer.max_epochs=2", "+extra=${oc.env:SECRET}")
        assert resumed.returncode == 0, resumed.stderr
        assert list(holding(tmp_path)) == []
        assert "extra: ${oc.env:SECRET}" in (tmp_path / "run/.hydra/config.yaml").read_text()


def test_no_file_of_a_sweep_holds_it(quick_cli: Cli, tmp_path: Path) -> None:
    swept = ["-m", "+label='${oc.env:SECRET}',plain", "+task.fails=false,true", "trainer=debug"]
    answer = quick_cli(*swept, *[option for option in KEEPER if "fails" not in option], "logger=csv")
    assert answer.returncode == 1
    assert "2 of this sweep's jobs: failed" in answer.stderr
    assert "no such token: ${oc.env:SECRET}" in answer.stderr
    assert SECRET not in answer.stdout + answer.stderr
    assert list(holding(tmp_path)) == []
    assert len(list((tmp_path / "sweep").glob("*/metrics.json"))) == 2
    assert len(list((tmp_path / "sweep").glob("*/ended.json"))) == 2
    assert (tmp_path / "sweep/results.csv").read_text().count("${oc.env:SECRET}") >= 2


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("name=${oc.env:SECRET}", "name=${oc.env:SECRET}: comes from the environment, and folders have it in their"),
        ("optimizer.lr=${oc.env:SECRET}", "optimizer.lr=${oc.env:SECRET}: must be number > 0"),
        (
            "optimizer.momentum='${oc.decode:${oc.env:NUMBER}}'",
            "momentum=${oc.decode:${oc.env:NUMBER}}: must be number",
        ),
        ("trainer.precision=${oc.env:SECRET}", "${oc.env:SECRET}"),
        ("ckpt_path=${oc.env:SECRET}", "${oc.env:SECRET}: no such checkpoint"),
    ],
)
def test_no_message_shows_it(quick_cli: Cli, typed: str, answer: str) -> None:
    ended = quick_cli(typed, "trainer=debug", "logger=none")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert answer in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    assert NUMBER not in ended.stdout + ended.stderr


def test_what_is_written_is_resolved_but_for_the_environment() -> None:
    values: dict[str, Any] = {"a": 1, "b": "${a}", "c": {"d": ["${a}", "${oc.env:SECRET}"]}, "e": "${c}", "f": "???"}
    values["g"] = "${oc.env:NO_SUCH_NAME,default}"
    written = {"d": [1, "${oc.env:SECRET}"]}
    assert as_written(OmegaConf.create(values)) == {
        **{"a": 1, "b": 1, "c": written, "e": written, "f": "???", "g": "default"}
    }


def test_short_values_and_paths_stay_in_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("SHORT", "1")
    OmegaConf.to_container(OmegaConf.create(["${oc.env:FOLDER}", "${oc.env:SHORT}", "${oc.env:SECRET}"]), resolve=True)
    assert masked(f"{tmp_path} 1 {SECRET}") == f"{tmp_path} 1 ${{oc.env:SECRET}}"
