"""What the models of a config's values promise: they agree with the code, and say all that is wrong at once."""

import inspect
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import wandb
from conftest import Compose, status_of
from hydra.utils import get_object
from omegaconf import OmegaConf, open_dict
from torch.utils.tensorboard import SummaryWriter

import digits.options
import runlab.tracking.options
import runlab.training.options  # noqa: F401
from runlab.config.check import check
from runlab.config.messages import UserError
from runlab.config.options import Options
from runlab.config.signatures import refuse, wrong_arguments
from runlab.config.validate import models
from runlab.runs.older import up_to_date
from runlab.tracking.loggers import build_loggers
from runlab.training.build import build_task
from runlab.training.schedulers import OF_LIGHTNING

MODELS = sorted({model for model in models() if model.target}, key=lambda model: model.target)
OURS = [model for model in MODELS if model.__module__.endswith("options")]
FURTHER: dict[str, Any] = {  # where a class hands on what it does not take itself
    "runlab.tracking.loggers.TensorBoardLogger": SummaryWriter,
    "runlab.tracking.loggers.WandbLogger": wandb.init,
}
NOT_TYPED = {"options", "kwargs", "obj", "log_dir", "experiment", "anonymous"}
SUPPLIED = {"callbacks", "logger", "params", "optimizer", "total_steps", *OF_LIGHTNING}  # by the engine or the task


@pytest.mark.parametrize("model", OURS, ids=[model.target for model in OURS])
def test_a_model_has_the_arguments_of_its_target(model: type[Options]) -> None:
    target = get_object(model.target)
    arguments = dict(inspect.signature(target).parameters)
    if any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values()):  # they go to the parent class
        parent = next(c for c in target.__mro__[1:] if c.__module__.startswith("lightning") and "__init__" in vars(c))
        further = [inspect.signature(parent).parameters, inspect.signature(FURTHER.get(model.target, id)).parameters]
        arguments = {**further[1], **further[0], **arguments}
        arguments = {name: value for name, value in arguments.items() if name not in NOT_TYPED}
    needed = {name for name, argument in arguments.items() if argument.default is argument.empty}
    names = set(model.model_fields)
    if model.of_group != "task":
        names, needed, taken = names - SUPPLIED, needed - SUPPLIED, set(arguments) - SUPPLIED
    else:
        taken = set(arguments)
    assert names == taken
    assert model.may_lack or names == needed


def test_each_field_has_a_sentence() -> None:
    for model in models():
        for name, field in model.model_fields.items():
            assert (field.description or "").endswith("."), f"{model.__name__}.{name}"


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = ["seed=-1", "optimizer.lr=x", "+optimizer.momentun=0.5", "data.folds=5", "data.size=2.5", "fit=false"]
    assert status_of(*wrong, f"hydra.run.dir={tmp_path}/run") == 1
    assert [line.split(":")[0] for line in capfd.readouterr().err.splitlines()] == [
        "seed=-1",
        "fit=false",
        "data.size=2.5",
        "data.fold=null",
        "optimizer.lr=x",
        "optimizer.momentun=0.5",
    ]


# A change of one value, by an interpolation or a part that is made when the run begins -> what is said of it.
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.momentum=${optimizer.lr}"], None),
        (["optimizer.lr=4", "optimizer.momentum=${optimizer.lr}"], "optimizer.momentum=4: must be number >= 0 < 1"),
        (["data.num_classes={_target_: builtins.len, _args_: [[0, 1]]}"], None),
        (["trainer.precision=16", "trainer.devices=[0, 1]", "+trainer.val_check_interval=0.5"], None),
        (["trainer.max_epochs=-1", "trainer.max_steps=9"], None),
        (["+mine=3", "optimizer.lr=${mine}"], None),
        (["optimizer._target_=torch.optim.Adam", "optimizer.lr=-1"], "optimizer.lr=-1: must be number > 0"),
        (["trainer._target_=mine.Trainer", "trainer.devices=0"], "trainer.devices=0: must be integer >= 1 or list"),
    ],
)
def test_resolved_values_are_checked(composed: Compose, overrides: list[str], said: str | None) -> None:
    cfg = composed(*overrides)
    if said is None:
        check(cfg)
        return
    with pytest.raises(UserError) as error:
        check(cfg)
    assert str(error.value).startswith(said)


LIGHT = """
import os
from typing import Literal

class Net:
    def __init__(self, width: int, kind: Literal["a", "b"], dropout: float | None = None, other=None): ...
"""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"width": 3, "kind": "a"}, []),
        ({"width": 3, "kind": "b", "dropout": 1, "other": object()}, []),
        ({"width": 3, "kind": "a", "dropout": None}, []),
        ({"widht": 3, "kind": "a"}, [
            "model.widht=3: no such argument of light.Net. Did you mean width? Choices: width, kind, dropout, other.",
            "model.width: missing, light.Net needs it; add +model.width=...",
        ]),
        ({"width": 3.5, "kind": "c"}, [
            "model.width=3.5: light.Net takes int",
            "model.kind=c: light.Net takes Literal['a', 'b']",
        ]),
        ({"width": True, "kind": "a", "dropout": "x"}, [
            "model.width=true: light.Net takes int",
            "model.dropout=x: light.Net takes float | None",
        ]),
        ({"_partial_": True, "kind": "a"}, []),
    ],
)  # fmt: skip
def test_a_target_without_a_model_is_checked_against_its_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, object], said: list[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "light", raising=False)
    (tmp_path / "light.py").write_text(LIGHT)
    (tmp_path / "heavy.py").write_text(f"import absent\n{LIGHT}")
    for name, light, expected in (("light", True, said), ("heavy", True, []), ("light", False, said)):
        part = {"_target_": f"{name}.Net", **given}
        wrong = dict(wrong_arguments("model", part, set(), light))
        with pytest.raises(UserError) if expected else nullcontext() as error:
            refuse(OmegaConf.create({"model": part}, flags={"allow_objects": True}), wrong)
        lines = str(error.value).splitlines() if error else []
        assert [line.partition(". Did")[0] for line in lines] == [line.partition(". Did")[0] for line in expected]
    assert "heavy" not in sys.modules


