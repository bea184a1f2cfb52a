"""What this project relies on in Hydra beyond its public ways, and how it fares with the next Hydra."""

import copy
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from conftest import PATH, ROOT, Compose, install
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import runlab.config.startup  # noqa: F401  # patches the store


def as_text(part: Any) -> Any:
    return (
        {key: as_text(value) for key, value in part.items()} if isinstance(part, dict) else OmegaConf.to_yaml(part.node)
    )


def test_the_patch_of_the_store_is_needed_and_does_no_harm(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Composing asks for copies of the store, and leaves the one that it is given as it was.

    Where nothing is asked, as with Hydra 1.4, it copies no more: delete the patch in `runlab.config.startup`.
    """
    assert copy.deepcopy(ConfigStore.instance()) is ConfigStore.instance()
    asked: list[ConfigStore] = []

    def uncopied(store: ConfigStore, _: Any) -> ConfigStore:
        asked.append(store)
        return store

    monkeypatch.setattr(ConfigStore, "__deepcopy__", uncopied)
    composed()  # finds the plugins, which add to the store
    before = as_text(ConfigStore.instance().repo)
    composed("optimizer=adamw", "sweep=optuna", "hydra.job.chdir=true")
    assert bool(asked) is version("hydra-core").startswith("1.3.")
    assert as_text(ConfigStore.instance().repo) == before


@pytest.mark.registry
def test_the_next_hydra(tmp_path: Path) -> None:
    """The quick tests with the release candidate of Hydra 1.4, in front of what is installed.

    Its warnings are for Hydra 1.5: `version_base`, `register_new_resolver`, `instantiate` without a whitelist. Sweeps
    are left out: our sweepers append to a list that is read-only there, and `hydra.mode` may no longer stand in
    conf/sweep/. When 1.4 is out, those are what is to be done.
    """
    install(tmp_path / "next", "--prerelease", "allow", "hydra-core>=1.4.0rc1,<1.5")
    path = os.pathsep.join([str(tmp_path / "next"), str(ROOT / "src"), str(ROOT), PATH])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    asked = subprocess.run(
        [sys.executable, "-c", "import hydra; print(hydra.__version__)"], env=env, capture_output=True, text=True
    )
    assert asked.stdout.startswith("1.4.")
    files = [f"tests/test_{name}.py" for name in ("cli", "options", "schemas", "hydra", "startup")]
    chosen = ["-m", "not registry", "-k", "not sweep and not cross_validation and not launcher"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-W", "ignore", *chosen, *files]
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
