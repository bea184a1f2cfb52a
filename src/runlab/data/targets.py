"""Find the targets of a data set or a batch, check them, and give them to samplers."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import ConcatDataset, Subset, TensorDataset, WeightedRandomSampler

from runlab.config.messages import UserError
from runlab.data.in_memory import InMemoryDataset


def visible_targets(dataset: Any) -> Tensor | None:
    """All targets of a data set, `(N,)` or `(N, ...)`, where they can be seen without reading a sample; else None."""
    if isinstance(dataset, ConcatDataset):
        parts = [visible_targets(part) for part in dataset.datasets]
        seen = [part for part in parts if part is not None]
        return torch.cat(seen) if len(seen) == len(parts) else None
    if isinstance(dataset, Subset):
        whole = visible_targets(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(dataset.indices, device=whole.device)]
    if isinstance(dataset, InMemoryDataset):
        return dataset.targets[dataset.indices]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1] if type(dataset).__getitem__ is TensorDataset.__getitem__ else None
    if getattr(dataset, "target_transform", None) is not None:  # a sample's target is another than the one in the list
        return None
    try:
        return torch.as_tensor(dataset.targets)
    except (AttributeError, TypeError, ValueError, RuntimeError):  # there are none, or they are no numbers
        return None


def call_sampler(factory: Callable[..., Any], dataset: Any, option: str) -> Any:
    """Call a sampler's factory with the indices of a data set, or with its targets if it takes `targets` first.

    `UserError` for a first parameter of another name: torch's WeightedRandomSampler would take indices for its weights.
    """
    samples = ("data_source", "dataset", "indices", "sampler")
    name = next(iter(inspect.signature(factory).parameters), "")
    if name in samples:
        return factory(range(len(dataset)))
    if name == "targets" and (targets := visible_targets(dataset)) is not None:
        return factory(targets.cpu())
    hint = "to draw all classes equally often, take runlab.data.targets.class_balanced"
    raise UserError(f"{option}: its first argument is {name}, not one of {', '.join(samples)}; {hint}")


def class_balanced(targets: Tensor, num_samples: int) -> WeightedRandomSampler:
    """A sampler that draws `num_samples` an epoch with replacement, each class with the same probability."""
    return WeightedRandomSampler((1 / targets.bincount())[targets].tolist(), num_samples)


def check_classes(targets: Tensor, classes: int, what: str) -> None:
    """`UserError` where targets, called `what`, are not `(N,)` whole numbers from 0 to `classes` - 1."""
    must = f"{what} must be 0 to {classes - 1}"
    if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
        raise UserError(f"{must}, whole numbers in one dimension, found {targets.dtype} {tuple(targets.shape)}")
    if len(wrong := targets[(targets < 0) | (targets >= classes)]):
        raise UserError(f"{must}, found {wrong[0].item()}")


def check_loaders(loaders: Any, classes: int, what: str) -> list[int]:
    """Check all targets that loaders, one or a list or dict of them, can show; the classes that none of these has."""
    found: set[int] = set()
    for loader in tree_leaves(loaders):
        targets = visible_targets(getattr(loader, "dataset", None))
        if targets is None:
            found |= set(range(classes))  # it may have any
        else:
            check_classes(targets, classes, what)
            found |= set(targets.unique().tolist())
    return sorted(set(range(classes)) - found)


def inputs_and_targets(batch: Any) -> tuple[Tensor, Tensor]:
    """The two parts of a batch: a pair in this order, or a mapping in any, in which the inputs have more dimensions."""
    if isinstance(batch, Mapping):
        first, second = batch.values()
        return (first, second) if first.ndim >= second.ndim else (second, first)
    first, second = batch
    return first, second
