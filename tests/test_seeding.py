"""What each batch draws depends on (seed, number of the batch in the run, rank) alone."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from loop_cases import Batches, Net
from loop_compare import build, ran_lean

from runlab.data.seeding import seed_all

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")


def draws() -> tuple[float, float, float]:
    return float(torch.rand(())), random.random(), float(np.random.rand())


class Draws(Net):
    """Draws before anything else does, in the first hook that a batch meets."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[Any] = []

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        if self.training:
            self.drawn.append((torch.initial_seed(), *draws()))
        return batch


@pytest.mark.parametrize(("loop", "accumulate"), [("lean", 1), ("seeded", 1), ("lean", 2)])
def test_each_batch_is_seeded_before_its_transfer(loop: str, accumulate: int) -> None:
    module, trainer = Draws(), build(loop, [], accumulate_grad_batches=accumulate)
    trainer.fit(module, Batches(5), Batches(2))
    assert ran_lean(trainer) == (10 if loop == "lean" else 0)
    expected = []
    for batch in range(10):
        seed = hash((3, batch - 1, 0))
        generator = torch.Generator().manual_seed(seed)
        python, numpy = random.Random(seed % 2**32), np.random.RandomState(seed % 2**32)
        torch_draw = float(torch.rand((), generator=generator))
        expected.append((generator.initial_seed(), torch_draw, python.random(), float(numpy.rand())))
    assert module.drawn == expected


@pytest.mark.parametrize("seed", [0, 7, -7, 2**40 + 1, 2**63 - 1, -(2**63)])
def test_any_seed_makes_the_same_draws_again(seed: int) -> None:
    seed_all(seed)
    np.random.randn()  # leaves half a pair in the generator
    random.gauss(0, 1)
    seed_all(seed)
    first = draws(), np.random.randn(), random.gauss(0, 1)
    np.random.randn()
    seed_all(seed)
    assert (draws(), np.random.randn(), random.gauss(0, 1)) == first
