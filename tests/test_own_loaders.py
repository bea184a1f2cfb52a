"""Loaders, samplers and data sets of a user's own: each is resumed equal, or a line says that it cannot be."""

import itertools
import json
import random
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from test_loaders import INPUTS, SEED, TARGETS, Network, Numbers, Steps, trainer, weights, wrapped
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
    random_split,
)

from runlab.config.messages import UserError, report_errors
from runlab.data.seeding import seed_all
from runlab.load import load_run
from runlab.training.fit_loop import use_engine_loops
from train import train

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec"),  # Lightning's own, with torch 2.14
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),  # fork, on Python 3.12
]


def fit(train: Any, *callbacks: L.Callback, resume: Path | None = None, **settings: Any) -> Network:
    """Train a new network by the engine's loops; global generators that differ each time must not matter."""
    torch.manual_seed(0)
    network = Network()
    seed_all(random.SystemRandom().randrange(2**31))
    made = trainer(*callbacks, **settings)
    use_engine_loops(made, SEED, fast=True)
    made.fit(network, train, ckpt_path=resume, weights_only=True)
    return network


class Counting(Sampler[int]):
    """Its order depends on how often it has been gone through to the end."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return 80

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(80, generator=torch.Generator().manual_seed(self.passes)).tolist()
        self.passes += 1


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_sampler_does_after_its_last_index_is_done(workers: int) -> None:
    """The order is that of a loop over the plain loader."""
    samplers = Counting(), Counting(), Counting(), Counting()
    for epoch in range(3):
        plain = [int(i) for batch in DataLoader(Numbers(80), 7, sampler=samplers[0]) for i in batch]
        makes: list[dict[str, Any]] = [
            {"batch_size": 7, "sampler": samplers[1]},
            {"batch_sampler": BatchSampler(samplers[2], 7, False)},
            {"batch_sampler": type("Own", (BatchSampler,), {})(samplers[3], 7, False)},
        ]
        for make in makes:
            loader = wrapped(DataLoader(Numbers(80), num_workers=workers, **make), epoch=epoch)
            assert [int(i) for batch in loader for i in batch] == plain
    assert [sampler.passes for sampler in samplers] == [3] * 4


def test_a_sampler_without_an_end_is_read_as_far_as_needed() -> None:
    class Endless(Counting):
        def __iter__(self) -> Iterator[int]:
            while True:
                yield self.passes % 80
                self.passes += 1

    sampler = Endless()
    loader = wrapped(DataLoader(Numbers(80), 8, sampler=sampler))
    assert [int(i) for batch in loader for i in batch] == list(range(80))
    assert sampler.passes == 80


class Items(Dataset[Any]):
    """Samples that are given as they are."""

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> Any:
        return INPUTS[index], TARGETS[index]


class LazyGenerator(Items):
    """Makes its generator when the first sample is read, from what the system gives."""

    generator: Any = None

    def __getitem__(self, index: int) -> Any:
        if self.generator is None:
            self.generator = np.random.default_rng()
        return INPUTS[index] + float(self.generator.random()), TARGETS[index]


class Helper:
    """No transform that is called, but an object with a generator of its own."""

    def __init__(self) -> None:
        self.generators: dict[str, Any] = {"numpy": np.random.default_rng(), "python": random.Random()}

    def noise(self) -> float:
        return float(self.generators["numpy"].random() + self.generators["python"].random())


class Helped(Items):
    def __init__(self) -> None:
        self.helper = Helper()
        self.transform = partial(self.add, self.helper)

    @staticmethod
    def add(helper: Helper, inputs: Tensor) -> Tensor:
        return inputs + helper.noise()

    def __getitem__(self, index: int) -> Any:
        return self.transform(INPUTS[index]), TARGETS[index]


class Caching(Items):
    """Keeps what it has read; a crop, drawn for each sample anew, comes after."""

    def __init__(self) -> None:
        self.cache: dict[int, Tensor] = {}
        self.reads = 0

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        if index not in self.cache:
            self.cache[index] = INPUTS[index] * 2
        return self.cache[index] + torch.rand(4), TARGETS[index]


class Curriculum(Items):
    """What its samples are depends on a number that a callback sets at the start of each epoch."""

    level = 0

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner

    def __getitem__(self, index: int) -> Any:
        return INPUTS[index] * self.level, TARGETS[index]


class SetsLevel(L.Callback):
    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        for loader in trainer.fit_loop._combined_loader.flattened:
            dataset = loader.dataset
            while isinstance(dataset, Subset):
                dataset = dataset.dataset
            dataset.level = trainer.current_epoch + 1


class Remembering(Sampler[int]):
    """Goes on from the order of the epoch before, in all kinds of values."""

    def __init__(self) -> None:
        self.order, self.array = list(range(80)), np.arange(80)
        self.tensor, self.recent, self.inner = torch.arange(80), deque([1, 2], maxlen=2), Counting()
        self.some, self.pair, self.table = {1}, (1, 2), {"a": 1}

    def __len__(self) -> int:
        return 80

    def __iter__(self) -> Iterator[int]:
        first = list(self.inner)
        random.shuffle(self.order)
        np.random.shuffle(self.array)
        self.tensor[:] = self.tensor.roll(1)
        self.recent.append(self.order[0])
        self.some.add(self.recent[0])
        self.pair = (self.pair[1], self.order[1])
        self.table["a"] += sum(self.recent) + sum(self.some) + self.pair[0]
        for index in range(80):
            yield first[self.order[self.array[(self.tensor[index] + self.table["a"]) % 80]]]


class Weights(L.Callback):
    """Changes the weights of a sampler by what was seen, in the middle of an epoch."""

    def on_train_batch_end(self, trainer: Any, _: Any, __: Any, batch: Any, ___: int) -> None:
        sampler = trainer.train_dataloader.sampler
        sampler.weights[int(batch[0].sum().abs() * 1000) % 80] += 5


class OwnBatchSampler(BatchSampler):
    """Draws with a generator of its own, and grows its batches from epoch to epoch."""

    def __init__(self) -> None:
        self.generator, self.size = np.random.default_rng(1), 4
        super().__init__(RandomSampler(range(80), generator=torch.Generator()), 8, False)

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(10):
            yield self.generator.integers(80, size=self.size).tolist()
        self.size += 2


class Epochs(Counting):
    def set_epoch(self, epoch: int) -> None:
        self.passes = epoch + 5


class NoisyCollate:
    def __init__(self) -> None:
        self.generator = torch.Generator()

    def __call__(self, samples: Any) -> Any:
        inputs, targets = default_collate(samples)
        return inputs + torch.rand(4, generator=self.generator) + random.random() * float(np.random.rand()), targets


class Growing(IterableDataset[Any]):
    """A stream that gives another order each time, as it counts."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        for index in torch.randperm(80, generator=torch.Generator().manual_seed(self.passes)).tolist():
            yield INPUTS[index], TARGETS[index]
        self.passes += 1


