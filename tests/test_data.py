import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, SMALL_TEST, SMALL_TRAIN, Compose
from hydra.utils import instantiate
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import MNIST
from torchvision.transforms.v2 import Compose as Chain
from torchvision.transforms.v2 import Normalize, RandomErasing, RandomHorizontalFlip, ToDtype

from digits.data import ImageDataModule
from runlab.config.messages import UserError
from runlab.data.batch_order import BatchOrder
from runlab.data.fused import fused
from runlab.data.in_memory import InMemoryDataset
from runlab.data.loaders import ResumableLoader
from runlab.data.splits import random_order, split
from runlab.training.build import build_task, build_trainer
from runlab.training.progress import filter_warnings


def resumable(loader: Any, epoch: int = 0, seed: int = 0) -> ResumableLoader:
    """What the engine puts in place of a loader, at the start of an epoch."""
    return ResumableLoader(loader, seed, lambda _: (epoch, 0, 0), training=True)


def drawn(size: int, batch_size: int, drop_last: bool, shuffle: bool, place: tuple[int, int, int, int]) -> Any:
    """The batches of an epoch of `size` samples; `place` is seed, epoch, rank and number of ranks."""
    dataset = InMemoryDataset(torch.arange(size), torch.arange(size), torch.arange(size))
    loader = DataLoader(dataset, batch_size, shuffle, drop_last=drop_last, collate_fn=tuple)
    seed, epoch, rank, world = place
    order = BatchOrder(loader, rank, world, equal=shuffle)
    batches = order.draw(seed, epoch, 0, torch.device("cpu"))
    assert len(batches) == len(order)
    return batches


@pytest.fixture
def build(composed: Compose) -> Any:
    """A data module from the config, set up for `stage`."""

    def build(*overrides: str, stage: str = "fit") -> ImageDataModule:
        data: ImageDataModule = instantiate(composed(*overrides).data, _convert_="all")
        data.prepare_data()
        data.setup(stage)
        return data

    return build


def test_split_is_55000_and_5000_and_the_same_for_every_seed(build: Any) -> None:
    first, second = build("seed=0"), build("seed=1")
    assert (len(first.train_set), len(first.val_set)) == (55_000, 5_000)
    images, labels = first.val_set[:]
    assert (images.shape, images.dtype) == ((5_000, 1, 28, 28), torch.uint8)
    assert (labels.shape, labels.dtype) == ((5_000,), torch.int64)
    assert torch.equal(first.val_set.indices, second.val_set.indices)
    assert torch.equal(torch.cat([first.train_set.indices, first.val_set.indices]).sort().values, torch.arange(60_000))
    assert first.train_set.inputs.data_ptr() == first.val_set.inputs.data_ptr()  # in memory once
    assert first.test_set is None


def test_split_parts_are_the_training_set(build: Any) -> None:
    data, official = build(), MNIST(ROOT / "data", train=True)
    for part in (data.train_set, data.val_set):
        assert torch.equal(part[:][0][:, 0], official.data[part.indices])
        assert torch.equal(part[:][1], official.targets[part.indices])
    assert not torch.equal(build("data.split_seed=1").val_set.indices, data.val_set.indices)


def test_test_set_is_the_official_one(build: Any) -> None:
    data, official = build(stage="test"), MNIST(ROOT / "data", train=False)
    assert data.train_set is None
    images, labels = (torch.cat(part) for part in zip(*data.test_dataloader(), strict=True))
    assert torch.equal(images[:, 0], official.data)
    assert torch.equal(labels, official.targets)


