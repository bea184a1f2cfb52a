"""What is done by a data set's targets: seen at a glance, split by class, given to samplers, told from the inputs."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import ConcatDataset, Subset, TensorDataset, WeightedRandomSampler

from runlab.config.messages import UserError


def visible_targets(dataset: Any) -> Tensor | None:
    """All targets of a data set, `(N,)` or `(N, ...)`, where they can be seen without reading a sample; else None."""
    if isinstance(dataset, ConcatDataset):
        parts = [visible_targets(part) for part in dataset.datasets]
        seen = [part for part in parts if part is not None]
        return torch.cat(seen) if len(seen) == len(parts) else None
    if isinstance(dataset, Subset):
        whole = visible_targets(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(dataset.indices, device=whole.device)]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1] if type(dataset).__getitem__ is TensorDataset.__getitem__ else None
    if getattr(dataset, "target_transform", None) is not None:  # a sample's target is another than the one in the list
        return None
    try:
        targets = torch.as_tensor(dataset.targets)
    except (AttributeError, TypeError, ValueError, RuntimeError):  # there are none, or they are no numbers
        return None
    indices = getattr(dataset, "indices", None)  # of an InMemoryDataset
    return targets if indices is None else targets[indices]


def mixed_order(targets: Tensor, seed: int) -> Tensor:
    """The indices of `(N,)` integer targets in a random order, in which any stretch has each class's share of it.

    A class of n samples is spread evenly over the whole: so each stretch holds that share to within a sample.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    shuffled, places = targets[order], torch.empty(len(targets), dtype=torch.float64)
    for target in shuffled.unique():
        mine = shuffled == target
        places[mine] = (torch.arange(int(mine.sum()), dtype=torch.float64) + 0.5) / mine.sum()
    return order[places.argsort(stable=True)]


def stratified_split(
    targets: Tensor, seed: int, test_size: int | float, val_size: int | float, folds: int | None, fold: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The indices for training, validation and test, int64, each in order, and each with its share of every class.

    First comes the test's part; of the others `val_size`, or one of `folds` equal parts, is for validation. A float is
    a share of `targets`, which are `(N,)` integers. `UserError` where there are too few samples.
    """
    order = mixed_order(targets, seed)
    tested, kept = count(test_size, len(order)), count(val_size, len(order))
    test, rest = order[:tested], order[tested:]
    if folds is None or fold is None:
        start, stop = 0, kept
    else:
        start, stop = fold * len(rest) // folds, (fold + 1) * len(rest) // folds
    train = torch.cat([rest[:start], rest[stop:]])
    if not len(train) or stop - start > len(rest) or (folds or 0) > len(rest):
        sizes = f"data.folds={folds}" if folds else f"data.val_size={val_size}"
        raise UserError(f"data.test_size={test_size} {sizes}: leaves none of {len(order)} samples for training")
    return train.sort().values, rest[start:stop].sort().values, test.sort().values


def count(size: int | float, total: int) -> int:
    """How many of `total` samples `size` is: a float is their share."""
    return round(size * total) if isinstance(size, float) else size


def call_sampler(factory: Callable[..., Any], dataset: Any, option: str) -> Any:
    """Call a sampler's factory with the indices of a data set, or with its targets if it takes `targets` first.

    `UserError` for a first parameter of another name: torch's WeightedRandomSampler would take indices for its weights.
    """
    sources: dict[str, Any] = dict.fromkeys(("data_source", "dataset", "indices", "sampler"), range(len(dataset)))
    if (targets := visible_targets(dataset)) is not None:
        sources["targets"] = targets.cpu()
    name = next(iter(inspect.signature(factory).parameters), None)
    if name not in sources:
        hint = "to draw all classes equally often, take runlab.data.targets.class_balanced"
        raise UserError(f"{option}: its first argument is {name}, not one of {', '.join(sources)}; {hint}")
    return factory(sources[name])


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