class Stream:
    """A loader of a user's own, which counts."""

    def __init__(self) -> None:
        self.passes = np.int64(0)

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        for start in range(0, 80, 8):
            yield INPUTS[start : start + 8] * int(self.passes), TARGETS[start : start + 8]


def closing_over() -> Any:
    generator = np.random.default_rng()

    def collate(samples: Any) -> Any:
        inputs, targets = default_collate(samples)
        return inputs + float(generator.random()), targets

    return collate


def seeds_own(worker: int) -> None:
    info: Any = get_worker_info()
    info.dataset.generator = np.random.default_rng(worker)


OWN: dict[str, Any] = {
    "lazy generator": lambda **s: DataLoader(LazyGenerator(), 8, shuffle=True, **s),
    "worker_init_fn": lambda **s: DataLoader(LazyGenerator(), 8, shuffle=True, worker_init_fn=seeds_own, **s),
    "helper": lambda **s: DataLoader(Helped(), 8, shuffle=True, **s),
    "caching": lambda **s: DataLoader(Caching(), 8, shuffle=True, **s),
    "counting sampler": lambda **s: DataLoader(Items(), 8, sampler=Counting(), **s),
    "batches of a counting sampler": lambda **s: DataLoader(
        Items(), batch_sampler=BatchSampler(Counting(), 8, False), **s
    ),
    "remembering sampler": lambda **s: DataLoader(Items(), 8, sampler=Remembering(), **s),
    "growing batches": lambda **s: DataLoader(Items(), batch_sampler=OwnBatchSampler(), **s),
    "set_epoch": lambda **s: DataLoader(Items(), 8, sampler=Epochs(), **s),
    "changed weights": lambda **s: DataLoader(
        Items(), 8, sampler=WeightedRandomSampler(torch.ones(80).tolist(), 80), **s
    ),
    "curriculum": lambda **s: DataLoader(Curriculum(), 8, shuffle=True, **s),
    "parts": lambda **s: DataLoader(random_split(Caching(), [75, 5], torch.Generator())[0], 8, shuffle=True, **s),
    "parts of parts": lambda **s: DataLoader(
        ConcatDataset([Subset(LazyGenerator(), range(40)), Subset(Helped(), range(40))]), 8, shuffle=True, **s
    ),
    "parts of a curriculum": lambda **s: DataLoader(Subset(Curriculum(Items()), range(80)), 8, **s),
    "collate": lambda **s: DataLoader(Items(), 8, shuffle=True, collate_fn=NoisyCollate(), **s),
    "collate with a closure": lambda **s: DataLoader(Items(), 8, shuffle=True, collate_fn=closing_over(), **s),
    "generator": lambda **s: DataLoader(Helped(), 8, shuffle=True, generator=torch.Generator().manual_seed(3), **s),
}
CALLBACKS: dict[str, Any] = {"curriculum": SetsLevel, "parts of a curriculum": SetsLevel, "changed weights": Weights}