def test_all_images_for_training(build: Any) -> None:
    data = build("data.val_size=0")
    assert len(data.train_set) == 60_000
    assert data.val_dataloader() == []


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_folds_are_disjoint_equal_and_cover_the_training_set(build: Any, folds: int) -> None:
    parts = [build(f"data.folds={folds}", f"data.fold={fold}") for fold in range(folds)]
    for data in parts:
        both = torch.cat([data.train_set.indices, data.val_set.indices])
        assert torch.equal(both.sort().values, torch.arange(60_000))
        assert sum(len(labels) for _, labels in data.val_dataloader()) == len(data.val_set)
    validated = torch.cat([data.val_set.indices for data in parts])
    assert torch.equal(validated.sort().values, torch.arange(60_000))
    sizes = [len(data.val_set) for data in parts]
    assert (max(sizes) - min(sizes), sum(sizes)) == (60_000 % folds != 0, 60_000)


def test_folds_are_the_same_for_every_seed_and_others_with_split_seed(build: Any) -> None:
    def kept(*overrides: str) -> torch.Tensor:
        indices: torch.Tensor = build("data.folds=5", "data.fold=1", *overrides).val_set.indices
        return indices

    assert torch.equal(kept("seed=0"), kept("seed=1"))
    assert torch.equal(kept("data.val_size=0"), kept("data.val_size=60000"))  # it has no effect
    assert not torch.equal(kept("data.split_seed=1"), kept())


