"""What `--help GROUP` prints: a group's values, what each must be, and what it is."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runlab.config.messages import UserError, suggest
from runlab.config.resolvers import GROUPS, shown, without_null_groups


def group_help(argv: list[str], conf: Path, *modules: str) -> bool:
    """Print the page of the group that a command asks for, `--help optimizer optimizer=adamw`; False if it asks none.

    `train` is the group of those values that belong to no other. `modules` hold the models.
    """
    argv = without_null_groups(argv)
    words = [word for word in argv[1:] if "=" not in word and not word.startswith(("-", "~"))]
    if not words or not {"--help", "-h"} & set(argv):
        return False
    if (group := words[0]) not in (*GROUPS, "train"):
        raise UserError(f"--help {group}: no such group.{suggest(group, ('train', *GROUPS))}")
    for module in modules:
        importlib.import_module(module)
    from runlab.config.options import Page  # here, so that an answer without it does not wait for pydantic
    from runlab.config.signatures import parts
    from runlab.config.validate import models

    with initialize_config_dir(str(conf.absolute()), version_base=None):
        overrides = [word for word in argv[1:] if "=" in word or word.startswith("~")]
        raw: Any = OmegaConf.to_container(compose("train", overrides))
    if choices := sorted(path.stem for path in (conf / group).glob("*.yaml")):
        print(f"{group}={' or '.join(choices)}; this is what it holds with the choices of this command")
    page = {key: value for key, value in raw.items() if key not in GROUPS}
    known = {model.target: model for model in models()}
    found = [(key, known.get(part["_target_"]), part) for key, part, _ in parts(raw.get(group), raw.get(group), group)]
    for key, model, part in found if group in GROUPS else [("", Page, page)]:
        print(f"\n{part['_target_']}: {model.__doc__ if model else 'see its own documentation'}" if key else "")
        rows = [*_rows(f"{key}." if key else "", part, model.model_json_schema()["properties"] if model else {})]
        width = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width[i]) for i, cell in enumerate(row)).rstrip())
    return True


def _rows(prefix: str, values: dict[str, Any], known: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """For each value its key as it is typed, the value, what it must be by its schema in `known`, and a sentence."""
    from runlab.config.signatures import OF_HYDRA
    from runlab.config.validate import allowed

    for name in (name for name in dict.fromkeys([*values, *known]) if name not in OF_HYDRA):
        value, schema = values.get(name, ""), known.get(name, {})
        text = str(value.get("_target_", "{...}")) if isinstance(value, dict) else shown(value)
        typed = f"{'+' * (name not in values)}{prefix}{name}"
        yield (
            typed,
            text if len(text) <= 40 else f"{text[:37]}...",
            allowed(schema) if schema else "",
            schema.get("description", ""),
        )