@pytest.mark.parametrize("name", OWN)
def test_a_loader_of_ones_own_is_resumed_equal(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*steps: int, resume: str = "", **settings: Any) -> list[float]:
        more = [CALLBACKS[name]()] if name in CALLBACKS else []
        path = tmp_path / resume if resume else None
        return weights(fit(OWN[name](**settings), *more, Steps(tmp_path, steps), resume=path, max_epochs=3))

    expected = run(4, 14)
    for saved in ("4", "14", "epoch0", "epoch1"):
        assert run(resume=f"{saved}.ckpt") == expected, saved
    # Python 3.14 starts workers in a way that neither a closure nor a generator of torch's can be sent by.
    by_fork: dict[str, Any] = {"multiprocessing_context": "fork"} if "collate" in name else {}
    settings: dict[str, Any] = {
        "prefetch_factor": 3,
        "timeout": 20,
        "persistent_workers": name not in CALLBACKS,
        **by_fork,
    }
    assert run(num_workers=1, **settings) == expected
    assert run(num_workers=2, resume="14.ckpt", **by_fork) == expected
    assert "training data" not in capsys.readouterr().err


@pytest.mark.parametrize("make", [lambda: DataLoader(Growing(), 8), Stream], ids=["stream", "own loader"])
def test_a_stream_that_counts_is_equal_where_an_epoch_begins_anew(make: Any, tmp_path: Path) -> None:
    expected = weights(fit(make(), Steps(tmp_path, (30,)), max_epochs=3))
    for saved in ("epoch0", "epoch1"):
        again = fit(make(), Steps(tmp_path), resume=tmp_path / f"{saved}.ckpt", max_epochs=3)
        assert weights(again) == expected, saved


class CachingDraws(Items):
    """Keeps what it drew when a sample was read for the first time."""

    def __init__(self) -> None:
        self.cache: Any = [None] * 500

    def __getitem__(self, index: int) -> Any:
        if self.cache[index] is None:
            self.cache[index] = INPUTS[index] + torch.rand(4)
        return self.cache[index], TARGETS[index]


class CountingReads(Items):
    reads = 0

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return INPUTS[index] * self.reads, TARGETS[index]


class InPlace(Items):
    def __init__(self) -> None:
        self.cache, self.filled = torch.zeros(80, 4), np.zeros(80, dtype=bool)

    def __getitem__(self, index: int) -> Any:
        if not self.filled[index]:
            self.filled[index], self.cache[index] = True, torch.rand(4)
        return self.cache[index], TARGETS[index]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [CachingDraws, CountingReads, InPlace])
