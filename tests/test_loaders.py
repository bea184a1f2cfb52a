import copy
import os
import pickle
import random
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)
from torchvision import transforms

from runlab.config.messages import UserError
from runlab.data.connector import unresumable, use_resumable_loaders
from runlab.data.fetching import is_deterministic
from runlab.data.in_memory import InMemoryDataset
from runlab.data.loaders import ResumableLoader, SeededIterable
from runlab.data.seeding import generators_of, seed_all
from runlab.data.splits import random_order, split

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec"),  # Lightning's own, with torch 2.14
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),  # fork, on Python 3.12
]
INPUTS = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS.sum(1) > 0).long()
SEED = 7


def random_states() -> tuple[bytes, Any, bytes]:
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), pickle.dumps(np.random.get_state())


class Noisy(Dataset[Any]):
    """Draws from the three global generators and from one of its own."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(3)

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> Any:
        noise = torch.randn(4) + float(np.random.randn()) + random.random() + float(self.generator.random())
        return INPUTS[index] + 0.1 * noise, TARGETS[index]


class OwnBatches(Sampler[list[int]]):
    """A batch sampler with generators of its own, which hears of epochs."""

    def __init__(self) -> None:
        self.drawn, self.numpy, self.python = torch.Generator(), np.random.default_rng(1), random.Random(2)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(10):
            first = torch.randint(80, (2,), generator=self.drawn).tolist()
            yield [*first, int(self.numpy.integers(80)), self.python.randrange(80), random.randrange(80), self.epoch]


# Each has 10 batches.
LOADERS: dict[str, Any] = {
    "shuffle": lambda **s: DataLoader(Noisy(), 8, shuffle=True, **s),
    "in order": lambda **s: DataLoader(Noisy(), 8, **s),
    "own generator": lambda **s: DataLoader(Noisy(), 8, shuffle=True, generator=torch.Generator(), **s),
    "weighted": lambda **s: DataLoader(Noisy(), 8, sampler=WeightedRandomSampler((TARGETS + 0.5).tolist(), 80), **s),
    "subset": lambda **s: DataLoader(Noisy(), 7, sampler=SubsetRandomSampler(range(75)), drop_last=True, **s),
    "replacement": lambda **s: DataLoader(Noisy(), 8, sampler=RandomSampler(Noisy(), True, 77), **s),
    "own batches": lambda **s: DataLoader(Noisy(), batch_sampler=OwnBatches(), **s),
    "whole batches": lambda **s: DataLoader(
        TensorDataset(INPUTS, TARGETS), batch_size=None, sampler=BatchSampler(RandomSampler(INPUTS), 8, False), **s
    ),
    "tensors": lambda **s: DataLoader(TensorDataset(INPUTS, TARGETS), 8, shuffle=True, **s),
    "in memory": lambda **s: DataLoader(
        InMemoryDataset(INPUTS, TARGETS, torch.arange(80)), 8, shuffle=True, collate_fn=tuple, **s
    ),
}


class Network(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2))
        self.validated: list[Tensor] = []

    def training_step(self, batch: Any) -> Tensor:
        parts = list(batch.values()) if isinstance(batch, dict) else [batch]
        parts = [part for part in parts if part is not None]  # of a loader that has ended before others
        return sum(nn.functional.cross_entropy(self.net(x), y) for x, y in parts)  # type: ignore[return-value]

    def predict_step(self, batch: Any) -> Any:
        return batch[0]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class Validated(Network):
    def validation_step(self, batch: Any) -> None:
        self.validated.append(batch[0] + torch.rand(1) + random.random())


class Steps(L.Callback):
    """Seeds each step, as the engine does, and saves a checkpoint after some of them and after the epoch."""

    def __init__(self, folder: Path, at: tuple[int, ...] = ()) -> None:
        self.folder, self.at = folder, at

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        seed_all(1_000 + trainer.global_step)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step in self.at:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        if self.at:
            trainer.save_checkpoint(self.folder / f"epoch{trainer.current_epoch}.ckpt")


def trainer(*callbacks: L.Callback, **settings: Any) -> L.Trainer:
    quiet = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
    settings = {"max_epochs": 2, "accelerator": "cpu", "callbacks": list(callbacks), **quiet, **settings}
    made = L.Trainer(use_distributed_sampler=False, **settings)
    use_resumable_loaders(made, SEED)
    return made


def fit(train: Any, *callbacks: L.Callback, resume: Path | None = None, val: Any = None, **settings: Any) -> Network:
    """Train a new network with a new Trainer; global generators that differ each time must not matter."""
    torch.manual_seed(0)
    network = Validated() if val else Network()
    seed_all(random.SystemRandom().randrange(2**31))
    trainer(*callbacks, **settings).fit(network, train, val, ckpt_path=resume, weights_only=False)
    return network


def weights(network: Network) -> list[float]:
    return nn.utils.parameters_to_vector(network.parameters()).tolist()


@pytest.mark.parametrize("kind", LOADERS)
def test_resumed_run_and_any_number_of_workers_give_equal_weights(kind: str, tmp_path: Path) -> None:
    make, steps = LOADERS[kind], Steps(tmp_path)
    expected = weights(fit(make(), Steps(tmp_path, (4, 9, 10, 13))))
    assert weights(fit(make(), steps)) == expected
    for name in ("4", "9", "10", "13", "epoch0"):
        assert weights(fit(make(), steps, resume=tmp_path / f"{name}.ckpt")) == expected, name
    assert weights(fit(make(num_workers=2), steps)) == expected
    persistent = make(num_workers=2, persistent_workers=True)
    assert weights(fit(persistent, steps, resume=tmp_path / "4.ckpt")) == expected


def test_resumed_run_saves_where_it_is_and_seen_batches_are_not_read(tmp_path: Path) -> None:
    read: list[int] = []

    class Counted(Noisy):
        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return super().__getitem__(index)

    def make() -> Any:
        return DataLoader(Counted(), 8, shuffle=True)

    expected = weights(fit(make(), Steps(tmp_path, (4,))))
    in_order = read[:160]
    read.clear()

    class SavesFirst(L.Callback):
        def on_train_start(self, trainer: Any, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / "again.ckpt")  # resumed, and stopped before the first batch

    assert weights(fit(make(), Steps(tmp_path), SavesFirst(), resume=tmp_path / "4.ckpt")) == expected
    assert read == in_order[32:]
    assert weights(fit(make(), Steps(tmp_path, (13,)), resume=tmp_path / "again.ckpt")) == expected
    assert weights(fit(make(), Steps(tmp_path), resume=tmp_path / "13.ckpt")) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_callback_that_goes_through_the_training_data_changes_nothing(workers: int, tmp_path: Path) -> None:
    class Looks(L.Callback):
        def on_train_start(self, trainer: Any, *_: Any) -> None:
            assert len(list(trainer.train_dataloader)) == 10

        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            assert len(list(trainer.train_dataloader)) == 10

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step % 4 == 2:
                next(iter(trainer.train_dataloader))

    make = partial(LOADERS["shuffle"], num_workers=workers)
    expected = weights(fit(make(), Steps(tmp_path)))
    assert weights(fit(make(), Looks(), Steps(tmp_path, (4,)))) == expected
    for name in ("4", "epoch0"):
        assert weights(fit(make(), Looks(), Steps(tmp_path), resume=tmp_path / f"{name}.ckpt")) == expected


@pytest.mark.parametrize("mode", ["max_size_cycle", "max_size", "min_size"])
def test_two_training_loaders_of_different_lengths(mode: Any, tmp_path: Path) -> None:
    def make(**settings: Any) -> Any:
        short = DataLoader(Subset(Noisy(), range(24)), 8, shuffle=True, **settings)  # 3 batches
        return CombinedLoader({"a": LOADERS["shuffle"](**settings), "b": short}, mode)

    limits: dict[str, Any] = {"max_epochs": 5 if mode == "min_size" else 2}
    expected = weights(fit(make(), Steps(tmp_path, (4, 6, 9, 10, 13)), **limits))
    for step in (4, 6, 9, 10, 13):
        assert weights(fit(make(), Steps(tmp_path), resume=tmp_path / f"{step}.ckpt", **limits)) == expected, step
    assert weights(fit(make(num_workers=1), Steps(tmp_path), **limits)) == expected


def test_loaders_side_by_side_and_repetitions_have_orders_of_their_own() -> None:
    pairs: list[tuple[Tensor, Tensor]] = []

    class Keeps(L.Callback):
        def on_train_batch_start(self, _: Any, __: Any, batch: Any, *___: Any) -> None:
            pairs.append((batch["a"][1], batch["b"][1]))

    fit({"a": LOADERS["tensors"](), "b": LOADERS["tensors"]()}, Keeps(), max_epochs=1)
    assert not torch.equal(*(torch.cat(side) for side in zip(*pairs, strict=True)))
    pairs.clear()
    short = DataLoader(TensorDataset(INPUTS[:40], torch.arange(40) % 2), 8, shuffle=True)  # twice in an epoch
    fit({"a": LOADERS["tensors"](), "b": short}, Keeps(), max_epochs=1)
    first, again = torch.cat([b for _, b in pairs]).split(40)
    assert (len(first), len(again)) == (40, 40)
    assert not torch.equal(first, again)


@pytest.mark.parametrize(
    "settings", [{"reload_dataloaders_every_n_epochs": 1}, {"limit_train_batches": 7}, {"max_steps": 17}]
)
def test_settings_of_the_trainer(settings: dict[str, int], tmp_path: Path) -> None:
    class Data(L.LightningDataModule):
        def train_dataloader(self) -> Any:
            return LOADERS["shuffle"]()

    def run(at: tuple[int, ...] = (), **resume: Any) -> list[float]:
        torch.manual_seed(0)
        network = Network()
        made = trainer(Steps(tmp_path, at), **settings)
        made.fit(network, datamodule=Data(), weights_only=False, **resume)
        return weights(network)

    expected = run((4, 7, 10, 13))
    for step in (4, 7, 10, 13):
        assert run(ckpt_path=tmp_path / f"{step}.ckpt") == expected, step


def test_validation_draws_the_same_with_workers_and_leaves_training_alone(tmp_path: Path) -> None:
    val = {workers: DataLoader(Noisy(), 24, num_workers=workers) for workers in (0, 2)}
    networks = [fit(LOADERS["shuffle"](), Steps(tmp_path), val=val[workers]) for workers in (0, 2)]
    first, second = (torch.cat(network.validated) for network in networks)
    assert torch.equal(first, second)
    assert len(first) == 2 * 24 + 2 * 80  # the sanity check's, and all samples of each epoch
    assert not torch.equal(first[-160:-80], first[-80:])  # other noise in each epoch
    expected = weights(fit(LOADERS["shuffle"](), Steps(tmp_path)))
    assert [weights(network) for network in networks] == [expected] * 2


def wrapped(loader: Any, *, rank: int = 0, world: int = 1, training: bool = True, epoch: int = 0) -> ResumableLoader:
    return ResumableLoader(loader, SEED, Epoch(epoch), rank, world, training=training)


class Epoch:
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def __call__(self, _: Any) -> tuple[int, int, int]:
        return self.epoch, 0, 0


class Numbers(Dataset[int]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


def seen(loader: Any) -> list[int]:
    batches = list(loader)
    assert len(batches) == len(loader)
    return [int(index) for batch in batches for index in torch.as_tensor(batch).reshape(-1)]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_shuffled_training_set_is_shared_exactly(world: int, drop_last: bool) -> None:
    orders = []
    for epoch in (0, 1):
        shares = [
            seen(
                wrapped(
                    DataLoader(Numbers(83), 8, shuffle=True, drop_last=drop_last), rank=rank, world=world, epoch=epoch
                )
            )
            for rank in range(world)
        ]
        share = 83 // world // 8 * 8 if drop_last else 83 // world
        assert [len(mine) for mine in shares] == [share] * world
        whole = [index for mine in shares for index in mine]
        assert len(set(whole)) == len(whole)
        assert set(whole) <= set(range(83))
        orders.append(whole)
        generator = torch.Generator().manual_seed(SEED * 1_000_003 + epoch)
        assert shares[0] == torch.randperm(83, generator=generator)[::world][:share].tolist()
    assert orders[0] != orders[1]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_counts_each_sample_once(world: int, workers: int) -> None:
    for loader in (
        DataLoader(Numbers(83), 8, num_workers=workers),
        DataLoader(Numbers(83), 8, shuffle=True),
        DataLoader(Numbers(83), 8, sampler=SubsetRandomSampler(range(83))),
        DataLoader(Numbers(83), batch_sampler=[list(range(n, min(n + 8, 83))) for n in range(0, 83, 8)]),
        DataLoader(Numbers(83), batch_size=None),
    ):
        shares = [wrapped(loader, rank=rank, world=world, training=False) for rank in range(world)]
        whole = [index for mine in shares for index in seen(mine)]
        assert sorted(whole) == list(range(83))


def test_custom_batches_and_samplers_are_shared_in_training() -> None:
    shares = [list(wrapped(LOADERS["own batches"](), rank=rank, world=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3]
    weighted = [wrapped(LOADERS["weighted"](), rank=rank, world=3) for rank in range(3)]
    assert [len(share) for share in weighted] == [4, 4, 4]  # 26 samples each
    whole = seen(wrapped(DataLoader(Numbers(80), 8, sampler=RandomSampler(range(80), num_samples=90))))
    halves = [
        seen(wrapped(DataLoader(Numbers(80), 8, sampler=RandomSampler(range(80), num_samples=90)), rank=rank, world=2))
        for rank in (0, 1)
    ]
    assert [index for pair in zip(*halves, strict=True) for index in pair] == whole


def test_a_distributed_sampler_of_the_users_is_left_alone() -> None:
    samplers = [DistributedSampler[int](Numbers(80), num_replicas=2, rank=rank, seed=5) for rank in (0, 1)]
    orders = []
    for epoch in (0, 3):
        for rank in (0, 1):
            mine = seen(wrapped(DataLoader(Numbers(80), 8, sampler=samplers[rank]), rank=rank, world=2, epoch=epoch))
            assert samplers[rank].epoch == epoch
            assert mine == list(samplers[rank])
            orders.append(mine)
    assert sorted(orders[0] + orders[1]) == list(range(80))
    assert orders[0] != orders[2]


def test_ranks_draw_noise_of_their_own() -> None:
    dataset: Any = ConcatDataset([Noisy()])
    first, second = (next(iter(wrapped(DataLoader(dataset, 8), rank=rank, world=2)))[0] for rank in (0, 1))
    assert not torch.allclose(first - INPUTS[:16:2], second - INPUTS[1:16:2], atol=1e-3)


def test_generators_of_the_users_are_found_where_they_are() -> None:
    class Transform:
        def __init__(self) -> None:
            self.generator = torch.Generator()

        def __call__(self) -> None: ...

    first, second, third = Noisy(), Noisy(), Noisy()
    second.transforms = [Transform(), len, Noisy]  # type: ignore[attr-defined]
    third.itself = third  # type: ignore[attr-defined]
    dataset: Any = Subset(ConcatDataset([first, second, third]), [0])
    expected = {id(noisy.generator) for noisy in (first, second, third)}
    expected |= {id(second.transforms[0].generator)}  # type: ignore[attr-defined]
    assert {id(generator) for generator in generators_of(dataset)} == expected


def test_nothing_is_drawn_or_fetched_before_the_first_batch_is_asked_for() -> None:
    class Asked(Epoch):
        def __call__(self, _: Any) -> tuple[int, int, int]:
            raise AssertionError

    states = random_states()
    iter(ResumableLoader(LOADERS["weighted"](num_workers=2), SEED, Asked(0), training=True))
    assert random_states() == states


def test_drawing_an_order_leaves_the_global_generators_alone() -> None:
    states = random_states()
    for make in (LOADERS["tensors"], LOADERS["in memory"], LOADERS["whole batches"]):
        assert len(list(wrapped(make()))) == 10
    sampler = WeightedRandomSampler((TARGETS + 0.5).tolist(), 80)
    assert len(list(wrapped(DataLoader(TensorDataset(INPUTS), 8, sampler=sampler)))) == 10
    assert random_states() == states


def test_wrapper_has_the_loaders_attributes_and_can_be_copied() -> None:
    loader = LOADERS["shuffle"]()
    resumable = wrapped(loader)
    assert resumable.dataset is loader.dataset
    assert (resumable.batch_size, resumable.sampler) == (8, loader.sampler)
    assert not hasattr(resumable, "no_such_attribute")
    copies = copy.copy(resumable), copy.deepcopy(resumable)
    assert resumable.state_dict() == {}
    expected = torch.cat([batch[0] for batch in resumable])
    for other in copies:
        assert torch.equal(torch.cat([batch[0] for batch in other]), expected)
    half_way = iter(resumable)
    next(half_way)
    assert resumable.state_dict() == {"epoch": 0, "repetition": 0, "batches": 1}


def test_state_counts_for_its_epoch_only_and_for_the_iterator_that_is_made_next() -> None:
    expected = seen(wrapped(DataLoader(Numbers(80), 8, shuffle=True), epoch=2))
    loader = DataLoader(Numbers(80), 8, shuffle=True)
    resumable = wrapped(loader, epoch=2)
    resumable.load_state_dict({"epoch": 2, "repetition": 0, "batches": 3})
    first, second = iter(resumable), iter(resumable)
    assert [int(index) for batch in second for index in batch] == expected
    assert [int(index) for batch in first for index in batch] == expected[24:]
    resumable.load_state_dict({"epoch": 1, "repetition": 0, "batches": 3})
    assert seen(resumable) == expected


class Reader(IterableDataset[Any]):
    """A stream without a length."""

    def __init__(self) -> None:
        self.generator = random.Random(1)

    def __iter__(self) -> Iterator[Any]:
        for index in range(24):
            noise = torch.randn(4) + float(np.random.randn()) + random.random() + self.generator.random()
            yield INPUTS[index] + noise, TARGETS[index]


class SizedReader(Reader):
    def __len__(self) -> int:
        return 24


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_that_draws_is_equal_where_an_epoch_begins_anew(workers: int, tmp_path: Path) -> None:
    def make() -> Any:
        return DataLoader(Reader(), 8, num_workers=workers, persistent_workers=workers > 0)

    steps = 3 if workers == 0 else 6
    expected = weights(fit(make(), Steps(tmp_path, (2 * steps,))))
    assert weights(fit(make(), Steps(tmp_path))) == expected
    assert weights(fit(make(), Steps(tmp_path), resume=tmp_path / "epoch0.ckpt")) == expected


def test_what_cannot_be_resumed_is_named() -> None:
    class Unsized(Sampler[Any]):
        def __iter__(self) -> Iterator[list[int]]:
            yield from [[0, 1], [2, 3]]

    class Stream:
        def __iter__(self) -> Iterator[Any]:
            yield INPUTS[:2], TARGETS[:2]

    class OwnState(DataLoader[Any]):
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    data = TensorDataset(INPUTS, TARGETS)
    own = OwnState(data, 8)
    loaders = {
        "a": DataLoader(Reader(), 8),
        "b": DataLoader(data, batch_sampler=Unsized()),
        "c": Stream(),
        "d": own,
        "e": DataLoader(data, 8),
    }
    made = trainer(max_epochs=1)
    assert unresumable(made) == []
    made.fit(Network(), loaders)
    assert unresumable(made) == ["DataLoader of Reader", "DataLoader of TensorDataset", "Stream"]
    kinds = [type(loader) for loader in made.fit_loop._combined_loader.flattened]  # type: ignore[union-attr]
    assert kinds == [SeededIterable, SeededIterable, SeededIterable, OwnState, ResumableLoader]
    sides: Any = made.train_dataloader
    assert sides["d"] is own
    for loader in (loaders["a"], loaders["b"]):
        with pytest.raises(TypeError):
            len(SeededIterable(loader, SEED, Epoch(0)))
    assert len(SeededIterable(DataLoader(SizedReader(), 5), SEED, Epoch(0))) == 5
    assert len(SeededIterable([1, 2], SEED, Epoch(0))) == 2


class Shifted(Noisy):
    """What a worker's init function sees and changes is the user's dataset."""

    shift = 0.0

    def __getitem__(self, index: int) -> Any:
        info = get_worker_info()
        assert info is not None
        assert info.dataset is self
        return torch.tensor(self.shift)


def set_shift(_: int) -> None:
    info: Any = get_worker_info()
    info.dataset.shift = 1.0


def test_init_function_of_workers_finds_the_users_dataset() -> None:
    loader = wrapped(DataLoader(Shifted(), 8, num_workers=1, worker_init_fn=set_shift))
    assert torch.equal(torch.cat(list(loader)), torch.ones(80))


class Pid(Noisy):
    def __getitem__(self, index: int) -> Any:
        return os.getpid()


def test_workers_live_on_from_epoch_to_epoch_if_wanted() -> None:
    persistent = wrapped(DataLoader(Pid(), 8, num_workers=1, persistent_workers=True))
    assert len({*seen(persistent), *seen(persistent)}) == 1
    CombinedLoader([persistent]).reset()  # as Lightning does at the end
    assert persistent._iterator is None
    passing = wrapped(DataLoader(Pid(), 8, num_workers=1))
    assert len({*seen(passing), *seen(passing)}) == 2


class NoisyStream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Tensor]:
        yield torch.rand(3)


# Case 47
@pytest.mark.parametrize("context", ["spawn", "forkserver"])
@pytest.mark.parametrize(
    "place", ["transform", "transform.transforms.1", "collate_fn", "lock", "stream", "worker_init_fn"]
)
def test_what_cannot_be_sent_to_a_worker_is_named(context: str, place: str) -> None:
    dataset: Any = NoisyStream() if place == "stream" else Noisy()
    options: dict[str, Any] = {}
    unsendable: Any = lambda *_: None  # noqa: E731
    if place in ("collate_fn", "worker_init_fn"):
        options[place], path = unsendable, place
    elif place == "lock":
        dataset.lock, path = threading.Lock(), "Noisy.lock"
    else:
        dataset.transform = transforms.Compose([transforms.ToTensor(), unsendable]) if "." in place else unsendable
        path = f"{type(dataset).__name__}.{place.replace('stream', 'transform')}"
    user = DataLoader(dataset, 8, num_workers=1, multiprocessing_context=context, **options)
    loader = SeededIterable(user, SEED, Epoch(0)) if place == "stream" else wrapped(user)
    with pytest.raises(UserError, match=rf"^{path}: cannot be sent to a worker process, .*num_workers=0$"):
        next(iter(loader))


def test_prediction_knows_its_samples_and_leaves_none_out() -> None:
    class Writer(BasePredictionWriter):
        def __init__(self) -> None:
            super().__init__("batch_and_epoch")
            self.batches: list[Any] = []

        def write_on_batch_end(self, _: Any, __: Any, prediction: Any, indices: Any, *___: Any) -> None:
            assert torch.equal(prediction, INPUTS[indices])
            self.batches.append(indices)

        def write_on_epoch_end(self, _: Any, __: Any, ___: Any, indices: Any) -> None:
            assert indices == [self.batches]

    for loader in (
        LOADERS["in memory"](),
        DataLoader(TensorDataset(INPUTS, TARGETS), 7, drop_last=True, num_workers=1),
    ):
        writer = Writer()
        made = trainer(writer)
        with pytest.warns(UserWarning, match="shuffl") if loader.batch_size == 8 else nullcontext():
            predictions: Any = made.predict(Network(), loader)
        order = [index for batch in writer.batches for index in batch]
        assert sorted(order) == list(range(80))
        assert torch.equal(torch.cat(predictions), INPUTS[order])


def test_a_test_draws_the_same_before_and_after_training(tmp_path: Path) -> None:
    class Tested(Network):
        def test_step(self, batch: Any) -> None:
            self.log("noise", batch[0].sum() + torch.rand(()))

    torch.manual_seed(0)
    network, made = Tested(), trainer(Steps(tmp_path))
    before = trainer().test(network, LOADERS["in order"](), verbose=False)
    made.fit(network, LOADERS["tensors"]())
    assert made.test(network, LOADERS["in order"](), verbose=False) == before


def test_a_combined_loader_of_the_users_can_be_used_by_another_trainer(tmp_path: Path) -> None:
    combined = CombinedLoader({"a": LOADERS["shuffle"]()})
    assert weights(fit(combined, Steps(tmp_path))) == weights(fit(combined, Steps(tmp_path)))
    assert weights(fit(combined, Steps(tmp_path))) == weights(fit({"a": LOADERS["shuffle"]()}, Steps(tmp_path)))


def test_overfit_batches_still_turns_shuffling_off() -> None:
    made = trainer(overfit_batches=3, max_epochs=1)
    with pytest.warns(UserWarning, match="overfit"):
        made.fit(Network(), LOADERS["tensors"]())
    used: Any = made.train_dataloader
    assert torch.equal(next(iter(used))[0], INPUTS[:8])


def test_which_datasets_are_known_to_draw_nothing() -> None:
    tensors, held = TensorDataset(INPUTS), InMemoryDataset(INPUTS, TARGETS, torch.arange(80))

    class Own(TensorDataset):
        pass

    dataset: Any
    for dataset in (tensors, held, Subset(tensors, [1]), Subset(Subset(held, [2]), [0])):
        assert is_deterministic(dataset, tuple)
        assert is_deterministic(dataset, default_collate)
        assert not is_deterministic(dataset, list)
    for dataset in (Own(INPUTS), Subset(Own(INPUTS), [1]), ConcatDataset([tensors]), Noisy()):
        assert not is_deterministic(dataset, tuple)


def test_dataset_in_memory() -> None:
    whole = InMemoryDataset.in_memory(INPUTS, TARGETS, "auto", torch.device("cpu"))
    part = whole.subset(torch.tensor([5, 3, 70])).subset(torch.tensor([2, 0]))
    assert (len(whole), len(part), part.device) == (80, 2, torch.device("cpu"))
    assert part.inputs.data_ptr() == INPUTS.data_ptr()
    assert torch.equal(part[0][0], INPUTS[70])
    for index in ([1, 0], torch.tensor([1, 0])):
        inputs, targets = part.__getitems__(index)
        assert torch.equal(inputs, INPUTS[[5, 70]])
        assert torch.equal(targets, TARGETS[[5, 70]])


def test_split_says_which_value_is_wrong() -> None:
    train, val, _ = split(random_order(10, 0), 0, 3, None, None)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(10))
    assert (len(train), len(val)) == (7, 3)
    with pytest.raises(UserError, match=r"data.val_size=10: the training set has only 10 samples"):
        split(random_order(10, 0), 0, 10, None, None)
    with pytest.raises(UserError, match=r"data.folds=11: the training set has only 10 samples"):
        split(random_order(10, 0), 0, 0, 11, 0)
