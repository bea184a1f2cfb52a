"""What comes from the environment, `${oc.env:NAME}`: it is used where it is needed, and never written out."""

import os
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

_typed: dict[str, str] = {}  # values that were read from the environment -> as they are typed
_reads: list[str] = []  # the names that were read, one after the other
_OURS = "RUN_START"  # the engine sets it: the time that names a run folder


def _env(key: str, *default: Any) -> str | None:
    """OmegaConf's `oc.env`, which remembers what it has read."""
    if key in os.environ and key != _OURS:
        _reads.append(key)
        _typed[os.environ[key]] = f"${{oc.env:{key}}}"
    return oc.env(key, *default)


OmegaConf.register_new_resolver("oc.env", _env, replace=True)


def as_written(config: Any) -> Any:
    """A config as plain dicts and lists, resolved, but for what comes from the environment: that stays as typed."""
    raw: Any = OmegaConf.to_container(config, resolve=False)
    if not isinstance(config, DictConfig):
        return [_value(config, number, text) for number, text in enumerate(raw or [])]
    return {key: _value(config, key, text) for key, text in (raw or {}).items()}


def _value(config: Any, key: Any, text: Any) -> Any:
    if OmegaConf.is_missing(config, key):
        return text
    before = len(_reads)
    value = config[key]
    if len(_reads) > before:  # in whatever way: ${a} that is ${oc.env:A}, oc.decode, oc.create
        return text
    return as_written(value) if OmegaConf.is_config(value) else value


def written_value(config: DictConfig, key: str, default: Any = None) -> Any:
    """The value of `data.batch_size` or another key as `as_written` writes it; `default` where there is none."""
    group, _, last = key.rpartition(".")
    node = OmegaConf.select(config, group) if group else config
    if not isinstance(node, DictConfig) or last not in node:
        return default
    raw: Any = OmegaConf.to_container(node, resolve=False)
    return _value(node, last, raw[last])


def masked(text: str) -> str:
    """A text in which the values from the environment stand as they are typed.

    Values of fewer than six characters stay, as each 1 would have to go, and paths that exist.
    """
    for value in sorted(_typed, key=len, reverse=True):
        if len(value) >= 6 and not (value.startswith("/") and os.path.exists(value)):  # noqa: PTH110
            text = text.replace(value, _typed[value])
    return text


def masked_values(value: Any) -> Any:
    """Nested dicts and lists whose texts are `masked`."""
    if isinstance(value, dict):
        return {key: masked_values(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(masked_values(item) for item in value)
    return masked(value) if isinstance(value, str) else value