def test_samples_that_depend_on_others_are_said(
    kind: Any, workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"training data (DataLoader of {kind.__name__}): a sample depends on those that were read before it, so a"
    line += " resumed run will come out differently\n"
    fit(DataLoader(kind(), 8, num_workers=workers), Steps(tmp_path, (4,)))
    assert capsys.readouterr().err == line
    fit(DataLoader(kind(), 8, num_workers=workers), Steps(tmp_path), resume=tmp_path / "4.ckpt")
    assert capsys.readouterr().err == line


class Iterating(Counting):
    """Holds an iterator, which nobody can save."""

    def __init__(self) -> None:
        self.source: Any = itertools.cycle(range(80))

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self.source, 75)

    def __len__(self) -> int:
        return 75


def test_a_sampler_whose_state_cannot_be_saved_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "training data (DataLoader of Items): `source` lasts from epoch to epoch and cannot be saved, so a resumed"
    line += " run will come out differently\n"
    for _ in range(2):
        fit(DataLoader(Items(), 8, sampler=Iterating()), Steps(tmp_path))
        assert capsys.readouterr().err == line


class WithLoaders(Network):
    """A module that brings its own data."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr, self.samples = lr, Caching()

    def train_dataloader(self) -> Any:
        return DataLoader(self.samples, 8, sampler=Counting())

    def val_dataloader(self) -> Any:
        return DataLoader(Items(), 30)

    test_dataloader = val_dataloader

    def validation_step(self, batch: Any) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def test_step(self, batch: Any) -> None:
        self.log("test_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))


WITH_LOADERS = ["~task", "~data", "+task={_target_: test_own_loaders.WithLoaders, lr: 0.1}", "monitor=val_loss"]
QUIET = ["logger=none", "trainer.max_epochs=2", "mode=min"]


def contents(run_dir: Path) -> Any:
    """Weights, counters and metrics of the last checkpoint, and the final metrics."""
    checkpoint = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    kept = [checkpoint[key] for key in ("optimizer_states", "epoch", "global_step", "metrics")]
    return [value.tolist() for value in checkpoint["state_dict"].values()], repr(kept), metrics | {"seconds": 0}


def plain_config(tmp_path: Path, *overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose("train", [f"run_dir={tmp_path}/run", *QUIET, *overrides])


def test_a_module_with_loaders_of_its_own_is_resumed_and_tested(tmp_path: Path) -> None:
    metrics = train(plain_config(tmp_path, *WITH_LOADERS, f"run_dir={tmp_path}/straight"))
    assert {"val_loss", "test_loss"} < set(metrics)
    assert metrics["global_step"] == 20
    for stop in (13, 11):
        interrupt = f"+callbacks.interrupt={{_target_: faults.InterruptAt, batch: {stop}}}"
        with pytest.raises(SystemExit):
            train(plain_config(tmp_path, *WITH_LOADERS, interrupt, f"run_dir={tmp_path}/{stop}"))
        train(plain_config(tmp_path, *WITH_LOADERS, f"run_dir={tmp_path}/{stop}", "resume=auto"))
        assert contents(tmp_path / str(stop)) == contents(tmp_path / "straight")
    run = load_run(tmp_path / "straight")
    assert run.data is None
    assert len(next(iter(run.model.train_dataloader()))[0]) == 8


def test_a_module_without_loaders_needs_a_data_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without = ["~task", "~data", "+task={_target_: mine.Teacher, lr: 0.1}"]
    with pytest.raises(UserError, match=r"data=null: Teacher has no train_dataloader; choose data=..., or give it one"):
        train(plain_config(tmp_path, *without))
    both = [*WITH_LOADERS, "+data={_target_: test_own_loaders.Data}", "trainer.max_epochs=1"]
    assert train(plain_config(tmp_path, *both))["global_step"] == 5
    line = "data: the loaders are those of Data; for those of WithLoaders add data=null\n"
    assert line in capsys.readouterr().err


class Data(L.LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(Items(), 16)

    def val_dataloader(self) -> Any:
        return DataLoader(Items(), 30)


def batches() -> Iterator[Any]:
    for start in range(0, 80, 8):
        yield INPUTS[start : start + 8], TARGETS[start : start + 8]


class Nothing(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


FEW = Subset(Items(), range(5))
NO_BATCH = "there is no batch; fewer samples than a batch, with drop_last=True?"
ONCE = "has batches for the first epoch only; return a DataLoader, or an object whose __iter__ begins anew"
WRONG: dict[str, tuple[Any, str]] = {
    "empty data set": (lambda: DataLoader(Subset(Items(), []), 8), f"training data (DataLoader of Subset): {NO_BATCH}"),
    "drop_last": (lambda: DataLoader(FEW, 8, drop_last=True), f"training data (DataLoader of Subset): {NO_BATCH}"),
    "one of two empty": (
        lambda: {"a": DataLoader(Items(), 8), "b": DataLoader(FEW, 8, drop_last=True)},
        f"training data (DataLoader of Subset): {NO_BATCH}",
    ),
    "empty list": (list, f"training data (list): {NO_BATCH}"),
    "empty stream": (
        lambda: DataLoader(Nothing(), 8),
        "training data (DataLoader of Nothing): no batch came in epoch 1; an empty source, or one that can be read only"
        " once?",
    ),
    "generator": (batches, f"train_dataloader: a generator {ONCE}"),
    "iterator": (lambda: iter([*batches()]), f"train_dataloader: a list_iterator {ONCE}"),
    "batches": (
        lambda: [*batches()],
        "train_dataloader: a Tensor is no loader of batches; put it into a DataLoader",
    ),
    "data set": (Items, "train_dataloader: a Items is no loader of batches; put it into a DataLoader"),
    "sequential": (
        lambda: CombinedLoader([DataLoader(Items(), 8), DataLoader(Items(), 8)], "sequential"),
        "training data: CombinedLoader with mode=sequential is for evaluation alone; take mode max_size_cycle, max_size"
        " or min_size",
    ),
    "none": (lambda: None, "An invalid dataloader was returned from `Given.train_dataloader()`. Found None."),
}


class Given(Data):
    """Gives the loader of the table for one stage, and good ones for the others."""

    def __init__(self, name: str, stage: str) -> None:
        super().__init__()
        self.case, self.stage = name, stage

    def loader(self, stage: str) -> Any:
        return WRONG[self.case][0]() if self.stage == stage else DataLoader(Items(), 30)

    def train_dataloader(self) -> Any:
        return self.loader("train")

    def val_dataloader(self) -> Any:
        return self.loader("val")

    def test_dataloader(self) -> Any:
        return self.loader("test")


class Evaluated(WithLoaders):
    train_dataloader = L.LightningModule.train_dataloader


def given(name: str, stage: str) -> list[str]:
    data = f"+data={{_target_: test_own_loaders.Given, name: '{name}', stage: {stage}}}"
    return ["~task", "+task={_target_: test_own_loaders.Evaluated, lr: 0.1}", "~data", data, "monitor=null"]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_training_loader_is_a_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as caught, report_errors():
        train(plain_config(tmp_path, *given(name, "train")))
    assert caught.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "cannot be resumed within" not in line]
    assert [line for line in lines if not line.startswith("INFO")] == [WRONG[name][1]]


def test_a_loader_that_gives_nothing_to_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"val_dataloader: a generator has batches for the first epoch only"):
        train(plain_config(tmp_path, *given("generator", "val")))
    assert "test_loss" in train(plain_config(tmp_path, *given("generator", "test"), f"run_dir={tmp_path}/once"))
    assert "test_loss" not in train(plain_config(tmp_path, *given("drop_last", "test"), f"run_dir={tmp_path}/none"))
    assert "nothing is tested: test_dataloader gives no batch" in capsys.readouterr().out


def test_a_list_of_one_loader_is_a_batch_in_a_list(tmp_path: Path) -> None:
    steps = [4, 13]
    expected = weights(fit({"a": DataLoader(Items(), 8, shuffle=True)}, Steps(tmp_path, (*steps,))))
    for step in steps:
        again = fit({"a": DataLoader(Items(), 8, shuffle=True)}, Steps(tmp_path), resume=tmp_path / f"{step}.ckpt")
        assert weights(again) == expected


class EachTime(Data):
    """Another loader each time: by the epoch, by how often it was asked, by what a callback has set, or a stream."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.calls, self.scale = kind, 0, 1

    def train_dataloader(self) -> Any:
        self.calls += 1
        epoch: int = self.trainer.current_epoch  # type: ignore[union-attr]
        if self.kind == "stream":
            stream = Growing()
            stream.passes = epoch
            return DataLoader(stream, 8)
        size = {"epoch": epoch + 1, "calls": self.calls, "callback": self.scale}[self.kind]
        return DataLoader(Helped(), 8 * size, shuffle=True)

    test_dataloader = Data.val_dataloader


