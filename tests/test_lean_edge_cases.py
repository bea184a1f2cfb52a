"""The lean loop where a run stops, fails, or does what few do: as Lightning's."""

from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from loop_cases import Batches, Net, sgd
from loop_compare import build, compare, outcome, ran_lean

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec:FutureWarning",  # Lightning 2.6 calls what torch 2.15 deprecates
    "ignore:You defined a .validation_step. but have no .val_dataloader.",
)


class Stops(L.Callback):
    """Asks for a stop in the middle of an epoch; Lightning validates, then stops as soon as it may."""

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:  # noqa: ARG002
        trainer.should_stop = trainer.global_step >= 2


@pytest.mark.parametrize(("options", "lean"), [({}, 2), ({"min_steps": 4, "min_epochs": 0}, 4), ({"min_epochs": 1}, 5)])
def test_a_stop_in_the_middle_of_an_epoch(options: dict[str, Any], lean: int) -> None:
    compare(Net, lean, callbacks=lambda: [Stops()], **options)


class Terminated(L.Callback):
    """As if the process had been sent SIGTERM in the middle of an epoch."""

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:  # noqa: ARG002
        trainer._signal_connector.received_sigterm = trainer.global_step == 2


def test_sigterm_ends_the_training_after_the_same_batch() -> None:
    results = []
    for loop in ("seeded", "lean"):
        torch.manual_seed(1)
        trainer = build(loop, [Terminated()])
        with pytest.raises(SIGTERMException):
            trainer.fit(Net(), Batches(5), Batches(2))
        results.append(outcome(trainer))
    assert results[0] == results[1]
    assert ran_lean(trainer) == 2


class SameName(Net):
    """Logs one name in training, at the first batch, and in validation."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        if batch_idx == 0:
            self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.log("loss", 7 * self.loss(batch))


class Reads(L.Callback):
    def __init__(self) -> None:
        self.read: list[float] = []

    def on_validation_start(self, trainer: L.Trainer, *args: Any) -> None:  # noqa: ARG002
        self.read.append(float(trainer.callback_metrics["loss"]))


def test_one_name_in_training_and_validation() -> None:
    read = []
    for loop in ("seeded", "lean"):
        torch.manual_seed(1)
        build(loop, [reads := Reads()], val_check_interval=2).fit(SameName(), Batches(5), Batches(2))
        read.append(reads.read)
    assert len(set(read[0])) == len(read[0]) / 2  # each epoch's training value, not the validation's
    assert read[0] == read[1]


class Names(Net):
    """Notes the name under which Lightning runs what a user may hang into a step."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str | None] = []
        self.net.weight.register_hook(lambda gradient: self.names.append(self._current_fx_name))  # noqa: ARG005

    def configure_optimizers(self) -> Any:
        optimizer = sgd(self.parameters())
        optimizer.register_step_post_hook(lambda *args: self.names.append(self._current_fx_name))  # noqa: ARG005
        step = lambda number: self.names.append(self._current_fx_name) or 0.9**number  # type: ignore[func-returns-value]  # noqa: E731
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, step), "interval": "step"}]


def test_the_name_of_what_runs() -> None:
    names = []
    for loop in ("stock", "lean"):
        build(loop, []).fit(module := Names(), Batches(5), Batches(2))
        names.append(module.names)
    assert names[0] == names[1]
    assert set(names[0]) == {"configure_optimizers", "backward", "optimizer_step", "lr_scheduler_step"}


class Fails(Net):
    where = "training_step"

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 2 and self.where == "training_step":
            raise ZeroDivisionError
        return super().training_step(batch, batch_idx)

    def on_after_backward(self) -> None:
        if self.trainer.fit_loop.batch_idx == 2 and self.where == "on_after_backward":
            raise ZeroDivisionError


class FailsInHook(Fails):
    where = "on_after_backward"


class Asks(L.Callback):
    """Sees the metrics of the batch that failed; they are the same."""

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        assert {*trainer.callback_metrics} == {*trainer.logged_metrics} == {*trainer.progress_bar_metrics} == {"loss"}


@pytest.mark.parametrize("module", [Fails, FailsInHook])
def test_an_error_of_the_user_leaves_the_same_state(module: type[Fails]) -> None:
    results = []
    for loop in ("seeded", "lean"):
        torch.manual_seed(1)
        trainer = build(loop, [Asks()])
        with pytest.raises(ZeroDivisionError):
            trainer.fit(module(), Batches(5))
        results.append(outcome(trainer))
    assert results[0] == results[1]
    assert results[1]["name"] == module.where
    assert ran_lean(trainer) == 3


class NeverCalls(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        return


class CallsWithoutGrad(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = closure()
        super().step()
        return loss


def test_optimizers_that_treat_the_closure_otherwise() -> None:
    compare(lambda: Net(lambda parameters: CallsWithoutGrad(parameters, 0.1)), 10)
    messages = set()
    for loop in ("stock", "lean"):
        with pytest.raises(Exception, match="closure hasn't been executed") as caught:
            build(loop, []).fit(Net(lambda parameters: NeverCalls(parameters, 0.1)), Batches(5))
        messages.add((type(caught.value), str(caught.value)))
    assert len(messages) == 1


@pytest.mark.parametrize("output", [{"other": 1}, 3.0])
def test_an_output_that_is_no_loss_is_refused_in_lightnings_words(output: Any) -> None:
    messages = set()
    for loop in ("stock", "lean"):
        module = Net()
        module.training_step = lambda batch, batch_idx: output  # type: ignore[method-assign]  # noqa: ARG005
        with pytest.raises(Exception, match="utomatic") as caught:
            build(loop, []).fit(module, Batches(5))
        messages.add((type(caught.value), str(caught.value)))
    assert len(messages) == 1


class FetchesItself(Net):
    def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
        batch, _, _ = next(dataloader_iter)
        return self.loss(batch)


@pytest.mark.filterwarnings("ignore:.*dataloader_iter")
def test_a_training_step_that_fetches_itself() -> None:
    compare(FetchesItself, 0)


def test_nothing_on_the_users_objects_is_changed() -> None:
    attributes = []
    for loop in ("stock", "lean"):
        module, callback = Net(), L.Callback()
        build(loop, [callback]).fit(module, Batches(5))
        attributes.append((type(module), set(vars(module)), type(callback), set(vars(callback))))
    assert attributes[0] == attributes[1]
