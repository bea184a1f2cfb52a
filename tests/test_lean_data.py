"""The lean loop with data modules and loaders of every kind: batches come as by Lightning's."""

from typing import Any

import lightning as L
import pytest
import torch
from loop_cases import Batches, Net
from loop_compare import Recorder, build, compare, outcome, ran_lean

from runlab.training.lean_step import LeanStep

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec:FutureWarning",  # Lightning 2.6 calls what torch 2.15 deprecates
    "ignore:You defined a .validation_step. but have no .val_dataloader.",
)


class Same:
    """Hands out the same batches in each epoch."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches)


class OwnTransfer(L.LightningDataModule):
    """Draws in two transfer hooks, and notes the names that stand in the module meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str | None] = []

    def train_dataloader(self) -> Any:
        return Batches(5, as_list=True)

    def val_dataloader(self) -> Any:
        return Batches(2)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        self.names.append(self.trainer.lightning_module._current_fx_name)  # type: ignore[union-attr]
        return batch[0] + torch.rand(()), batch[1]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ARG002
        self.names.append(self.trainer.lightning_module._current_fx_name)  # type: ignore[union-attr]
        return batch[0].to(device) * torch.rand(()), batch[1].to(device)


class NotTensors(L.LightningDataModule):
    """Batches that Lightning's own transfer takes apart: a list in a dictionary."""

    def train_dataloader(self) -> Any:
        return Same([{"all": [inputs, labels]} for inputs, labels in Batches(5)])


class TakesApart(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        batch["all"][0] = 2 * batch["all"][0]  # a change in place: the loader's own list must not see it
        return super().training_step(batch["all"], batch_idx)


class ChangesList(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        batch[0] = 2 * batch[0]
        return super().training_step(batch, batch_idx)


class SameLists(L.LightningDataModule):
    def train_dataloader(self) -> Any:
        return Same(list(Batches(5, as_list=True)))


def test_data_modules() -> None:
    compare(Net, 10, data=OwnTransfer)
    compare(TakesApart, 10, data=NotTensors)
    compare(ChangesList, 10, data=SameLists)


def test_the_names_under_which_a_data_modules_hooks_run() -> None:
    names = []
    for loop in ("stock", "lean"):
        build(loop, []).fit(Net(), datamodule=(data := OwnTransfer()))
        names.append(data.names)
    assert names[0] == names[1]
    assert names[1][:2] == [None, "batch_to_device"]


def endless(module: L.LightningModule, **options: Any) -> list[dict[str, Any]]:
    """What comes of an iterable that does not know its length, by both loops."""

    class Stream:
        def __iter__(self) -> Any:
            yield from Batches(5)

    results = []
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for loop in ("seeded", "lean"):
        module.load_state_dict(state)
        trainer = build(loop, [recorder := Recorder()], **options)
        trainer.fit(module, Stream(), Batches(2))
        results.append({"seen": recorder.seen, **outcome(trainer)})
    assert ran_lean(trainer) > 0
    return results


@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 3}, {"val_check_interval": 2}])
def test_a_loader_without_a_length(options: dict[str, Any]) -> None:
    one, other = endless(Net(), **options)
    assert one == other


def test_batches_go_to_the_device_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Any] = []

    class Moves(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
            with monkeypatch.context() as patch:
                patch.setattr(trainer.strategy, "_root_device", torch.device("meta"))
                step = LeanStep(trainer, trainer.fit_loop.epoch_loop)
                one, other = torch.ones(2), torch.zeros(3)
                moved.extend([step.transfer(one), *step.transfer([one, other]), step.transfer({"a": [one]})["a"][0]])

    build("lean", [Moves()], max_epochs=1).fit(Net(), Batches(5), Batches(2))
    assert [value.device.type for value in moved] == ["meta"] * 4


def test_a_batch_on_another_device_comes_to_the_cpu() -> None:
    """By the default transfer; Lightning's own error shows that it was asked."""

    class OnMeta(L.LightningDataModule):
        def train_dataloader(self) -> Any:
            return Same([(torch.ones(4, 6, device="meta"), torch.ones(4, dtype=torch.long))] * 5)

    messages = set()
    for loop in ("stock", "lean"):
        with pytest.raises(NotImplementedError, match="meta") as caught:
            build(loop, []).fit(Net(), datamodule=OnMeta())
        messages.add(str(caught.value))
    assert len(messages) == 1
