"""What a module keeps beside its weights: it is there after a resume, and in the test of the best checkpoint."""

import copy
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import probe
import pytest
import torch
from lightning import Callback, LightningModule
from test_cases import contents
from test_odd_tasks import refusal, run
from test_resume import assert_equal
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, random_split
from torchmetrics import MaxMetric, MeanMetric, MinMaxMetric

from runlab.config.messages import report_errors
from runlab.load import load_run


def state(task: str) -> str:
    return f"task._target_=test_foreign_state.{task}"


class Highest(probe.Probe):
    """Keeps the highest value of all epochs, as templates do, and the extremes of a mean in a wrapper."""

    def __init__(self, lr: float) -> None:
        super().__init__(lr)
        self.highest, self.extremes = MaxMetric(), MinMaxMetric(MeanMetric())

    def on_validation_epoch_end(self) -> None:
        value = 10.0 if self.current_epoch == 0 else 1.0 / self.current_epoch
        self.highest.update(value)
        self.extremes.update(value)
        self.log("val_highest", self.highest.compute())
        self.log_dict({f"val_{name}": each for name, each in self.extremes.compute().items()})


class Metered(probe.Probe):
    """Logs a metric as an object, which begins anew in each epoch."""

    def __init__(self, lr: float) -> None:
        super().__init__(lr)
        self.mean = MeanMetric()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = super().training_step(batch)
        self.mean.update(loss.detach())
        self.log("train_mean", self.mean, on_step=False, on_epoch=True)
        return loss


class DrawsForAnEpoch(probe.Probe):
    def on_train_epoch_start(self) -> None:
        self.scale = torch.rand(()).item() + random.random() + np.random.random()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return self.scale / 3 * super().training_step(batch)


class Generators(probe.Probe):
    def __init__(self, lr: float) -> None:
        super().__init__(lr)
        self.torch, self.python = torch.Generator().manual_seed(5), random.Random(5)
        self.numpy: dict[str, Any] = {"new": np.random.default_rng(5), "old": np.random.RandomState(5)}

    def training_step(self, batch: list[Tensor]) -> Tensor:
        scale = torch.rand((), generator=self.torch).item() + self.python.random()
        return (scale + self.numpy["new"].random() + self.numpy["old"].rand()) / 4 * super().training_step(batch)


class Mean:
    def __init__(self, weight: Tensor) -> None:
        self.value = weight.detach().clone()


class Averages(probe.Probe):
    """Averages of the weights: in a helper in a list, in a tensor written to by `.data`, in a hidden network."""

    def __init__(self, lr: float) -> None:
        super().__init__(lr)
        self.means, self.mean = [Mean(self.weight)], self.weight.detach().clone()
        self.hidden = [copy.deepcopy(self.network)]

    @property
    def weight(self) -> Any:
        return self.network[0].weight

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = super().training_step(batch)
        self.means[0].value.lerp_(self.weight.detach(), 0.1)
        self.mean.data.mul_(0.9).add_(self.weight.data, alpha=0.1)
        hidden: Any = self.hidden[0][0]
        hidden.weight.data.lerp_(self.weight.data, 0.1)
        for name, value in (("helper", self.means[0].value), ("data", self.mean), ("net", hidden.weight)):
            self.log(name, value.abs().sum())
        return loss


class OwnOptimizer(probe.Probe):
    """Steps an optimizer of which the Trainer knows nothing."""

    def __init__(self, lr: float) -> None:
        super().__init__(lr)
        self.optimizer = torch.optim.Adam(self.network[0].parameters(), 0.01)

    def on_train_batch_start(self, *_: Any) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.network[3].parameters(), self.lr)


