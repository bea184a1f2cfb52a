"""A dataset in memory that hands out a whole batch at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

Batch = tuple[Tensor, Tensor]


class InMemoryDataset(Dataset[Batch]):
    """Samples in memory: inputs `(N, ...)` and targets `(N, ...)`, fetched a whole batch at a time.

    `indices` `(M,)` int64 says which of the N samples belong to the dataset, in which order; subsets share the tensors.
    With a `DataLoader`, use `collate_fn=tuple`: a batch comes whole, so there is nothing to collate.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> None:
        self.inputs, self.targets, self.indices = inputs, targets, indices

    @classmethod
    def in_memory(
        cls, inputs: Tensor, targets: Tensor, resident: bool | str, device: torch.device
    ) -> "InMemoryDataset":
        """Make a dataset of all samples, held on `device` if `resident` is true, else in main memory.

        With "auto" they are held on `device` if it is a GPU and the inputs take at most half of its free memory.
        """
        if resident == "auto":
            resident = device.type == "cuda" and 2 * inputs.nbytes <= torch.cuda.mem_get_info(device)[0]
        place = device if resident else torch.device("cpu")
        return cls(inputs.to(place), targets.to(place), torch.arange(len(targets), device=place))

    @property
    def device(self) -> torch.device:
        return self.indices.device

    def subset(self, indices: Tensor) -> "InMemoryDataset":
        """Make a dataset of some of the samples, which shares the memory of this one."""
        return InMemoryDataset(self.inputs, self.targets, self.indices[indices.to(self.device)])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        return self.inputs[self.indices[index]], self.targets[self.indices[index]]

    def __getitems__(self, batch: Sequence[int] | Tensor) -> Batch:
        """The samples of some indices, a list or an int64 tensor on `device`."""
        index = self.indices.index_select(0, torch.as_tensor(batch, device=self.indices.device))
        return self.inputs.index_select(0, index), self.targets.index_select(0, index)