class Scales(L.Callback):
    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        trainer.datamodule.scale += 1


RELOAD = "+trainer.reload_dataloaders_every_n_epochs"


@pytest.mark.parametrize(
    ("kind", "options", "stops"),
    [
        ("epoch", [f"{RELOAD}=1"], (3, 13)),
        ("calls", [f"{RELOAD}=1"], (13, 17)),
        ("callback", [f"{RELOAD}=1", "+callbacks.scales._target_=test_own_loaders.Scales"], (13, 17)),
        ("epoch", [f"{RELOAD}=2"], (13,)),
        ("calls", ["trainer.limit_train_batches=0.5"], (7,)),
        ("epoch", ["trainer.limit_train_batches=4"], (6,)),
        ("epoch", [f"{RELOAD}=1", "trainer.limit_train_batches=0.5"], (6,)),
        ("epoch", ["+trainer.overfit_batches=2"], (3,)),
        ("calls", [f"{RELOAD}=1", "trainer.limit_val_batches=0"], (13,)),
        ("stream", [f"{RELOAD}=1", "+trainer.val_check_interval=2"], (15,)),
    ],
)
@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.slow
def test_another_loader_each_epoch_is_resumed_equal(
    kind: str, options: list[str], stops: tuple[int, ...], tmp_path: Path
) -> None:
    data = f"+data={{_target_: test_own_loaders.EachTime, kind: {kind}}}"
    task = ["~task", "+task={_target_: test_own_loaders.Evaluated, lr: 0.1}", "monitor=null", "trainer.max_epochs=3"]
    setting = ["~data", data, *task, *options]
    train(plain_config(tmp_path, *setting, f"run_dir={tmp_path}/straight"))
    for stop in stops:
        interrupt = f"+callbacks.interrupt={{_target_: faults.InterruptAt, batch: {stop}}}"
        with pytest.raises(SystemExit):
            train(plain_config(tmp_path, *setting, interrupt, f"run_dir={tmp_path}/{stop}"))
        train(plain_config(tmp_path, *setting, f"run_dir={tmp_path}/{stop}", "resume=auto"))
        assert contents(tmp_path / f"{stop}") == contents(tmp_path / "straight"), stop


