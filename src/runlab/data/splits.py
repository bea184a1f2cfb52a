"""Split samples into those for training, validation and test."""

import torch
from torch import Tensor

from runlab.config.messages import UserError


def random_order(size: int, seed: int) -> Tensor:
    """The numbers from 0 to `size` - 1, int64, in a random order."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def stratified_order(targets: Tensor, seed: int) -> Tensor:
    """The indices of `(N,)` integer targets in a random order, in which any stretch has each class's share of it.

    A class of n samples is spread evenly over the whole: so each stretch holds that share to within a sample.
    """
    order = random_order(len(targets), seed)
    shuffled, places = targets[order], torch.empty(len(targets), dtype=torch.float64)
    for target in shuffled.unique():
        mine = shuffled == target
        places[mine] = (torch.arange(int(mine.sum()), dtype=torch.float64) + 0.5) / mine.sum()
    return order[places.argsort(stable=True)]


def split(
    order: Tensor, test_size: int | float, val_size: int | float, folds: int | None, fold: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut an order `(N,)` into the indices for training, validation and test, int64, each in ascending order.

    The test's come first; of the others `val_size`, or the part numbered `fold` of `folds` disjoint parts, whose sizes
    differ by one at most and which make up the whole, are for validation. A float is a share of the N samples.
    `UserError` where there are too few.
    """
    tested, kept = (round(size * len(order)) if isinstance(size, float) else size for size in (test_size, val_size))
    test, rest = order[:tested], order[tested:]
    start, stop = 0, kept
    if folds is not None and fold is not None:
        start, stop = fold * len(rest) // folds, (fold + 1) * len(rest) // folds
    train = torch.cat([rest[:start], rest[stop:]])
    if not len(train) or (folds or 0) > len(rest):
        sizes = f"data.folds={folds}" if folds else f"data.val_size={val_size}"
        text = f"data.test_size={test_size} {sizes}" if test_size else sizes
        raise UserError(f"{text}: the training set has only {len(order)} samples")
    return train.sort().values, rest[start:stop].sort().values, test.sort().values
