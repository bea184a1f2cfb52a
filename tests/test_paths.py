"""Paths of the project are the project's, wherever a command is typed; typed ones start where they are typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PATH, ROOT, Compose
from omegaconf import OmegaConf

from runlab.config.check import check

QUICK = ["trainer=debug", "logger=none", "~callbacks.confusion_matrix"]


def typed_in(folder: Path, *arguments: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), PATH])}
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


@pytest.mark.parametrize("chdir", ["true", "false"])
@pytest.mark.slow
def test_from_another_folder(tmp_path: Path, chdir: str) -> None:
    (tmp_path / "mine").symlink_to(ROOT / "data")
    setting = [*QUICK, f"hydra.job.chdir={chdir}"]
    out = typed_in(tmp_path, *setting, "data.root=mine", "hydra.run.dir=out")
    assert "run folder     out\n" in out
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "out"}
    record = OmegaConf.load(tmp_path / "out/.hydra/config.yaml")
    assert record.data.root == f"{tmp_path}/mine"  # a notebook opens the run from anywhere
    before = json.loads((tmp_path / "out/metrics.json").read_text())

    resumed = typed_in(tmp_path, "resume=out", "trainer.max_epochs=2", f"hydra.job.chdir={chdir}")
    assert "run folder     out\n" in resumed
    assert json.loads((tmp_path / "out/metrics.json").read_text())["epoch"] == before["epoch"] + 1
    typed_in(tmp_path, *setting, "fit=false", "ckpt_path=out/checkpoints/best.ckpt", "hydra.run.dir=again")
    assert json.loads((tmp_path / "again/metrics.json").read_text())["epoch"] == before["epoch"] + 1


def test_what_conf_names_is_in_the_project(tmp_path: Path) -> None:
    asked = ["--cfg", "all", "--resolve", "data=image_folder", "data.num_classes=2", "logger=mlflow", "run_dir=x"]
    cfg = OmegaConf.create(typed_in(tmp_path, *asked))
    assert cfg.data.root == f"{ROOT}/photos"
    assert cfg.hydra.run.dir.startswith(f"{ROOT}/runs/default/")
    assert cfg.logger.mlflow.tracking_uri == f"sqlite:///{ROOT}/runs/mlflow.db"
    assert cfg.logger.mlflow.artifact_location == f"{ROOT}/runs/mlflow/default"


def test_a_path_in_a_file_of_ones_own_is_not_said_to_be_overruled(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/own.yaml").write_text("defaults: [mnist, _self_]\nroot: data\n")
    out = typed_in(tmp_path, "--config-dir=conf", *QUICK, "data=own", "hydra.run.dir=run")
    assert "overruled" not in out
    assert OmegaConf.load(tmp_path / "run/.hydra/config.yaml").data.root == f"{tmp_path}/data"


def test_typed_paths_are_absolute_after_the_check(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = check(composed("data.root=mine", "ckpt_path=a/b.ckpt", "resume=auto"), "digits.options")
    assert (cfg.data.root, cfg.ckpt_path, cfg.resume) == (f"{tmp_path}/mine", f"{tmp_path}/a/b.ckpt", "auto")
    kept = check(composed("data.root=s3://bucket/mine"), "digits.options")
    assert kept.data.root == "s3://bucket/mine"
    assert check(composed("data.root=${run_dir}"), "digits.options").data.root == str(tmp_path / "run")