class Stored(Items):
    """Holds arrays that torch cannot take: of another byte order, backwards, of 16 bytes."""

    def __init__(self) -> None:
        self.order = np.arange(80)[::-1]
        self.scale = np.ones(4, dtype=">f4")
        self.exact = np.ones(4, dtype=np.longdouble)

    def __getitem__(self, index: int) -> Any:
        return INPUTS[self.order[index]] * torch.tensor(self.scale.astype(np.float32)), TARGETS[index]


class Tokens(IterableDataset[Any]):
    """A stream over an array of more values than a checkpoint takes."""

    def __init__(self) -> None:
        self.tokens = np.arange(2_000_000, dtype=np.uint16)

    def __iter__(self) -> Iterator[Any]:
        for index in range(80):
            yield INPUTS[index] * int(self.tokens[index] > 9), TARGETS[index]


class CountsSingle(Counting):
    """Counts in a float of 32 bits, which a plain number would not be."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Any = np.float32(0)

    def __iter__(self) -> Iterator[int]:
        self.seen += np.float32(0.1)
        yield from super().__iter__()


@pytest.mark.parametrize("kind", [Stored, Tokens])
def test_any_array_may_stand_in_a_data_set(kind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = weights(fit(DataLoader(kind(), 8), Steps(tmp_path, (4,)), max_epochs=2))
    assert (
        weights(fit(DataLoader(kind(), 8), Steps(tmp_path), resume=tmp_path / "epoch0.ckpt", max_epochs=2)) == expected
    )
    assert capsys.readouterr().err == ""


def test_a_number_of_another_precision_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(DataLoader(Items(), 8, sampler=CountsSingle()), Steps(tmp_path), max_epochs=2)
    assert "`seen` lasts from epoch to epoch and cannot be saved" in capsys.readouterr().err