@pytest.mark.parametrize("size", [5, 6, 9])
def test_a_few_samples_fall_into_folds_too(size: int) -> None:
    parts = [split(random_order(size, 0), 0, 0, 5, fold)[1].tolist() for fold in range(5)]
    assert sorted(index for part in parts for index in part) == list(range(size))
    assert {len(part) for part in parts} <= {size // 5, size // 5 + 1}


def test_batches_and_the_last_smaller_one(build: Any) -> None:
    data = build()
    sizes = [len(labels) for _, labels in data.train_dataloader()]
    assert sizes == [256] * 214 + [55_000 - 214 * 256]
    sizes = [len(labels) for _, labels in build("data.drop_last=true").train_dataloader()]
    assert sizes == [256] * 214
    assert [len(labels) for _, labels in data.val_dataloader()] == [1000] * 5


def test_loader_gives_what_indexing_gives(build: Any) -> None:
    data = build()
    loader = resumable(data.train_dataloader())
    order = BatchOrder(data.train_dataloader(), 0, 1, equal=True).draw(0, 0, 0, torch.device("cpu"))
    for (images, labels), index in zip(loader, order, strict=True):
        assert torch.equal(images, data.train_set[index][0])
        assert torch.equal(labels, data.train_set[index][1])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_batches(build: Any, workers: int) -> None:
    alone = build("data.batch_size=5000").train_dataloader()
    shared = build("data.batch_size=5000", f"data.num_workers={workers}").train_dataloader()
    for epoch in range(2):
        for ours, theirs in zip(resumable(alone, epoch), resumable(shared, epoch), strict=True):
            assert torch.equal(ours[0], theirs[0])
            assert torch.equal(ours[1], theirs[1])


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        torch.rand(3)  # whatever was drawn before
        return torch.cat(drawn(1000, 256, False, True, (seed, epoch, 0, 1))).tolist()

    assert order(0, 0) == order(0, 0)
    assert sorted(order(0, 0)) == list(range(1000))
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    generator = torch.Generator().manual_seed(2 * 1_000_003 + 1)
    assert order(2, 1) == torch.randperm(1000, generator=generator).tolist()


@pytest.mark.parametrize(("size", "world"), [(10, 1), (10, 3), (10_000, 3)])
def test_ranks_share_an_evaluation_exactly_and_training_equally(size: int, world: int) -> None:
    def parts(shuffle: bool) -> list[list[int]]:
        return [torch.cat(drawn(size, 3, False, shuffle, (0, 0, rank, world))).tolist() for rank in range(world)]

    assert sorted(index for part in parts(shuffle=False) for index in part) == list(range(size))
    training = parts(shuffle=True)
    assert {len(part) for part in training} == {size // world}
    assert len({index for part in training for index in part}) == size // world * world


@pytest.mark.parametrize(("size", "batches"), [(7, [3, 3]), (6, [3, 3]), (2, [])])
def test_drop_last_leaves_out_the_smaller_batch(size: int, batches: list[int]) -> None:
    assert [len(batch) for batch in drawn(size, 3, True, True, (0, 0, 0, 1))] == batches


def test_loader_skips_what_was_done() -> None:
    dataset = InMemoryDataset(torch.arange(10).to(torch.uint8), torch.arange(10), torch.arange(10))
    whole = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    for done in range(5):
        loader = resumable(DataLoader(dataset, 3, collate_fn=tuple))
        loader.load_state_dict({"epoch": 0, "repetition": 0, "batches": done})
        assert [labels.tolist() for _, labels in loader] == whole[done:]


def test_transforms_give_float_images_from_minus_one_to_one(build: Any) -> None:
    data = build()
    images, labels = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert images.shape == (256, 1, 28, 28)
    assert images.dtype == torch.float32
    assert (images.min().item(), images.max().item()) == (-1.0, 1.0)
    assert labels.dtype == torch.int64
    raw = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert torch.allclose(data.eval_transform(raw), torch.tensor([-1.0, -0.6, 1.0]).reshape(1, 1, 1, 3))


def test_augmentation_by_config_is_for_training_alone(build: Any) -> None:
    data = build(
        "data.train_transform.transforms="
        "[{_target_:torchvision.transforms.v2.RandomHorizontalFlip,p:1.0},${data.eval_transform}]"
    )
    images = next(iter(data.train_dataloader()))[0]
    assert torch.equal(data.train_transform(images), data.eval_transform(images).flip(-1))


def test_loader_arguments_of_the_notebook(build: Any) -> None:
    assert isinstance(build().train_dataloader(), DataLoader)
    ordered = build("data.shuffle=false").train_dataloader()
    assert torch.equal(torch.tensor(list(ordered.sampler)), torch.arange(55_000))
    sampler = "data.sampler={_target_:torch.utils.data.RandomSampler,_partial_:true,num_samples:1000}"
    loader = build("data.shuffle=false", sampler).train_dataloader()
    assert isinstance(loader.sampler, RandomSampler)
    assert sum(len(labels) for _, labels in loader) == 1000
    batches = "data.batch_sampler={_target_:torch.utils.data.BatchSampler,_partial_:true,batch_size:100,drop_last:true}"
    loader = build("data.shuffle=false", "data.batch_size=null", batches).train_dataloader()
    assert {len(labels) for _, labels in loader} == {100}


def test_fused_transforms_are_torchvisions_bit_for_bit() -> None:
    transforms = [ToDtype(torch.float32, scale=True), Normalize([0.1307], [0.3081])]
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    once = Chain([Chain(transforms)])
    assert not isinstance(fused(once), Chain)
    for transform in (once, Chain([RandomHorizontalFlip(1.0), once, RandomErasing(1.0)]), Chain(transforms[:1])):
        results = []
        for version in (transform, fused(transform)):
            torch.manual_seed(0)
            results.append(version(images.clone()))
        assert torch.equal(*results)
    assert torch.equal(images, torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16))  # untouched
    colours = torch.rand(2, 3, 4, 4)
    three = Chain([ToDtype(torch.float32, scale=True), Normalize([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])])
    assert torch.equal(fused(three)(colours), three(colours))


def test_a_resident_data_set_is_on_the_device() -> None:
    images, labels = torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(4)
    for wanted, device in ((True, "meta"), (False, "cpu"), ("auto", "cpu")):  # "meta" stands for another device
        dataset = InMemoryDataset.in_memory(images, labels, wanted, torch.device("meta" if wanted != "auto" else "cpu"))
        assert {part.device.type for part in (dataset.inputs, dataset.targets, dataset.indices)} == {device}
        loader = DataLoader(dataset.subset(torch.arange(3)), 2, shuffle=True, collate_fn=tuple)
        order = BatchOrder(loader, 0, 1, equal=True).draw(0, 0, 0, dataset.device)
        assert {batch.device.type for batch in order} == {device}
        assert {part.device.type for part in dataset.__getitems__([0, 1])} == {device}


def test_predicts_every_test_image(composed: Compose) -> None:
    cfg = composed("logger=none", "trainer.accelerator=cpu")
    filter_warnings()
    data, model = build_task(cfg)
    probabilities = torch.cat(build_trainer(cfg, []).predict(model, data))
    assert probabilities.shape == (10_000, 10)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(10_000))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.val_size=60000"], "data.val_size=60000: the training set has only 60000 samples"),
        (["data.folds=60001", "data.fold=0"], "data.folds=60001: the training set has only 60000 samples"),
        (["data.num_classes=11"], "data.num_classes=11: the dataset has 10 classes"),
        (["data.drop_last=true", "data.batch_size=60000"], "data.batch_size=60000 with data.drop_last=true leaves no"),
    ],
)
def test_what_does_not_fit_the_data_is_said(build: Any, overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        build(*overrides).train_dataloader()
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "second"), [("fashion_mnist", "Trouser"), ("kmnist", "ki"), ("mnist", "1")])
def test_class_names_come_from_the_dataset(build: Any, small_archives: Path, name: str, second: str) -> None:
    root = ROOT / "data" if name == "mnist" else small_archives
    data = build(f"data={name}", f"data.root={root}", "data.val_size=50")
    assert data.class_names[1] == second
    assert len(data.class_names) == 10
    if name != "mnist":
        assert len(data.train_set) == SMALL_TRAIN - 50
        data.setup("test")
        assert len(data.test_set) == SMALL_TEST


