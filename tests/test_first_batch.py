"""A data set that counts or caches what is read sees the reads of a plain loop."""

from typing import Any

import pytest
import torch
from test_loaders import wrapped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")  # fork, on Python 3.12


class Counting(Dataset[Tensor]):
    """Keeps how many samples were read, as a number, in a dict, in a list and in a tensor."""

    def __init__(self) -> None:
        self.reads, self.of_each, self.order, self.total = 0, dict[int, int](), list[int](), torch.zeros(())

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Tensor:
        self.reads += 1
        self.of_each[index] = self.of_each.get(index, 0) + 1
        self.order.append(index)
        self.total += 1
        return torch.tensor([index, self.reads, self.of_each[index], len(self.order), self.total])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_counting_data_set_gives_what_a_plain_loop_gets(workers: int) -> None:
    options: dict[str, Any] = {"batch_size": 8, "num_workers": workers}
    plain = [batch.tolist() for batch in DataLoader(Counting(), **options)]
    assert [batch.tolist() for batch in wrapped(DataLoader(Counting(), **options))] == plain
