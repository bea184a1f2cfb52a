"""Write the JSON schemas that editors check and complete the files of conf/ by: `make schemas`.

They come from the models in `options.py`, loosened: a file holds a part of the values, and `${...}` stands for any. A
group has a schema, `train.json` is for the files that hold the whole page or parts of it.
"""

import json
from pathlib import Path
from typing import Any

import hydra

import digits.options  # noqa: F401
import runlab.tracking.options
import runlab.training.options  # noqa: F401
from runlab.config.options import Options, Page
from runlab.config.resolvers import GROUPS
from runlab.config.validate import models

FOLDER = Path(__file__).parent
CONF = FOLDER.parent / "conf"
Schema = dict[str, Any]

REFERENCE: Schema = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}
PART: Schema = {"type": "object", "required": ["_target_"], "properties": {"_target_": {"type": "string"}}}
OF_HYDRA: Schema = {
    "_partial_": {"type": "boolean", "description": "true: whoever takes it supplies the missing arguments."},
    "_convert_": {"enum": ["none", "partial", "object", "all"], "description": "Which containers are made plain."},
    "_recursive_": {"type": "boolean", "description": "false: parts within are not made."},
    "_args_": {"type": "array", "description": "Positional arguments."},
}


def schemas() -> dict[str, Schema]:
    """Every schema by the name of its file."""
    groups = {group: group_schema(group) for group in GROUPS}
    page = {**fields(Page), "hydra": {"type": "object"}} | {group: {"$ref": f"{group}.json"} for group in GROUPS}
    whole = {"train": {"type": "object", "properties": {"defaults": defaults(""), **page}}}
    strings = {"type": "object", "additionalProperties": {"type": "string"}}
    others = {"defaults": composed(), "hydra": {}, "renamed": strings}
    return {f"{name}.json": schema for name, schema in (whole | groups | others).items()}


def group_schema(group: str) -> Schema:
    """What a file of a group may hold: the keys of one of its models, or those of another `_target_`."""
    here = (model for model in models() if model.of_group == group and model.target)
    found = sorted(here, key=lambda model: model.__module__)  # in whatever order these were imported
    keys = {"defaults": defaults(group)} if group not in ("callbacks", "logger") else {}
    known = [
        {
            "type": ["object", "null"],
            "description": model.__doc__,
            "properties": {**keys, "_target_": {"enum": [model.target]}, **OF_HYDRA, **fields(model)},
            "additionalProperties": False,
        }
        for model in found
    ]
    targets = [model.target for model in found]
    other = PART | {"properties": {"_target_": {"type": "string", "not": {"enum": targets}}}}
    one: Schema = {"anyOf": [*known, other]}
    if keys:
        return one
    return {
        "type": ["object", "null"],
        "properties": {"defaults": defaults(group)},
        "additionalProperties": one if found else {"type": "object"},
    }


def fields(model: type[Options]) -> Schema:
    return {name: loose(value) for name, value in model.model_json_schema()["properties"].items()}


def loose(value: Schema) -> Schema:
    """A value's schema, which also takes `${...}` and a part that is made when the run begins."""
    kept = {"description": value["description"]} if "description" in value else {}
    choices = [
        {key: loose(part) if key == "items" and part else part for key, part in choice.items() if key in KEPT}
        for choice in value.get("anyOf", [value])
    ]
    return {**kept, "anyOf": [*choices, REFERENCE, PART]}


KEPT = {"type", "enum", "const", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "items"}


def defaults(group: str) -> Schema:
    """Hydra's list of defaults in a file of a group: what else is composed."""
    own = ["_self_", *choices(CONF / group, "**/*.yaml")] if group else ["_self_"]
    kinds: list[Schema] = [{"enum": own}, {"$ref": "defaults.json"}]
    return {"type": "array", "description": "What else is composed.", "items": {"anyOf": kinds}}


def composed() -> Schema:
    """An entry of such a list that names a choice of another group."""
    folders = [path for path in sorted(CONF.rglob("*")) if path.is_dir()]
    every = {path.relative_to(CONF).as_posix(): found for path in folders if (found := choices(path))}
    theirs = [f"hydra/{path.name}" for path in (Path(hydra.__file__).parent / "conf/hydra").iterdir() if path.is_dir()]
    hydras = {*theirs, *(name for name in every if name.startswith("hydra"))}
    named: dict[str, Schema] = {name: {"type": ["string", "null"]} for name in sorted(hydras)}
    for name, found in every.items():
        if not name.startswith("hydra"):
            named[name] = {"anyOf": [{"enum": [*found, None]}, {"type": "array", "items": {"enum": found}}, REFERENCE]}
    keys = {f"{word}{name}": value for name, value in named.items() for word in WORDS}
    absolute = [f"/{name}/{choice}" for name, found in every.items() for choice in found]
    return {"anyOf": [{"enum": absolute}, {"type": "object", "properties": keys, "additionalProperties": False}]}


WORDS = ("", "/", "override ", "override /", "optional ")


def choices(folder: Path, pattern: str = "*.yaml") -> list[str]:
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob(pattern))


def text(schema: Schema) -> str:
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    for name, schema in schemas().items():
        (FOLDER / name).write_text(text(schema))
