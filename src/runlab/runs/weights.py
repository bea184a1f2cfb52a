"""Weights that fit: of a compiled network or the plain one, and of another head, as far as they fit."""

import sys
from pathlib import Path
from typing import Any

from lightning import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.nn.parameter import is_lazy

from runlab.config.messages import UserError, listed
from runlab.config.processes import rank_zero

SHOWN = 4  # names in a line


def put(weights: dict[str, Any], into: nn.Module, path: str | Path, strict: bool) -> None:
    """Load weights by their names, with or without `_orig_mod.`, which `torch.compile` puts into them.

    `UserError` where names or shapes differ, or, if not `strict`, where none is alike; then what is taken and what is
    left is printed. `path` is where they come from.
    """
    own = into.state_dict()
    names = {name.replace("_orig_mod.", ""): name for name in own}
    given = {names.get(plain := name.replace("_orig_mod.", ""), plain): value for name, value in weights.items()}
    shapes = {name: (_shape(given[name]), _shape(own[name])) for name in own if name in given}
    other = {name: pair for name, pair in shapes.items() if None not in pair and pair[0] != pair[1]}
    missing, unused = [name for name in own if name not in given], [name for name in given if name not in own]
    if not strict:
        taken = {name: value for name, value in given.items() if name in own and name not in other}
        if not taken:
            raise UserError(f"{path}: none of its weights fits this network; name another")
        into.load_state_dict(taken, strict=False)
        if rank_zero():
            left = listed([name for name in own if name not in taken], SHOWN) or "none"
            words = f"{len(taken)} of {len(own)} weights are taken; left as they begin: {left}"
            print(f"{path}: {words}; not used: {listed([*other, *unused], SHOWN) or 'none'}", file=sys.stderr)
        return
    if partial := not getattr(into, "strict_loading", True):  # a LightningModule that saves a part of its weights
        missing, unused = [], []
    wrong = [f"{name} is {there} there, {here} here" for name, (there, here) in other.items()]
    parts = {"": wrong, "not there: ": missing, "not here: ": unused}
    if found := "; ".join(words + listed(names, SHOWN) for words, names in parts.items() if names):
        way_out = "choose its model=..., restore its code, or train with what fits: ckpt_path=... ckpt_strict=false"
        if unused and isinstance(into, LightningModule) and is_overridden("setup", into):
            way_out += (
                f"; layers that {type(into).__name__}.setup makes are not there yet: make them in configure_model"
            )
        raise UserError(f"{path}: the weights of another network: {found}; {way_out}")
    into.load_state_dict(given, strict=not partial)


def _shape(weight: Any) -> tuple[int, ...] | None:
    """The shape of a tensor that has one."""
    return None if is_lazy(weight) or not hasattr(weight, "shape") else tuple(weight.shape)
