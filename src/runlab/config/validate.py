"""The values of a config against the models of what they may be: what is wrong with each."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from runlab.config.messages import suggest
from runlab.config.options import FilePath, Options, Page
from runlab.config.resolvers import GROUPS, shown
from runlab.config.signatures import OF_HYDRA, parts, wrong_arguments


def models(parent: type[Options] = Options) -> Iterator[type[Options]]:
    """Every model that has been imported."""
    for model in parent.__subclasses__():
        yield model
        yield from models(model)


Part = tuple[str, type[Options] | None, dict[str, Any], dict[str, Any]]


def modelled(cfg: DictConfig) -> Iterator[Part]:
    """The page and each mapping with a `_target_`: its key, its model, what is in it before and after resolving."""
    raw: Any = OmegaConf.to_container(cfg)
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    yield "", Page, raw, {key: value for key, value in values.items() if key not in GROUPS}
    exact = {model.target: model for model in models() if model.target}
    of_group = {model.of_group: model for model in models() if not model.target}
    for key, before, part in parts(raw, values):
        yield key, exact.get(part["_target_"], of_group.get(key)), before, part


def wrong_values(cfg: DictConfig, found: Iterable[Part]) -> dict[str, str]:
    """What is wrong with the values of a composed config, by their keys; `found` are its parts."""
    wrong: dict[str, str] = {}
    raw: dict[str, str] = {}
    for key, model, before, part in found:
        prefix = f"{key}." if key else ""
        raw |= {f"{prefix}{name}": str(value) for name, value in before.items()}
        if model:
            wrong |= _wrong(model, part, prefix)
        if key and not (model and model.target):
            wrong |= wrong_arguments(key, part, model.model_fields if model else (), light=True)
        if not key:  # a value of the user's own that is near one of ours is misspelt, unless something refers to it
            for name in part.keys() - Page.model_fields.keys():
                if f"${{{name}" not in str(before) and difflib.get_close_matches(name, Page.model_fields):
                    wrong[name] = f"no such option, and nothing refers to it.{suggest(name, Page.model_fields)}"
    for group in ("callbacks", "logger"):
        for name, entry in cfg[group].items():
            if not isinstance(entry, DictConfig) or "_target_" not in entry:
                wrong[f"{group}.{name}"] = f"has no _target_.{suggest(str(name), set(cfg[group]) - {name})}"
    said = re.compile(rf"[{{:]({'|'.join(map(re.escape, wrong))})\b")  # ${data.size}, where data.size is wrong itself
    return {key: text for key, text in wrong.items() if not said.search(raw.get(key, ""))}


def relative_paths(found: Iterable[Part]) -> Iterator[tuple[str, str]]:
    """The key and the value of each path that a model knows and that is relative."""
    for key, model, before, _ in found:
        for name, hint in get_type_hints(model, include_extras=True).items() if model else ():
            path = before.get(name)
            if not (FilePath in (hint, *get_args(hint)) and isinstance(path, str) and path != "auto"):
                continue
            if not re.match(r"/|.*(\$\{|://)", path):
                yield f"{key}.{name}" if key else name, path


def _wrong(model: type[Options], part: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """What of these values is wrong; of a model for any target no key is unknown or missing."""
    values = {name: value for name, value in part.items() if name not in OF_HYDRA}
    try:
        model.model_validate(values)
        return
    except ValidationError as invalid:
        errors = {str(error["loc"][0]): error for error in reversed(invalid.errors(include_url=False))}
    schema = model.model_json_schema()["properties"]
    for name, error in reversed(errors.items()):
        key, value = f"{prefix}{name}", values.get(name)
        if said := error.get("ctx", {}).get("error"):
            yield key, str(said)
        elif error["type"] == "extra_forbidden":
            if model.target:
                yield key, f"no such option.{suggest(key, [f'{prefix}{known}' for known in model.model_fields])}"
        elif error["type"] == "missing":
            if model.target and not model.may_lack:
                yield key, f"missing; must be {allowed(schema[name])}"
        elif not (isinstance(value, dict) and "_target_" in value):  # else it is made when the run begins
            yield key, f"must be {allowed(schema[name])}"


def allowed(schema: dict[str, Any]) -> str:
    """What a JSON schema allows, in words: `integer >= 1 or null`."""
    if "anyOf" in schema:
        return " or ".join(map(allowed, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return " or ".join(dict.fromkeys(map(shown, schema.get("enum", [schema.get("const")]))))
    kind = schema.get("format") or schema.get("type", "anything")
    words = {"boolean": "true or false", "string": "text", "object": "a mapping", "array": "list"}.get(kind, kind)
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    bounds = [f" {sign} {schema[bound]:.10g}" for bound, sign in signs.items() if bound in schema]
    count = f" of {schema['minItems']}, each" if "minItems" in schema else " of"
    items = f"{count} {allowed(schema['items'])}" if schema.get("items") else ""
    return f"matching {schema['pattern']}" if "pattern" in schema else words + "".join(bounds) + items
