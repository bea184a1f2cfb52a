"""What `--help GROUP` prints: a group's values, what each must be, and what it is."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runlab.config.messages import UserError, suggest
from runlab.config.resolvers import GROUPS, shown


def group_help(argv: list[str], conf: Path, *modules: str) -> bool:
    """Print the page of the group that a command asks for, `--help optimizer optimizer=adamw`; False if it asks none.

    `train` is the group of those values that belong to no other. `modules` hold the models.
    """
    words = [word for word in argv[1:] if "=" not in word and not word.startswith("-")]
    if not words or not {"--help", "-h"} & set(argv):
        return False
    if (group := words[0]) not in (*GROUPS, "train"):
        raise UserError(f"--help {group}: no such group.{suggest(group, ('train', *GROUPS))}")
    for module in modules:
        importlib.import_module(module)
    with initialize_config_dir(str(conf.absolute()), version_base=None):
        cfg = compose("train", [word for word in argv[1:] if "=" in word])
    raw: Any = OmegaConf.to_container(cfg)
    choices = sorted(path.stem for path in (conf / group).glob("*.yaml"))
    if choices:
        print(f"{group}={' or '.join(choices)}; this is what it holds with the choices of this command\n")
    if group == "train":
        rows = [*_rows("", {key: value for key, value in raw.items() if key not in GROUPS})]
    else:
        rows = [*_rows(group, raw[group])]
    width = [max(len(row[column]) for row in rows if len(row) > 1) if rows else 0 for column in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width[i]) if i < 3 else cell for i, cell in enumerate(row)) if row[1:] else row[0])
    return True


def _rows(key: str, values: Any) -> Iterator[tuple[str, ...]]:
    """Headings, and for each value its key as it is typed, the value, what it must be, and a sentence."""
    from runlab.config.options import Page
    from runlab.config.signatures import OF_HYDRA
    from runlab.config.validate import allowed, models

    if not isinstance(values, dict):
        return
    target = values.get("_target_", "")
    model = next((model for model in models() if model.target == target), None) if key else Page
    if key and not target:
        for name, part in values.items():
            yield from _rows(f"{key}.{name}", part)
        return
    if target:
        yield (f"{target}: {model.__doc__ if model else 'it has no model, see its own documentation'}",)
    properties = model.model_json_schema()["properties"] if model else {}
    for name in dict.fromkeys([*values, *properties]):
        if name in OF_HYDRA:
            continue
        value, schema = values.get(name), properties.get(name, {})
        text = str(value.get("_target_", "{...}")) if isinstance(value, dict) else shown(value)
        typed = f"{key}.{name}" if key else str(name)
        row = (typed, text if len(text) <= 40 else f"{text[:37]}...") if name in values else (f"+{typed}", "")
        yield (*row, allowed(schema) if schema else "", schema.get("description", ""))
    yield ("",)
