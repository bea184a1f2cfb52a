"""What training changes in the data is there after a resume, or a line says that it cannot be."""

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import probe
import pytest
import torch
from lightning import Callback
from test_cases import contents
from test_odd_tasks import run
from test_resume import assert_equal
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from runlab.data.kept_state import KeptState

X = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))


def samples() -> TensorDataset:
    return TensorDataset(X, X.sum(1), torch.arange(len(X)))


class Given(probe.Rows):
    """Trains on `self.given`."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.given: Any = samples()

    def train_dataloader(self) -> Any:
        return DataLoader(self.given, 40, shuffle=True)


class Pool(Given):
    """Active learning: a list of indices grows."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.labelled = list(range(120))

    def train_dataloader(self) -> Any:
        return DataLoader(Subset(self.given, self.labelled), 40, shuffle=True)

    def change(self, epoch: int) -> None:
        self.labelled.extend(range(120 + 40 * epoch, 160 + 40 * epoch))


class Indices(Given):
    """The same with the indices of a subset, which lasts."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.given = Subset(samples(), list(range(120)))

    def change(self, epoch: int) -> None:
        self.given.indices.extend(range(120 + 40 * epoch, 160 + 40 * epoch))


class PseudoLabels(Given):
    """New targets in the place of the old ones."""

    def change(self, epoch: int) -> None:
        self.given.tensors[1][200:] = epoch + 1.0


class Own(Dataset[Any]):
    def __init__(self) -> None:
        self.y = [float(value) for value in X.sum(1)]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        return X[index], torch.tensor(self.y[index]), index


class OwnLabels(Given):
    """A data set that only the loader holds."""

    def train_dataloader(self) -> Any:
        return DataLoader(Own(), 40, shuffle=True)

    def change(self, epoch: int) -> None:
        trainer: Any = self.trainer
        trainer.train_dataloader.dataset.y[200:] = [epoch + 1.0] * 200


class Rows(Given):
    """A list of rows that are no plain numbers: too large to be saved."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.rows = [(x, x.sum(), index) for index, x in enumerate(X)]

    def train_dataloader(self) -> Any:
        return DataLoader(self.rows, 40)  # type: ignore[arg-type]

    def change(self, epoch: int) -> None:
        self.rows[0] = (X[0], X[0].sum() + epoch, 0)


class Caches(Given):
    """Fills what is empty at first: no matter for a resume."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.filled: list[Any] = [None] * 400
        self.named: dict[int, Any] = {}

    def change(self, epoch: int) -> None:
        self.filled[epoch] = X[epoch]
        self.named.update({index: X[index] for index in range(150)})


class Changes(Callback):
    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        trainer.datamodule.change(trainer.current_epoch)


def typed(data: str) -> list[str]:
    change = "+callbacks.change._target_=test_changed_data.Changes"
    return [f"data._target_=test_changed_data.{data}", change, "+trainer.reload_dataloaders_every_n_epochs=1"]


@pytest.mark.parametrize("reload", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("data", ["Pool", "Indices", "PseudoLabels", "OwnLabels", "Caches"])
def test_it_is_there_after_a_resume(
    data: str, reload: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = typed(data)[: 3 if reload else 2]
    run(tmp_path / "straight", *words, "trainer.max_epochs=4")
    run(tmp_path / "run", *words, "trainer.max_epochs=2")
    run(tmp_path / "run", *words, "trainer.max_epochs=4", "resume=auto")
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))
    assert capsys.readouterr().err == ""


def test_what_is_too_large_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", *typed("Rows"), "trainer.max_epochs=3")
    text = "`rows` has changed and is too large to be saved, so a resumed run will come out differently"
    assert capsys.readouterr().err == f"training data (Rows): {text}\n"


def test_what_shows_that_a_large_value_has_changed() -> None:
    class Holder:
        def __init__(self, value: Any) -> None:
            self.value = value

    large = 1 << 21
    for value, change in [
        (torch.zeros(large), lambda value: value[5].fill_(1)),
        (torch.full((large,), torch.nan, dtype=torch.bfloat16), lambda value: value[5].fill_(1)),
        (torch.zeros(1024, 2048).T, lambda value: value[5].fill_(1)),
        (np.zeros(large), lambda value: value[::2].fill(1)),
        ([[index] for index in range(200)], lambda value: value.append([0])),
        (deque([index] for index in range(200)), lambda value: value.rotate(1)),
    ]:
        kept = KeptState(Holder(value), limit=100)
        assert kept.outgrown() == []
        change(value)
        assert kept.outgrown() == ["value"]
    holder = Holder(torch.full((large,), torch.nan))
    kept = KeptState(holder, limit=100)
    holder.value = torch.full((large,), torch.nan)  # made anew, and the same
    assert kept.outgrown() == []
    holder.value = torch.zeros(large)
    assert kept.outgrown() == ["value"]
    sparse = torch.eye(3).to_sparse()
    assert KeptState(Holder([sparse] * 200), limit=100).outgrown() == []
