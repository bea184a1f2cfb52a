"""`ckpt_path`: weights that fit are taken, of a compiled network too; anything else is answered in a line."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Compose
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from test_cases import contents, interrupt, mine
from test_resume import assert_equal
from torch import Tensor, nn

from runlab.config.messages import UserError
from runlab.load import load_run
from runlab.runs.weights import put
from train import train

EAGER: Any = partial(torch.compile, backend="eager")  # needs no compiler


def in_place(module: nn.Module) -> None:
    """As `Module.compile`, but for the backend."""
    module._compiled_call_impl = EAGER(module._call_impl)


@pytest.fixture
def composed(tmp_path: Path) -> Compose:
    """Compose the config for data of one's own; the run goes to a temporary folder."""

    def composed(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base=None):
            return compose("train", [f"run_dir={tmp_path}/run", *overrides])

    return composed


@pytest.fixture
def checkpoint(composed: Compose, tmp_path: Path) -> Path:
    """The best checkpoint of an MLP with three classes."""
    train(composed(*mine(num_classes=3), "model=mlp", "trainer.max_epochs=1", f"run_dir={tmp_path}/three"))
    return tmp_path / "three/checkpoints/best.ckpt"


HEAD = "network.7.weight is (3, 256) there, (10, 256) here, network.7.bias is (3,) there, (10,) here"


@pytest.mark.parametrize("fit", ["true", "false"])
def test_another_head_is_a_line_with_what_does_not_fit(
    composed: Compose, tmp_path: Path, checkpoint: Path, fit: str
) -> None:
    with pytest.raises(UserError) as caught:
        train(composed(*mine(), "model=mlp", f"fit={fit}", f"ckpt_path={checkpoint}"))
    assert str(caught.value) == (
        f"{checkpoint}: the weights of another network: {HEAD}; choose its model=..., restore its code, or"
        " train with what fits: ckpt_path=... ckpt_strict=false"
    )
    assert not (tmp_path / "run/metrics.json").exists()


def test_what_fits_is_taken_and_what_is_left_is_said(
    composed: Compose, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ["optimizer.lr=1e-30", "trainer.max_epochs=1"]
    train(composed(*mine(), "model=mlp", *still, f"ckpt_path={checkpoint}", "ckpt_strict=false"))
    assert capsys.readouterr().err == (
        f"{checkpoint}: 4 of 6 weights are taken; left as they begin: network.7.weight, network.7.bias;"
        " not used: network.7.weight, network.7.bias\n"
    )
    train(composed(*mine(), "model=mlp", *still, f"run_dir={tmp_path}/begun"))
    old, new, begun = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (checkpoint, tmp_path / "run/checkpoints/last.ckpt", tmp_path / "begun/checkpoints/last.ckpt")
    )
    for name, weight in new.items():
        assert torch.equal(weight, (begun if name.startswith("network.7") else old)[name])


def test_a_network_of_which_nothing_fits_is_a_line(composed: Compose, checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"best.ckpt: none of its weights fits this network; name another"):
        train(composed(*mine(), "model=lenet", f"ckpt_path={checkpoint}", "ckpt_strict=false"))
    with pytest.raises(UserError, match=r"not there: network.0.weight, network.0.bias, .* and 4 more; not here: "):
        train(composed(*mine(), "model=lenet", f"ckpt_path={checkpoint}"))


def state_dict(checkpoint: Path) -> None:
    """Replace a checkpoint by its weights alone."""
    torch.save(torch.load(checkpoint, weights_only=True)["state_dict"], checkpoint)


def compiled(checkpoint: Path) -> None:
    """Name the weights as those of a module that `torch.compile` has made."""
    content = torch.load(checkpoint, weights_only=True)
    weights = content["state_dict"].items()
    content["state_dict"] = {name.replace("network.", "network._orig_mod."): weight for name, weight in weights}
    torch.save(content, checkpoint)