class DrawsLoaders(probe.Rows):
    """Draws the samples of an epoch, from a generator of its own and from the global one."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.generator = torch.Generator().manual_seed(3)

    def train_dataloader(self) -> Any:
        chosen = torch.randperm(40, generator=self.generator)[torch.randperm(40)[:20]]
        return DataLoader(torch.utils.data.Subset(super().train_dataloader().dataset, chosen.tolist()), 4)


EACH_EPOCH = ["data._target_=test_foreign_state.DrawsLoaders", "+trainer.reload_dataloaders_every_n_epochs=1"]


@pytest.mark.parametrize(
    "typed",
    [
        *([state(task)] for task in ("Highest", "Metered", "DrawsForAnEpoch", "Generators", "Averages")),
        [state("OwnOptimizer")],
        EACH_EPOCH,
    ],
    ids=lambda typed: typed[0].rpartition(".")[2],
)
def test_it_is_there_after_a_resume(tmp_path: Path, typed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    typed = [*typed, "trainer.log_every_n_steps=1"]
    run(tmp_path / "straight", *typed, "trainer.max_epochs=4")
    run(tmp_path / "run", *typed, "trainer.max_epochs=2")
    run(tmp_path / "run", *typed, "trainer.max_epochs=4", "resume=auto")
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))
    assert "not restored" not in capsys.readouterr().err


class Threshold(probe.Probe):
    """Has a threshold that belongs to the weights, by the hooks or as a plain attribute; the first epoch is best."""

    threshold: float = 0.0

    def __init__(self, lr: float, hooks: bool) -> None:
        super().__init__(lr)
        self.hooks, self.plain = hooks, 0.0

    def on_validation_epoch_end(self) -> None:
        self.log("val_score", float(self.current_epoch))
        value = self.current_epoch + 1.0
        self.threshold, self.plain = (value, 0.0) if self.hooks else (0.0, value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["threshold"] = self.threshold

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.threshold = checkpoint["threshold"]

    def test_step(self, batch: list[Tensor]) -> None:  # noqa: ARG002
        self.log("test_threshold", self.threshold + self.plain)


@pytest.mark.parametrize("hooks", [True, False])
def test_it_is_that_of_the_tested_checkpoint(tmp_path: Path, hooks: bool) -> None:
    typed = [state("Threshold"), f"+task.hooks={hooks}", "monitor=val_score", "mode=min", "trainer.max_epochs=3"]
    assert run(tmp_path / "run", *typed)["test_threshold"] == 1
    best = f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt"
    assert run(tmp_path / "again", *typed, "fit=false", best)["test_threshold"] == 1
    model = load_run(tmp_path / "run").model
    assert model.threshold + model.plain == 1


class Splits(probe.Rows):
    """Draws its parts when it is set up, for training and for the test."""

    def setup(self, stage: str) -> None:  # noqa: ARG002
        self.parts = random_split(super().loader("all", 60).dataset, [40, 12, 8])

    def loader(self, stage: str, count: int, **options: Any) -> Any:  # noqa: ARG002
        return DataLoader(self.parts[("train", "val", "test").index(stage)], 4, **options)


def test_data_that_are_split_at_random_are_split_alike(tmp_path: Path) -> None:
    probe.SEEN.clear()
    trained = run(tmp_path / "run", "data._target_=test_foreign_state.Splits")
    seen = {stage: {row for batch in probe.SEEN if batch.stage == stage for row in batch.rows} for stage in STAGES}
    assert [len(seen[stage]) for stage in STAGES] == [40, 12, 8]
    assert len(set().union(*seen.values())) == 60
    best = f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt"
    again = run(tmp_path / "again", "data._target_=test_foreign_state.Splits", "fit=false", best)
    assert again["test_loss"] == trained["test_loss"]


STAGES = ("train", "val", "test")


class SwapsBack(probe.Probe):
    """Validates other weights than it trains."""

    def on_validation_start(self) -> None:
        weight: Any = self.network[0].weight
        self.kept = weight.detach().clone()
        weight.data.mul_(0.5)

    def on_validation_end(self) -> None:
        weight: Any = self.network[0].weight
        weight.data.copy_(self.kept)


class Killed(BaseException):
    pass


def dies_in_the_eighth_batch(self: Any, batch: list[Tensor], batch_idx: int) -> Tensor:
    if batch_idx == 7:  # after the first validation
        raise Killed
    return probe.Probe.training_step(self, batch)


def test_weights_that_a_validation_has_changed_are_not_gone_on_with(tmp_path: Path) -> None:
    typed = [state("SwapsBack"), "+trainer.val_check_interval=0.5", "trainer.max_epochs=2"]
    run(tmp_path / "straight", *typed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwapsBack, "training_step", dies_in_the_eighth_batch)
        with pytest.raises(Killed):
            run(tmp_path / "run", *typed)
    assert (tmp_path / "run/checkpoints/best.ckpt").exists()
    run(tmp_path / "run", *typed, "resume=auto")
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))


class Perplexed(probe.Probe):
    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = super().training_step(batch)
        self.log_dict({"perplexity": torch.tensor(float("inf")), "of_none": torch.tensor([]).mean()})
        return loss


def test_another_value_than_the_loss_may_be_infinite(tmp_path: Path) -> None:
    assert run(tmp_path / "run", state("Perplexed"), "trainer.log_every_n_steps=1")["epoch"] == 2


class SkipsTheSanityCheck(probe.Probe):
    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log("val_pick", float(self.current_epoch))


def test_a_metric_that_the_sanity_check_does_not_log_may_be_monitored(tmp_path: Path) -> None:
    assert run(tmp_path / "run", state("SkipsTheSanityCheck"), "monitor=val_pick", "mode=max")["val_pick"] == 1


class MadeLater(probe.Probe):
    """Makes its network where it may be too large for one process."""

    def __init__(self, lr: float) -> None:
        super().__init__(lr)
        del self.network

    def configure_model(self) -> None:
        if not hasattr(self, "network"):
            self.network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


class MadeAnew(MadeLater):
    def configure_model(self) -> None:
        self.network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


class MadeInSetup(MadeLater):
    def setup(self, stage: str) -> None:  # noqa: ARG002
        self.network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))

    configure_model = LightningModule.configure_model


def test_a_network_that_is_made_later_is_opened_again(tmp_path: Path) -> None:
    trained = run(tmp_path / "run", state("MadeLater"))
    best = f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt"
    assert run(tmp_path / "again", state("MadeLater"), "fit=false", best)["test_loss"] == trained["test_loss"]
    weights = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert_equal(dict(load_run(tmp_path / "run").model.state_dict()), dict(weights))


@pytest.mark.parametrize("task", ["MadeAnew", "MadeInSetup"])
def test_a_network_that_is_made_anew_for_the_test_has_its_weights(tmp_path: Path, task: str) -> None:
    trained = run(tmp_path / "straight", state("MadeLater"), "seed=1")
    best = f"ckpt_path={tmp_path}/straight/checkpoints/best.ckpt"
    if task == "MadeAnew":
        assert run(tmp_path / "again", state(task), "fit=false", best)["test_loss"] == trained["test_loss"]
        frozen = run(tmp_path / "frozen", state(task), best, "task.lr=0", "trainer.max_epochs=1")
        assert frozen["test_loss"] == trained["test_loss"]
    else:
        words = "layers that MadeInSetup.setup makes are not there yet: make them in configure_model"
        assert words in refusal(tmp_path / "again", state(task), "fit=false", best)
    own = run(tmp_path / "run", state(task))
    weights = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    torch.save(weights, tmp_path / "weights.pt")
    same = run(tmp_path / "same", state("MadeLater"), "fit=false", f"ckpt_path={tmp_path}/weights.pt")
    assert own["test_loss"] == same["test_loss"]


class AddsGroup(probe.Probe):
    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.optimizers().add_param_group({"params": [nn.Parameter(torch.ones(1))]})  # type: ignore[union-attr]


def test_a_group_that_is_added_by_hand_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", state("AddsGroup"), "trainer.max_epochs=2")
    said = "a hook has given the optimizer another group of parameters, so this run cannot be resumed from here on"
    assert said in capsys.readouterr().err
    assert json.loads((tmp_path / "run/metrics.json").read_text())["epoch"] == 2
    with pytest.raises(SystemExit), report_errors():
        run(tmp_path / "run", state("AddsGroup"), "trainer.max_epochs=3", "resume=auto")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("the optimizer of the run to resume had other groups of parameters")


class ForTheTest(probe.Probe):
    """Sets what is for the test alone, in one of the hooks that come before it."""

    def __init__(self, lr: float, hook: str) -> None:
        super().__init__(lr)
        self.hook, self.samples = hook, 1

    def setup(self, stage: str) -> None:
        if self.hook == "setup":
            self.samples = 1 if stage == "fit" else 50

    def on_test_start(self) -> None:
        if self.hook == "module":
            self.samples = 50

    def test_step(self, batch: list[Tensor]) -> None:  # noqa: ARG002
        self.log("test_samples", float(self.samples))


class SetsSamples(Callback):
    def on_test_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        pl_module.samples = 50


@pytest.mark.parametrize("hook", ["setup", "module", "callback"])
def test_what_is_set_for_the_test_counts_in_it(tmp_path: Path, hook: str) -> None:
    typed = [state("ForTheTest"), f"+task.hook={hook}"]
    typed += ["+callbacks.samples._target_=test_foreign_state.SetsSamples"] if hook == "callback" else []
    assert run(tmp_path / "run", *typed)["test_samples"] == 50
    best = f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt"
    assert run(tmp_path / "again", *typed, "fit=false", best)["test_samples"] == 50


class Warms(probe.Probe):
    """Is warm in the first epoch: a hook of the start sets what training brings back to what it was."""

    def __init__(self, lr: float, hook: str) -> None:
        super().__init__(lr)
        self.hook, self.warming = hook, False

    def on_fit_start(self) -> None:
        self.warming = self.hook == "on_fit_start"

    def on_train_start(self) -> None:
        self.warming |= self.hook == "on_train_start"

    def on_train_epoch_end(self) -> None:
        self.warming = False

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return (0.1 if self.warming else 1.0) * super().training_step(batch)


class Memory(Dataset[Any]):
    """Losses of earlier batches, with the two methods."""

    def __init__(self) -> None:
        self.losses: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = list(state["losses"])


class Remembers(probe.Probe):
    def __init__(self, lr: float) -> None:
        super().__init__(lr)
        self.memory = Memory()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = super().training_step(batch)
        self.memory.losses.append(loss.detach())
        return loss / (1 + torch.stack(self.memory.losses).mean())


class Cycles(probe.Probe):
    """Takes numbers from an iterator, whose place nobody can save."""

    def on_fit_start(self) -> None:
        self.numbers = itertools.cycle([1.0, 0.5, 0.25])

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return next(self.numbers) * super().training_step(batch)


class EndsEpochs(probe.Probe):
    """Ends each epoch by hand, a batch later each time: Lightning then validates nothing."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:  # noqa: ARG002
        return -1 if batch_idx >= 4 + self.current_epoch else None


