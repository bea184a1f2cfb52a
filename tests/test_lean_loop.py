"""The lean loop does what Lightning's does: hooks and what they see, logged rows, weights, counters, errors."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult, _AutomaticOptimization
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.utilities.exceptions import SIGTERMException
from loop_cases import Batches, Net, Recorder, TwoOptimizers, adam, build, lbfgs, outcome, ran_lean, sgd
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec:FutureWarning",  # Lightning 2.6 calls what torch 2.15 deprecates
    "ignore:You defined a .validation_step. but have no .val_dataloader.",
)


def compare(make: Callable[[], L.LightningModule], lean: int, reference: str = "seeded", **options: Any) -> None:
    """Run it by two loops, with and without a callback at each hook; `lean` batches must take the short way."""
    length, data = options.pop("length", 5), options.pop("data", None)
    extra = options.pop("callbacks", list)
    for record in (True, False):
        results = []
        for loop in (reference, "lean"):
            torch.manual_seed(1)
            module, recorder = make(), Recorder()
            trainer = build(loop, [*extra(), *([recorder] if record else [])], **options)
            if data is None:
                trainer.fit(module, Batches(length), Batches(2))
            else:
                trainer.fit(module, datamodule=data())
            results.append({"seen": recorder.seen, **outcome(trainer)})
        for name, value in results[0].items():
            assert results[1][name] == value, name
        assert ran_lean(trainer) == lean


LEAN: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 10),
    "validation each second batch": ({"val_check_interval": 2}, 10),
    "validation over epochs": ({"val_check_interval": 3, "check_val_every_n_epoch": None}, 10),
    "limit": ({"limit_train_batches": 3}, 6),
    "steps": ({"max_steps": 7, "max_epochs": -1}, 7),
    "validation each second epoch": ({"check_val_every_n_epoch": 2}, 10),
}
HANDED_OVER: dict[str, dict[str, Any]] = {
    "clipping": {"gradient_clip_val": 0.1},
    "accumulation": {"accumulate_grad_batches": 2},
    "bf16": {"precision": "bf16-mixed"},
    "profiler": {"profiler": "simple"},
    "time": {"val_check_interval": {"days": 1}},
}


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("optimizer", [sgd, adam, lbfgs])
@pytest.mark.parametrize("case", LEAN)
def test_the_common_case_runs_lean(case: str, optimizer: Any, every: int) -> None:
    options, batches = LEAN[case]
    compare(lambda: Net(optimizer, every), batches, **options)


@pytest.mark.parametrize("case", HANDED_OVER)
def test_anything_else_is_handed_over(case: str) -> None:
    compare(lambda: Net(sgd, 4), 0, **HANDED_OVER[case])


@pytest.mark.parametrize("optimizer", [sgd, lbfgs])
def test_against_lightning_as_it_comes(optimizer: Any) -> None:
    compare(lambda: Net(optimizer, noise=False), 10, reference="stock", val_check_interval=2)


def test_manual_optimization() -> None:
    compare(TwoOptimizers, 0, val_check_interval=2)


class Extras(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"number": torch.tensor(batch_idx), "loss": super().training_step(batch, batch_idx)}


class Skips(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


class NoIndex(Net):
    def training_step(self, batch: Any) -> Any:  # type: ignore[override]  # Lightning allows it
        return self.loss(batch)


class EndsEpoch(Net):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:  # noqa: ARG002
        return -1 if batch_idx == 2 else None


class OwnHooks(Net):
    """Logs in each hook of a batch, transfers included where it may."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.log("start", float(batch_idx + len(batch)))

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.log("zero", float(len(optimizer.state)))

    def on_before_backward(self, loss: Tensor) -> None:
        self.log("before", loss)
        loss.data.mul_(3)  # what on_train_batch_end gets was copied before

    def on_after_backward(self) -> None:
        self.log("after", self.net.weight.grad.norm())  # type: ignore[union-attr]

    def on_before_optimizer_step(self, optimizer: Any) -> None:  # noqa: ARG002
        self.net.weight.grad.mul_(0.5)  # type: ignore[union-attr]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.log("end", outputs["loss"], on_epoch=True)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        return batch[0] + torch.rand(()), batch[1]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        return batch[0] * torch.rand(()), batch[1]


class Plateau(Net):
    interval = "step"

    def configure_optimizers(self) -> Any:
        optimizer = sgd(self.parameters())
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
        monitored = {"scheduler": scheduler, "interval": self.interval, "monitor": "loss"}
        return {"optimizer": optimizer, "lr_scheduler": monitored}


class PlateauByEpoch(Plateau):
    interval = "epoch"


class NoneBatch(Net):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        return None if self.trainer.fit_loop.batch_idx == 1 and self.training else batch


@pytest.mark.filterwarnings("ignore:.training_step. returned .None.", "ignore:train_dataloader yielded None")
@pytest.mark.parametrize(
    ("module", "lean"),
    [(Extras, 10), (Skips, 10), (NoIndex, 10), (EndsEpoch, 6), (OwnHooks, 10), (Plateau, 10), (PlateauByEpoch, 10)],
)
def test_modules(module: type[Net], lean: int) -> None:
    compare(module, lean)


@pytest.mark.filterwarnings("ignore:train_dataloader yielded None")
def test_a_batch_that_a_transfer_hook_makes_none() -> None:
    compare(NoneBatch, 10)


