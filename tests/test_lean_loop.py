"""The lean loop does what Lightning's does: hooks and what they see, logged rows, weights, counters."""

from typing import Any

import pytest
import torch
import torchmetrics
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler, StochasticWeightAveraging
from loop_cases import Net, TwoOptimizers, adam, lbfgs, sgd
from loop_compare import compare
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec:FutureWarning",  # Lightning 2.6 calls what torch 2.15 deprecates
    "ignore:You defined a .validation_step. but have no .val_dataloader.",
)


LEAN: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 10),
    "validation each second batch": ({"val_check_interval": 2}, 10),
    "validation over epochs": ({"val_check_interval": 3, "check_val_every_n_epoch": None}, 10),
    "limit": ({"limit_train_batches": 3}, 6),
    "steps": ({"max_steps": 7, "max_epochs": -1}, 7),
    "validation each second epoch": ({"check_val_every_n_epoch": 2}, 10),
    "clipping": ({"gradient_clip_val": 0.1}, 10),
    "clipping of each value": ({"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}, 10),
    "bf16": ({"precision": "bf16-mixed"}, 10),
    "accumulation": ({"accumulate_grad_batches": 2}, 10),
    "accumulation, clipped, validation each second batch": (
        {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1, "val_check_interval": 2, "log_every_n_steps": 1},
        10,
    ),
    "accumulation up to a step": ({"accumulate_grad_batches": 2, "max_steps": 4, "max_epochs": -1}, 7),
}
HANDED_OVER: dict[str, dict[str, Any]] = {
    "bf16 weights": {"precision": "bf16-true"},
    "profiler": {"profiler": "simple"},
    "time": {"val_check_interval": {"days": 1}},
}


@pytest.mark.parametrize("every", [1, pytest.param(4, marks=pytest.mark.slow)])
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


class Logs(Net):
    """Logs the same value again and again, in each way there is, and some of it twice a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = torchmetrics.MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("both", loss, on_step=True, on_epoch=True, batch_size=1 + batch_idx)
        self.log("double", loss.double(), on_epoch=True, prog_bar=True)
        self.log("number", batch_idx)
        self.log("largest", loss, reduce_fx=max, on_epoch=True, logger=False)
        self.log("sum", loss.item(), reduce_fx="sum", on_step=False, on_epoch=True)
        self.log("graph", loss, enable_graph=True)
        self.log_dict({"one": loss, "other": 2 * loss}, on_step=False, on_epoch=True)
        self.log("metric", self.metric)
        self.metric(loss)
        self.log("number", batch_idx + 0.5)
        return loss


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


@pytest.mark.filterwarnings(
    "ignore:.training_step. returned .None.", "ignore:train_dataloader yielded None", "ignore:.*needs to be floating"
)
@pytest.mark.parametrize(
    ("module", "lean"),
    [
        (Extras, 10),
        (Skips, 10),
        (NoIndex, 10),
        (EndsEpoch, 6),
        (OwnHooks, 10),
        (Logs, 10),
        (Plateau, 0),
        (PlateauByEpoch, 10),
    ],
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


def test_a_module_with_step_methods_of_its_own_is_handed_over() -> None:
    compare(StepMethods, 0)


class OwnClipping(Net):
    """Clips by half of what the Trainer says, 0.1 where it says nothing, and logs in it."""

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        assert gradient_clip_algorithm is None
        self.log("before", self.net.weight.grad.norm())  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], (gradient_clip_val or 0.2) / 2)


class ClipsByItself(Net):
    def clip_gradients(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        nn.utils.clip_grad_value_(self.parameters(), 0.01)


@pytest.mark.parametrize("bound", [None, 0.5])
@pytest.mark.parametrize("module", [OwnClipping, ClipsByItself])
def test_a_module_that_clips_by_itself(module: type[Net], bound: float | None) -> None:
    compare(module, 10, gradient_clip_val=bound)


class ClipsLater(Callback):
    """Sets the bound when training has got so far, in the middle of an epoch."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        trainer.gradient_clip_val = 0.01 if trainer.global_step in (3, 4, 7) else None


class AccumulatesLater(Callback):
    """Has the optimizer wait for more and more batches, in the middle of an epoch."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        trainer.accumulate_grad_batches = 1 + trainer.global_step // 3


@pytest.mark.parametrize("callback", [ClipsLater, AccumulatesLater])
def test_what_a_callback_sets_on_the_way(callback: type[Callback]) -> None:
    compare(Net, 10, callbacks=lambda: [callback()])


class WithBatchNorm(Net):
    """StochasticWeightAveraging trains it for an epoch more, without backward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))  # type: ignore[assignment]

    def configure_optimizers(self) -> Any:
        optimizer = sgd(self.parameters())
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def test_callbacks_that_change_the_case_on_the_way() -> None:
    compare(Net, 15, callbacks=lambda: [GradientAccumulationScheduler({1: 2})], max_epochs=3)
    compare(WithBatchNorm, 20, callbacks=lambda: [StochasticWeightAveraging(0.1, swa_epoch_start=2)], max_epochs=4)