def test_a_heavy_target_is_checked_when_it_is_built(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed("optimizer._target_=torch.optim.RMSprop", "+optimizer.alhpa=0.9", "optimizer.momentum=x")
    with pytest.raises(UserError) as error:
        build_task(cfg)
    lines = str(error.value).splitlines()
    assert [line.partition(" Choices")[0] for line in lines] == [
        "optimizer.momentum=x: torch.optim.RMSprop takes float",
        "optimizer.nesterov=false: no such argument of torch.optim.RMSprop.",
        "optimizer.fused=true: no such argument of torch.optim.RMSprop.",
        "optimizer.alhpa=0.9: no such argument of torch.optim.RMSprop. Did you mean alpha?",
    ]
    monkeypatch.setattr("runlab.config.signatures._is_light", lambda _: False)
    check(cfg)  # as where torch is not imported


def test_the_example_has_models_of_its_own() -> None:
    assert digits.options.ImageData in MODELS


# A wrong value that comes from the environment, as a number, in a list or in an argument -> the line that names it.
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.folds=5", "data.fold=SECRET"], "data.fold=SECRET: must be less than data.folds, as the first is 0"),
        (["data.folds=SECRET", "data.fold=73917"], "data.fold=73917: must be less than data.folds, as the first is 0"),
        (["trainer.max_epochs=SECRET", "+trainer.min_epochs=73918"], "trainer.min_epochs=73918: more than trainer.max"),
        (["optimizer=adamw", "optimizer.betas=[SECRET,0.9]"], "optimizer.betas=['SECRET', 0.9]: must be list of 2"),
        (
            ["trainer.plugins=[{_target_: mine.Plugin, _args_: []},{_target_: digits.options.Linear, x: SECRET}]"],
            "trainer.plugins.1.x=SECRET: no such argument of digits.options.Linear.",
        ),
        (["+logger.tensorboard.flush_sec=SECRET"], "logger.tensorboard.flush_sec=SECRET: no such option."),
        (["+sead=SECRET"], "sead=SECRET: no such option"),
    ],
)
def test_no_line_shows_what_comes_from_the_environment(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, overrides: list[str], said: str
) -> None:
    monkeypatch.setenv("NUMBER", "73917")
    reference = "${oc.decode:${oc.env:NUMBER}}"
    cfg = composed(*(override.replace("SECRET", f"'{reference}'") for override in overrides))
    with pytest.raises(UserError) as error:
        check(cfg)
    assert str(error.value).startswith(said.replace("SECRET", reference))
    if "73917" not in said:
        assert "73917" not in str(error.value)


LOGGERS = ["tensorboard", "csv", "mlflow", "wandb"]


@pytest.mark.parametrize("name", LOGGERS)
def test_a_misspelt_argument_of_a_logger_is_named(composed: Compose, name: str) -> None:
    check(composed(f"logger={name}"))
    with pytest.raises(UserError, match=rf"^logger\.{name}\.prefxi=x: no such option\. Did you mean \S+\.prefix\?"):
        check(composed(f"logger={name}", f"+logger.{name}.prefxi=x"))


@pytest.mark.parametrize(
    ("launcher", "typed", "said"),
    [
        ("local", "+hydra.launcher.n_job=2", "hydra.launcher.n_job: no such option. Did you mean n_jobs?"),
        ("local", "hydra.launcher.n_jobs=x", "hydra.launcher.n_jobs: Value 'x' of type 'str' could not be converted"),
        ("slurm", "+hydra.launcher.mem_gbb=2", "hydra.launcher.mem_gbb: no such option. Did you mean mem_gb?"),
    ],
)
def test_a_wrong_option_of_a_launcher_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], launcher: str, typed: str, said: str
) -> None:
    sweep = ["-m", f"hydra/launcher={launcher}", f"hydra.sweep.dir={tmp_path}/sweep", typed, "seed=0,1"]
    assert status_of(*sweep) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(said)
    assert not (tmp_path / "sweep").exists()


def test_a_logger_without_a_model_is_checked_when_it_is_built(composed: Compose) -> None:
    cfg = composed("logger=csv", "logger.csv._target_=lightning.pytorch.loggers.CSVLogger", "+logger.csv.prefxi=x")
    with pytest.raises(UserError, match=r"^logger\.csv\.prefxi=x: no such argument of .*Did you mean prefix\?"):
        build_loggers(cfg, {})


@pytest.mark.parametrize(("overrides", "lacks"), [("[nope=1]", "ckpt_strict=True"), ("[]", "ckpt_strict=True, callb")])
def test_a_record_takes_what_it_lacks_also_where_its_overrides_no_longer_fit(
    composed: Compose, tmp_path: Path, capfd: pytest.CaptureFixture[str], overrides: str, lacks: str
) -> None:
    record = composed("~callbacks.mistakes")
    with open_dict(record):
        del record["ckpt_strict"]
    (tmp_path / "overrides.yaml").write_text(overrides)
    assert up_to_date(record, tmp_path / "config.yaml").ckpt_strict is True
    assert f"lacks {lacks}" in capfd.readouterr().err