class StepMethods(Net):
    """Overrides every method that takes part in a step."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:  # noqa: ARG002
        optimizer.step(closure=optimizer_closure)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:  # noqa: ARG002
        optimizer.zero_grad(set_to_none=False)

    def backward(self, loss: Tensor) -> None:
        (2 * loss).backward()

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:  # noqa: ARG002
        scheduler.step()

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        nn.utils.clip_grad_norm_(self.parameters(), 0.1)


def test_a_module_with_step_methods_of_its_own_is_handed_over() -> None:
    compare(StepMethods, 0)


class WithBatchNorm(Net):
    """StochasticWeightAveraging trains it for an epoch more, without backward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))  # type: ignore[assignment]

    def configure_optimizers(self) -> Any:
        optimizer = sgd(self.parameters())
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def test_callbacks_that_change_the_case_on_the_way() -> None:
    compare(Net, 5, callbacks=lambda: [GradientAccumulationScheduler({1: 2})], max_epochs=3)
    compare(WithBatchNorm, 20, callbacks=lambda: [StochasticWeightAveraging(0.1, swa_epoch_start=2)], max_epochs=4)


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


class Same:
    """Hands out the same batches in each epoch."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches)


class OwnTransfer(L.LightningDataModule):
    """Draws in each transfer hook; logging in one fails as in Lightning."""

    def train_dataloader(self) -> Any:
        return Batches(5, as_list=True)

    def val_dataloader(self) -> Any:
        return Batches(2)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        return batch[0] + torch.rand(()), batch[1]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ARG002
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


@pytest.mark.parametrize("module", [Fails, FailsInHook])
def test_an_error_of_the_user_leaves_the_same_state(module: type[Fails]) -> None:
    results = []
    for loop in ("seeded", "lean"):
        torch.manual_seed(1)
        trainer = build(loop, [])
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


# Lightning's code that the lean loop repeats or relies on, by the first digits of its source's SHA-256.
COPIED: dict[Any, str] = {
    _Loop.on_iteration_done: "e30c5339",
    _TrainingEpochLoop.__init__: "dc28ffa4",
    _TrainingEpochLoop.run: "e8393a21",
    _TrainingEpochLoop.reset: "0014631a",
    _TrainingEpochLoop.on_run_start: "4993b0dc",
    _TrainingEpochLoop.advance: "c7555c01",
    _TrainingEpochLoop.on_advance_end: "2d1ddaa4",
    _TrainingEpochLoop.done.fget: "ba06fbd8",  # type: ignore[attr-defined]
    _TrainingEpochLoop._is_training_done.fget: "b6a4cafb",  # type: ignore[attr-defined]
    _TrainingEpochLoop._update_learning_rates: "26ac8752",
    _TrainingEpochLoop._should_check_val_fx: "cf0916b1",
    _TrainingEpochLoop._save_loggers_on_train_batch_end: "bd82b8b3",
    _AutomaticOptimization.run: "385b4373",
    _AutomaticOptimization._make_closure: "b4bd4534",
    _AutomaticOptimization._make_zero_grad_fn: "0f9b56ff",
    _AutomaticOptimization._make_backward_fn: "638ca477",
    _AutomaticOptimization._optimizer_step: "e196b2fa",
    _AutomaticOptimization._on_before_zero_grad: "b7f44d3a",
    _AutomaticOptimization._optimizer_zero_grad: "abd5876a",
    _AutomaticOptimization._training_step: "72e8f952",
    Closure: "bbca72c1",
    ClosureResult: "2da8d811",
    Precision.pre_backward: "f94c53cf",
    Precision.backward: "c45a6fcf",
    Precision.post_backward: "26b545c1",
    Precision._after_closure: "395e9462",
    Precision._wrap_closure: "2d25ccda",
    Precision.optimizer_step: "868b323a",
    Strategy.backward: "627cfe60",
    Strategy.training_step: "e0755d72",
    Strategy.batch_to_device: "e7b211b0",
    L.LightningModule.optimizer_step: "f0727867",
    L.LightningModule.optimizer_zero_grad: "9edadf25",
    L.LightningModule.backward: "798293b0",
    L.LightningModule.lr_scheduler_step: "7cd01c52",
    L.LightningModule.configure_gradient_clipping: "081ca8d4",
    L.LightningModule._call_batch_hook: "7ffd8dfc",
    L.LightningModule._apply_batch_transfer_handler: "4e7f8188",
    L.LightningModule.transfer_batch_to_device: "43187fd3",
    ModelCheckpoint.on_train_batch_end: "71bdc73c",
    call._call_callback_hooks: "c413fb9a",
    call._call_lightning_module_hook: "558a87d0",
    call._call_strategy_hook: "ff429e3a",
    _LoggerConnector.on_batch_start: "5022a98e",
    _LoggerConnector.on_batch_end: "87c0a9cd",
    _LoggerConnector.update_train_step_metrics: "44584c0c",
    _LoggerConnector.should_update_logs.fget: "a60ba9e9",  # type: ignore[attr-defined]
    _ResultCollection.log: "57ea9185",
    _ResultCollection.metrics: "253a052f",
}


def test_lightnings_code_is_what_the_lean_loop_was_written_from() -> None:
    def digest(code: Any) -> str:
        return hashlib.sha256(inspect.getsource(code).encode()).hexdigest()[:8]

    changed = {code.__qualname__: digest(code) for code, known in COPIED.items() if digest(code) != known}
    assert not changed, (
        f"Lightning {L.__version__} has changed {changed}: compare LeanEpochLoop, LeanStep and StepHooks with it,"
        " then renew the digests here"
    )