@pytest.fixture
def fashion(build: Any, small_archives: Path) -> tuple[Any, Path]:
    """Build Fashion-MNIST from the small archives, and the folder that they are in."""

    def build_fashion() -> ImageDataModule:
        data: ImageDataModule = build("data=fashion_mnist", f"data.root={small_archives}", "data.val_size=50")
        return data

    return build_fashion, small_archives / "FashionMNIST" / "raw"


def test_unpacked_file_with_flipped_bytes_is_unpacked_again(fashion: tuple[Any, Path]) -> None:
    build, raw = fashion
    before = build().train_set.inputs
    file = raw / "train-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[5000] ^= 0xFF
    file.write_bytes(content)
    assert torch.equal(build().train_set.inputs, before)
    assert file.read_bytes() == gzip.decompress((raw / "train-images-idx3-ubyte.gz").read_bytes())


@pytest.mark.parametrize("cut", [0, 5, 1000])
def test_truncated_unpacked_file_is_unpacked_again(fashion: tuple[Any, Path], cut: int) -> None:
    build, raw = fashion
    before = build().train_set.inputs
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:cut])
    assert torch.equal(build().train_set.inputs, before)


@pytest.mark.parametrize("fault", ["missing", "truncated", "flipped", "foreign"])
def test_wrong_archive_is_an_error_and_stays_where_it_is(fashion: tuple[Any, Path], fault: str) -> None:
    build, raw = fashion
    archive = raw / "train-images-idx3-ubyte.gz"
    content = archive.read_bytes()
    if fault == "missing":
        archive.unlink()
    else:
        flipped = content[:500] + bytes([content[500] ^ 1]) + content[501:]
        wrong = {"truncated": content[:-100], "flipped": flipped, "foreign": gzip.compress(b"no images")}[fault]
        archive.write_bytes(wrong)
    with pytest.raises(UserError) as caught:
        build()
    assert str(raw) in str(caught.value)
    assert "data.root" in str(caught.value)
    assert "\n" not in str(caught.value)
    if fault != "missing":
        assert archive.read_bytes() == wrong


def test_another_root_needs_the_archives_alone(build: Any, tmp_path: Path) -> None:
    raw = tmp_path / "elsewhere" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in (ROOT / "data/MNIST/raw").glob("*.gz"):
        shutil.copy(archive, raw)
    assert len(build(f"data.root={tmp_path}/elsewhere", stage="test").test_set) == 10_000