def test_an_epoch_that_is_ended_by_hand_is_not_validated_after_a_resume(tmp_path: Path) -> None:
    typed = [state("EndsEpochs"), "monitor=null"]
    run(tmp_path / "straight", *typed, "trainer.max_epochs=3")
    run(tmp_path / "run", *typed, "trainer.max_epochs=1")
    probe.SEEN.clear()
    run(tmp_path / "run", *typed, "trainer.max_epochs=3", "resume=auto")
    assert not [seen for seen in probe.SEEN if seen.stage == "val"]
    last = [torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("run", "straight")]
    assert_equal(last[0]["state_dict"], last[1]["state_dict"])
    assert last[0]["global_step"] == last[1]["global_step"] == 4 + 5 + 6


@pytest.mark.parametrize(
    "typed",
    [[state("Warms"), "+task.hook=on_fit_start"], [state("Warms"), "+task.hook=on_train_start"], [state("Remembers")]],
    ids=["fit", "train", "memory"],
)
@pytest.mark.parametrize("batch", [15, pytest.param(21, marks=pytest.mark.slow)])
def test_it_is_there_after_a_stop(tmp_path: Path, typed: list[str], batch: int) -> None:
    run(tmp_path / "straight", *typed, "trainer.max_epochs=3")
    kill = f"+callbacks.kill={{_target_:faults.InterruptAt,batch:{batch}}}"
    with pytest.raises(SystemExit):
        run(tmp_path / "run", *typed, "trainer.max_epochs=3", kill)
    run(tmp_path / "run", *typed, "trainer.max_epochs=3", kill, "resume=auto")
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "straight"))


def test_an_iterator_is_said_to_be_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", state("Cycles"), "trainer.max_epochs=1")
    run(tmp_path / "run", state("Cycles"), "trainer.max_epochs=2", "resume=auto")
    line = "resumed: not restored, as too large, or of a kind that a checkpoint cannot hold (NumPy values, objects)"
    assert capsys.readouterr().err == f"{line}: task.numbers\n"
