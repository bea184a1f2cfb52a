"""The schemas by which editors check and complete conf/: fresh, and what they say of right and wrong files."""

import json
import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf
from referencing import Registry
from referencing.jsonschema import DRAFT202012

SCHEMAS = {path.name: json.loads(path.read_text()) for path in sorted((ROOT / "schemas").glob("*.json"))}
# One of a task of one's own may leave its schema out.
CONFIGS = [path for path in sorted((ROOT / "conf").rglob("*.yaml")) if "yaml-language-server" in path.read_text()]
REGISTRY: Any = Registry().with_resources(
    [(name, DRAFT202012.create_resource(schema)) for name, schema in SCHEMAS.items()]
)


def is_valid(content: Any, schema: str) -> bool:
    return bool(Draft202012Validator(SCHEMAS[schema], registry=REGISTRY).is_valid(content))


def named(path: Path) -> str:
    """The schema that a config names in its first line, or in the second after what Hydra reads."""
    found = re.match(r"(?:# @package \w+\n)?# yaml-language-server: \$schema=(\S+)\n", path.read_text())
    assert found, path
    schema = Path(os.path.normpath(path.parent / found[1]))
    assert schema.parent == ROOT / "schemas"
    return schema.name


def test_the_schemas_are_those_that_make_schemas_writes() -> None:
    made = runpy.run_path(str(ROOT / "schemas/make.py"))
    assert made["schemas"]() == SCHEMAS, "`make schemas` writes them anew"
    for name, schema in made["schemas"]().items():
        assert (ROOT / "schemas" / name).read_text() == made["text"](schema), "`make schemas` writes them anew"


@pytest.mark.slow  # not in a user's `make test`
def test_each_config_names_its_schema() -> None:
    assert sorted((ROOT / "conf").rglob("*.yaml")) == CONFIGS, "begin a file as those beside it do"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_config_is_valid(path: Path) -> None:
    assert is_valid(OmegaConf.to_container(OmegaConf.load(path)), named(path))


SGD = {"_target_": "torch.optim.SGD", "_partial_": True}


@pytest.mark.parametrize(
    ("schema", "content", "valid"),
    [
        ("optimizer.json", SGD | {"lr": 0.1}, True),
        ("optimizer.json", SGD | {"lr": "${oc.env:LR}"}, True),
        ("optimizer.json", SGD | {"lr": "???"}, True),
        ("optimizer.json", SGD | {"lr": {"_target_": "mine.rate"}}, True),
        ("optimizer.json", SGD | {"lr": 0}, False),
        ("optimizer.json", SGD | {"lr": "fast"}, False),
        ("optimizer.json", SGD | {"lr": {}}, False),
        ("optimizer.json", SGD | {"lrr": 0.1}, False),
        ("optimizer.json", SGD | {"betas": [0.9, 0.9]}, False),
        ("optimizer.json", SGD | {"defaults": ["adamw", "_self_"]}, True),
        ("optimizer.json", SGD | {"defaults": ["adamww"]}, False),
        ("optimizer.json", {"_target_": "torch.optim.AdamW", "betas": [0.9, 0.9]}, True),
        ("optimizer.json", {"_target_": "mine.Optimizer", "speed": "fast"}, True),
        ("optimizer.json", {"defaults": ["sgd"], "lr": -1}, False),
        ("scheduler.json", {}, True),
        ("trainer.json", {"defaults": ["default"], "accelerator": "tpuu"}, False),
        ("callbacks.json", {"progress": {"refresh_rate": 0}}, False),
        ("callbacks.json", {"progress": {"refresh_rate": 5}, "mine": {"_target_": "mine.Callback", "x": 1}}, True),
        ("train.json", {"seed": 1, "optimizer": {"lr": 0.5}, "hydra": {"mode": "MULTIRUN"}}, True),
        ("train.json", {"optimizer": {"lr": 0}}, False),
        ("train.json", {"name": "../x"}, False),
        ("train.json", {"defaults": [{"override /model": "mlp"}, "/hydra/sweeper/optuna"]}, True),
        ("train.json", {"defaults": [{"override /model": "mpl"}]}, False),
        ("train.json", {"defaults": [{"override hydra/job_logging": "none"}]}, True),
    ],
)
def test_what_is_right_and_wrong(schema: str, content: dict[str, Any], valid: bool) -> None:
    assert is_valid(content, schema) is valid