@pytest.mark.parametrize("written", [state_dict, compiled])
def test_plain_and_compiled_weights_are_taken(
    composed: Compose, tmp_path: Path, checkpoint: Path, written: Callable[[Path], None]
) -> None:
    three = [*mine(num_classes=3), "model=mlp", "fit=false", f"ckpt_path={checkpoint}"]
    before = train(composed(*three, f"run_dir={tmp_path}/before"))
    written(checkpoint)
    after = train(composed(*three))
    assert (after["test/loss"], after["test/acc"]) == (before["test/loss"], before["test/acc"])
    assert (after["epoch"], after["global_step"]) == ((0, 0) if written is state_dict else (1, 20))


def write_json(path: Path) -> None:
    path.write_text('{"state_dict": 1}')


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_values(path: Path) -> None:
    torch.save({"weight": torch.ones(1), "lr": 0.1}, path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (write_json, "damaged, or holds more than tensors and plain values; name another"),
        (folder, "a folder; name a checkpoint in it, as .../checkpoints/best.ckpt"),
        (Path.unlink, "no such checkpoint; name another"),
        (other_values, "no checkpoint of this project, it holds no metrics; name another"),
        (partial(torch.save, [torch.ones(1)]), "no checkpoint of this project, it holds no metrics; name another"),
        (partial(torch.save, {}), "no checkpoint of this project, it holds no metrics; name another"),
    ],
)
@pytest.mark.parametrize("fit", ["true", "false"])
def test_what_is_no_checkpoint_is_a_line(composed: Compose, tmp_path: Path, damage: Any, words: str, fit: str) -> None:
    path = tmp_path / "x.ckpt"
    path.touch()
    damage(path)
    with pytest.raises(UserError, match=f"^{re.escape(f'{path}: {words}')}$"):
        train(composed(*mine(), f"fit={fit}", f"ckpt_path={path}"))


# Compiled networks
def test_names_are_alike_in_both_directions() -> None:
    plain, other = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
    wrapped = nn.Sequential(EAGER(nn.Linear(2, 2)))
    put(plain.state_dict(), wrapped, "x", strict=True)
    assert set(wrapped.state_dict()) == {"0._orig_mod.weight", "0._orig_mod.bias"}
    put(wrapped.state_dict(), other, "x", strict=True)
    assert_equal(dict(other.state_dict()), dict(plain.state_dict()))


def test_a_module_that_saves_a_part_of_its_weights_is_restored() -> None:
    class Part(nn.Linear):
        strict_loading = False

    module = Part(2, 2)
    put({"bias": torch.ones(2)}, module, "x", strict=True)
    assert module.bias.tolist() == [1, 1]
    with pytest.raises(UserError, match=r"bias is \(3,\) there, \(2,\) here"):
        put({"bias": torch.ones(3)}, module, "x", strict=True)


def test_a_lazy_layer_takes_its_shape() -> None:
    lazy = nn.LazyLinear(2)
    put(nn.Linear(3, 2).state_dict(), lazy, "x", strict=True)
    assert lazy.weight.shape == (2, 3)


@pytest.mark.parametrize("compiles", [(False, True), (True, False), (True, True)])
def test_a_compiled_run_is_resumed_with_either(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiles: tuple[bool, bool]
) -> None:
    calls = []

    def counting(module: nn.Module) -> None:
        in_place(module)
        calls.append(module)

    monkeypatch.setattr(nn.Module, "compile", counting)
    before, after = (f"task.compile={value}".lower() for value in compiles)
    setting = [*mine(), "model=mlp"]
    with pytest.raises(SystemExit):
        train(composed(*setting, before, interrupt(13)))
    assert len(calls) == compiles[0]
    train(composed(*setting, after, "resume=auto"))
    train(composed(*setting, f"run_dir={tmp_path}/straight"))
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))  # eager: the same bits
    run = load_run(tmp_path / "run")
    assert run.model.network._compiled_call_impl is None
    images: Tensor = run.data.set.tensors[0][:8]
    assert run.model(images).shape == (8, 10)
