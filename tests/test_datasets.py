"""Every kind of data: torchvision's sets, a folder of images, a user's own data module; what is said of wrong ones."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import MAKERS, ROTATED, TEST, TRAIN, samples
from conftest import PATH, ROOT, Compose, choices, install
from hydra.utils import instantiate
from lightning import LightningDataModule
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import CIFAR10, EMNIST, ImageFolder
from torchvision.transforms.v2 import RandomRotation

from runlab.config.messages import UserError
from runlab.data.splits import split, stratified_order
from runlab.data.targets import inputs_and_targets, visible_targets
from runlab.load import load_run
from train import train

SMALL = ["data.val_size=20", "data.batch_size=20", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"]
SHAPES = {"usps": (1, 16, 16), "svhn": (3, 32, 32), "cifar10": (3, 32, 32), "cifar100": (3, 32, 32)}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Make a small archive of a data set, or a folder; the overrides that train on it come back."""

    def make(name: str) -> list[str]:
        root = tmp_path / "data"
        if name == "image_folder":
            photos(root)
            return [f"data={name}", f"data.root={root}", *SMALL[:2], "data.test_size=20"]
        MAKERS[name](root, monkeypatch)
        return [f"data={name}", f"data.root={root}", *SMALL[:2]]

    return make


@pytest.fixture
def build(composed: Compose) -> Callable[..., Any]:
    def build(*overrides: str, stage: str = "fit") -> Any:
        data = instantiate(composed(*overrides).data, _convert_="all")
        data.prepare_data()
        data.setup(stage)
        return data

    return build


def counts(run_dir: Path, suffix: str = "") -> tuple[list[str], np.ndarray]:
    with (run_dir / f"confusion_matrix{suffix}.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    return header[1:], np.array([row[1:] for row in rows], dtype=int)


COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def photos(root: Path, count: int = 20, size: tuple[int, int] = (40, 30)) -> None:
    """A folder with `count` pictures of each of three colours, each with a grey of its own in a corner."""
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture = Image.new("RGB", size, colour)
            picture.paste((number, number, number), (0, 0, 10, 10))
            picture.save(root / name / f"{number:03}.{'png' if number % 2 else 'jpg'}")


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[] if name == "linear" else pytest.mark.slow) for name in choices("model")]
)
@pytest.mark.parametrize("name", [*MAKERS, "image_folder"])
def test_every_model_trains_on_every_data_set(
    composed: Compose, tmp_path: Path, make: Any, name: str, model: str
) -> None:
    cfg = composed(*make(name), *SMALL[2:], f"model={model}", "logger=none" if model != "linear" else "logger=csv")
    metrics = train(cfg)
    names, matrix = counts(tmp_path / "run")
    test = 20 if name == "image_folder" else TEST
    assert matrix.sum() == test
    assert len(names) == {"emnist": 47, "cifar100": 100, "image_folder": 3}.get(name, 10)
    assert metrics["global_step"] == ((60 - 20 - 20) if name == "image_folder" else TRAIN - 20) // 20
    assert metrics["test/acc"] == np.float32(matrix.trace() / test)


@pytest.mark.parametrize("name", MAKERS)
def test_images_and_labels_are_those_of_the_archive(build: Any, make: Any, name: str) -> None:
    data = build(*make(name), "data.val_size=0")
    shape = SHAPES.get(name, (1, 28, 28))
    assert data.train_set.inputs.shape == (TRAIN, *shape)
    assert data.train_set.inputs.dtype == torch.uint8
    assert data.train_set.inputs.is_contiguous()
    height, width = shape[1:]
    images, labels = samples("train", (height, width, 3) if shape[0] == 3 else (height, width), len(data.class_names))
    images = images.transpose(0, 3, 1, 2) if shape[0] == 3 else images[:, None]
    order = np.arange(TRAIN)
    if name == "cifar10":  # in five files
        order = np.concatenate([order[number::5] for number in range(5)])
    found = data.train_set.inputs.numpy()
    assert np.abs(found.astype(int) - images[order]).max() <= (name == "usps")  # its text is rounded
    assert data.train_set.targets.dtype == torch.int64
    assert data.train_set.targets.tolist() == labels[order].tolist()
    data.setup("test")
    assert data.test_set.inputs.shape == (TEST, *shape)


@pytest.mark.parametrize("split", ROTATED)
def test_every_split_of_emnist(build: Any, make: Any, composed: Compose, split: str) -> None:
    arguments = [*make("emnist"), f"data.dataset.split={split}", "data.val_size=0"]
    data = build(*arguments)
    assert len(data.class_names) == data.num_classes == ROTATED[split]
    assert data.train_set.targets.tolist() == [number % ROTATED[split] for number in range(TRAIN)]
    assert (data.class_names[0], data.class_names[-1]) == {
        "letters": ("a", "z"),
        "digits": ("0", "9"),
        "mnist": ("0", "9"),
        "byclass": ("0", "z"),
    }.get(split, ("0", "t"))
    assert instantiate(composed(*arguments).model).linear.out_features == ROTATED[split]
    upright = (data.eval_transform(data.train_set.inputs) * 127.5 + 127.5).round().to(torch.uint8)
    assert torch.equal(upright, data.train_set.inputs.mT)  # the files have rows and columns exchanged


def test_an_unknown_split_is_said(build: Any, make: Any) -> None:
    with pytest.raises(Exception, match=r"data.dataset.split=words: no such choice. Choices: byclass, .*mnist"):
        build(*make("emnist"), "data.dataset.split=words")


def test_provenance_has_the_checksums_of_what_was_read(composed: Compose, tmp_path: Path, make: Any) -> None:
    root = make("emnist")[1]
    swapped = ["data.dataset._target_=torchvision.datasets.EMNIST", "+data.dataset.split=digits"]
    train(composed(root, *swapped, *SMALL, "logger=none"))
    provenance = json.loads((tmp_path / "run/provenance.json").read_text())
    assert provenance["data_md5"] == {"gzip.zip": EMNIST.md5}


def test_checksums_are_those_of_each_set(build: Any, make: Any) -> None:
    def checksums(name: str) -> dict[str, str]:
        found: dict[str, str] = build(*make(name)).checksums
        return found

    cifar10 = checksums("cifar10")
    assert cifar10 == {**dict(CIFAR10.train_list), **dict(CIFAR10.test_list), "batches.meta": CIFAR10.meta["md5"]}
    assert sorted(checksums("usps")) == ["usps.bz2", "usps.t.bz2"]
    assert sorted(checksums("qmnist")) == [
        f"qmnist-{part}-{name}.gz" for part in ("test", "train") for name in ("images-idx3-ubyte", "labels-idx2-int")
    ]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("emnist", "EMNIST/raw/emnist-balanced-train-images-idx3-ubyte"),
        ("qmnist", "QMNIST/raw/qmnist-test-labels-idx2-int"),
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
    ],
)
def test_a_damaged_unpacked_file_is_unpacked_again(build: Any, make: Any, tmp_path: Path, name: str, file: str) -> None:
    arguments = make(name)
    build(*arguments)
    path = tmp_path / "data" / file
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    build(*arguments)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("emnist", "EMNIST/raw/gzip.zip"),
        ("usps", "usps.bz2"),
        ("usps", "usps.t.bz2"),
        ("cifar10", "cifar-10-python.tar.gz"),
    ],
)
@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_wrong_archive_is_said(build: Any, make: Any, tmp_path: Path, name: str, file: str, fault: str) -> None:
    arguments, path = make(name), tmp_path / "data" / file
    content = bytearray(path.read_bytes())
    path.unlink()
    if fault == "damaged":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"data.root") as caught:
        build(*arguments)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert fault == "missing" or path.read_bytes() == content


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["data.dataset._target_=torchvision.datasets.Flowers102"],
            "torchvision does not hold Flowers102 in memory; take data=image",
        ),
        (["data.dataset._target_=torchvision.datasets.SEMEION"], "torchvision does not hold SEMEION in memory"),
        (
            ["data.dataset._target_=torchvision.datasets.QMNIST", "+data.dataset.what=nist"],
            "data.dataset.what=nist: training and test set would be",
        ),
    ],
)
def test_what_cannot_be_read_so_is_said(build: Any, tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(f"data.root={tmp_path}", *overrides)


def test_copies_by_an_old_torchvision_are_not_read_in_place_of_the_archives(
    build: Any, make: Any, tmp_path: Path
) -> None:
    arguments, old = make("qmnist"), tmp_path / "data/QMNIST/processed"
    old.mkdir()
    torch.save(0, old / "train.pt")
    with pytest.raises(UserError, match="processed: copies by an old torchvision; remove them"):
        build(*arguments)


def test_a_folder_beside_the_data_that_is_called_processed_is_left_alone(
    build: Any, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = make("cifar10")
    (tmp_path / "processed").mkdir()
    torch.save(0, tmp_path / "processed/mine.pt")
    assert len(build(*arguments).val_set) == 20
    monkeypatch.chdir(tmp_path / "data")
    assert len(build(*arguments, "data.root=.").val_set) == 20


class Empty:
    def __init__(self, root: str, train: bool) -> None:
        pass


def test_a_class_that_holds_nothing_is_said(build: Any) -> None:
    with pytest.raises(UserError, match=r"Empty does not hold `data` and `targets`; take data=image_folder"):
        build("data.dataset._target_=test_datasets.Empty")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.channels=1", r"data.channels=1 data.size=32: the dataset has images \(3, 32, 32\)"),
        ("data.num_classes=11", "data.num_classes=11: the dataset has 10 classes"),
    ],
)
def test_what_a_set_does_not_have_is_said(build: Any, make: Any, override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(*make("cifar10"), override)


@pytest.mark.parametrize("model", choices("model"))
def test_networks_for_mnist_are_those_that_they_were(composed: Compose, model: str) -> None:
    torch.manual_seed(0)
    state = instantiate(composed(f"model={model}").model).state_dict()
    torch.manual_seed(0)
    if model == "linear":
        layers: dict[str, torch.nn.Module] = {"linear": torch.nn.Linear(784, 10)}
    elif model == "mlp":
        layers = {"1": torch.nn.Linear(784, 256), "4": torch.nn.Linear(256, 256), "7": torch.nn.Linear(256, 10)}
    else:
        layers = {"0": torch.nn.Conv2d(1, 6, 5, padding=2), "3": torch.nn.Conv2d(6, 16, 5)}
        layers |= {"7": torch.nn.Linear(400, 120), "9": torch.nn.Linear(120, 84), "11": torch.nn.Linear(84, 10)}
    expected = {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in state)


def test_images_too_small_for_lenet_are_said(composed: Compose) -> None:
    with pytest.raises(Exception, match="LeNet takes images of 12 x 12 pixels or more"):
        instantiate(composed("model=lenet", "data.size=11").model)


# A folder of images


@pytest.mark.parametrize(("channels", "grey"), [(3, None), (1, {"blue": 29, "green": 150, "red": 76})])
def test_a_folder_is_decoded_as_image_folder_orders_it(
    build: Any, make: Any, tmp_path: Path, channels: int, grey: Any
) -> None:
    arguments = [*make("image_folder"), f"data.channels={channels}", "data.size=16"]
    data = build(*arguments)
    official = ImageFolder(tmp_path / "data")
    assert data.class_names == official.classes == ["blue", "green", "red"]
    assert data.train_set.targets.tolist() == official.targets
    images = data.train_set.inputs
    assert images.shape == (60, channels, 16, 16)
    assert images.dtype == torch.uint8
    for image, label in zip(images, official.targets, strict=True):
        name = official.classes[label]
        expected = torch.tensor([grey[name]] if grey else COLOURS[name])
        assert (image[:, 12, 12] - expected).abs().max() <= 2  # what JPEG leaves of it
    data.setup("test")
    indices = torch.cat([data.train_set.indices, data.val_set.indices, data.test_set.indices])
    assert torch.equal(indices.sort().values, torch.arange(60))
    assert data.test_set.inputs.data_ptr() == images.data_ptr()  # in memory once
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (20, 20, 20)
    for part in (data.train_set, data.val_set, data.test_set):
        assert set(part.targets[part.indices].bincount().tolist()) <= {6, 7}


def test_sizes_of_a_folders_parts_may_be_shares(build: Any, make: Any) -> None:
    data = build(*make("image_folder"), "data.val_size=0.1", "data.test_size=0.2")
    data.setup("test")
    parts = [part.targets[part.indices].bincount().tolist() for part in (data.train_set, data.val_set, data.test_set)]
    assert parts == [[14] * 3, [2] * 3, [4] * 3]


def test_folds_of_a_folder(build: Any, make: Any) -> None:
    arguments = make("image_folder")
    parts = [build(*arguments, "data.folds=3", f"data.fold={fold}") for fold in range(3)]
    found = [part.val_set.targets[part.val_set.indices].bincount(minlength=3) for part in parts]
    assert torch.stack(found).sum() == 40
    assert {count for counts in found for count in counts.tolist()} <= {4, 5}


def test_parts_with_folders_of_their_own_are_used(build: Any, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    photos(root / "train", 10)
    photos(root / "test", 3)
    shutil.rmtree(root / "test/green")
    arguments = ["data=image_folder", f"data.root={root}", "data.val_size=6"]
    data = build(*arguments, stage="test")
    assert data.class_names == ["blue", "green", "red"]
    assert data.test_set.targets.tolist() == [0] * 3 + [2] * 3
    assert "_whole" not in vars(data)  # nothing else has been read
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set)) == (24, 6)
    photos(root / "val", 2)
    data = build(*arguments)
    assert (len(data.train_set), len(data.val_set)) == (30, 6)
    assert data.val_set.targets.tolist() == [0] * 2 + [1] * 2 + [2] * 2
    data = build(*arguments, "data.folds=5", "data.fold=0")
    assert (len(data.train_set), len(data.val_set)) == (24, 6)
    (root / "val/zebra").mkdir()
    with pytest.raises(UserError, match="val: sub-folder zebra is no class of the training set: blue, green, red"):
        build(*arguments)


def test_a_broken_file_is_named(build: Any, make: Any, tmp_path: Path) -> None:
    arguments = make("image_folder")
    path = tmp_path / "data/green/001.png"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError) as caught:
        build(*arguments)
    assert str(caught.value).startswith(f"{path}: cannot be read, repair it or take it out: ")
    assert "\n" not in str(caught.value)
    Image.fromarray(np.full((9, 9), 60_000, dtype=np.uint16)).save(path)
    with pytest.raises(UserError, match=r"001.png: cannot be read, .*: mode I;16 has more than 8 bits a channel"):
        build(*arguments)
    path.write_bytes(content)
    (tmp_path / "data/green/._001.png").write_bytes(b"of macOS")
    (tmp_path / "data/green/notes.txt").write_text("no image")
    (tmp_path / "data/.cache").mkdir()
    assert len(build(*arguments).train_set) == 20


def test_a_photo_is_turned_upright(build: Any, make: Any, tmp_path: Path) -> None:
    arguments = make("image_folder")
    picture = Image.new("RGB", (40, 30))
    picture.paste((255, 255, 255), (0, 0, 20, 30))  # the left half is white
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise: the left comes up
    picture.save(tmp_path / "data/blue/000.jpg", exif=exif)
    image = build(*arguments).train_set.inputs[0, 0]
    assert (image[8].float().mean().item() > 250, image[56].float().mean().item() < 5) == (True, True)


@pytest.mark.parametrize(
    ("root", "words"), [("nowhere", "data.root: there is no folder .*nowhere"), ("empty", "empty has no sub-folders")]
)
def test_a_folder_that_is_none_is_said_by_the_command(quick_cli: Any, tmp_path: Path, root: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    answer = quick_cli("data=image_folder", f"data.root={tmp_path}/{root}")
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert re.search(words, answer.stderr)


def test_the_config_of_a_folder_is_shown_without_reading_it(quick_cli: Any) -> None:
    answer = quick_cli("data=image_folder", "data.root=photos", "--cfg", "job")
    assert answer.returncode == 0
    assert OmegaConf.create(answer.stdout).data.num_classes._target_ == "runlab.data.folders.count_classes"


def test_a_folder_has_one_checksum_over_names_and_contents(build: Any, make: Any, tmp_path: Path) -> None:
    arguments = make("image_folder")

    def checksum() -> str:
        [(name, md5)] = build(*arguments).checksums.items()
        assert name == "data/"
        return str(md5)

    first = checksum()
    assert checksum() == first
    (tmp_path / "data/red/001.png").rename(tmp_path / "data/red/0001.png")
    second = checksum()
    (tmp_path / "data/red/0001.png").write_bytes((tmp_path / "data/red/003.png").read_bytes())
    assert len({first, second, checksum()}) == 3


def test_a_run_on_a_folder_is_opened_again(composed: Compose, make: Any, tmp_path: Path) -> None:
    train(composed(*make("image_folder"), *SMALL[2:], "logger=none"))
    run = load_run(tmp_path / "run")
    assert run.model.num_classes == 3
    run.data.setup("test")
    assert len(run.data.test_set) == 20


def test_stratified_order_spreads_each_class_evenly() -> None:
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    order = stratified_order(targets, 0)
    assert torch.equal(order.sort().values, torch.arange(100))
    assert not torch.equal(order, stratified_order(targets, 1))
    for start in range(0, 100, 10):
        share = targets[order[start : start + 10]].bincount(minlength=3)
        assert (share - torch.tensor([6, 3, 1])).abs().max() <= 1
    with pytest.raises(UserError, match=r"data.test_size=0.5 data.val_size=50: the training set has only 100 samples"):
        split(order, 0.5, 50, None, None)


# A user's own data module, as in the page of cases


class Mine(LightningDataModule):
    def __init__(
        self,
        num_classes: int,
        batch_size: int,
        channels: int = 1,
        side: int = 28,
        first_label: int = 0,
        hidden: bool = False,
        form: str = "pair",
        loaders: int = 1,
        missing: int | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.batch_size, self.loaders = num_classes, batch_size, loaders
        self.class_names = [str(i) for i in range(num_classes)]
        x = torch.rand(640, channels, side, side, generator=torch.Generator().manual_seed(0))
        y = (x.mean((1, 2, 3)) * 1e4).long() % num_classes + first_label
        if missing is not None:
            y[y == missing] = missing + 1
        self.set: Any = TensorDataset(x, y)
        if hidden or form != "pair":
            self.set = Hidden(self.set, form)

    def train_dataloader(self) -> Any:
        return DataLoader(self.set, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        parts = [Subset(self.set, range(part, 640, self.loaders)) for part in range(self.loaders)]
        return [DataLoader(part, 64) for part in parts] if self.loaders > 1 else DataLoader(self.set, 64)

    test_dataloader = val_dataloader


class Hidden(Dataset[Any]):
    """Samples whose labels are not seen before they are read."""

    def __init__(self, samples: Any, form: str) -> None:
        self.samples, self.form = samples, form

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        image, label = self.samples[index]
        return {
            "pair": (image, label),
            "image first": {"image": image, "label": label},
            "label first": {"label": label, "image": image},
        }[self.form]


@pytest.fixture
def mine(composed: Compose) -> Callable[..., Any]:
    """A config with `Mine` in place of the shipped data."""

    def mine(*overrides: str, **arguments: Any) -> Any:
        cfg = composed("trainer.max_epochs=1", "trainer.log_every_n_steps=1", "logger=none", *overrides)
        OmegaConf.set_struct(cfg, False)
        cfg.data = {"_target_": "test_datasets.Mine", "num_classes": 10, "batch_size": 64, **arguments}
        return cfg

    return mine


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize(("first", "found"), [(1, "10"), (-1, "-1"), (-100, "-[0-9]+")])
def test_labels_that_are_no_classes_are_said(
    mine: Any, tmp_path: Path, first: int, found: str, sanity: int, hidden: bool
) -> None:
    cfg = mine(f"trainer.num_sanity_val_steps={sanity}", first_label=first, hidden=hidden)
    with pytest.raises(UserError, match=f"labels must be 0 to 9, found {found}$"):
        train(cfg)
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_a_label_that_comes_late_is_said_too(mine: Any) -> None:
    cfg = mine("trainer.num_sanity_val_steps=0", num_classes=10, hidden=True)
    cfg.data._target_ = "test_datasets.Late"
    with pytest.raises(UserError, match=r"labels must be 0 to 9, found 10$"):
        train(cfg)


class Late(Mine):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.set.samples.tensors[1][300] = 10

    def train_dataloader(self) -> Any:
        return DataLoader(self.set, self.batch_size)


def test_labels_of_another_type_are_said(mine: Any) -> None:
    cfg = mine()
    cfg.data._target_ = "test_datasets.Floats"
    with pytest.raises(
        UserError, match=r"labels must be 0 to 9, whole numbers in one dimension, found torch.float32 \(640,\)"
    ):
        train(cfg)


class Floats(Mine):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.set = TensorDataset(self.set.tensors[0], self.set.tensors[1].float())


def test_a_class_without_samples_is_said_and_trains(
    mine: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = train(mine("logger=tensorboard", missing=3))
    assert [record.message for record in caplog.records] == ["no training sample has label 3"]
    assert all(np.isfinite(value) for name, value in metrics.items() if "/" in name)
    assert counts(tmp_path / "run")[1][3].sum() == 0


def test_a_class_folder_without_files_is_said_in_a_line(cli: Any, make: Any, tmp_path: Path) -> None:
    arguments = make("image_folder")
    (tmp_path / "data/yellow").mkdir()
    answer = cli(*arguments, *SMALL[2:], "logger=none")
    assert (answer.returncode, answer.stderr) == (0, "no training sample has label 3\n")
    assert counts(tmp_path / "run")[0] == ["blue", "green", "red", "yellow"]


def test_targets_are_seen_where_they_can_be() -> None:
    pair = TensorDataset(torch.zeros(4, 2), torch.arange(4))
    assert visible_targets(pair).tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]
    assert visible_targets(Subset(Subset(pair, [3, 1, 0]), [0, 2])).tolist() == [3, 0]  # type: ignore[union-attr]
    assert visible_targets(ConcatDataset([pair, Subset(pair, [2])])).tolist() == [0, 1, 2, 3, 2]  # type: ignore[union-attr]
    assert visible_targets(Hidden(pair, "pair")) is None
    assert visible_targets(ConcatDataset([pair, Hidden(pair, "pair")])) is None
    listed: Any = Hidden(pair, "pair")
    listed.targets, listed.indices = [1, 2], [7]  # what else it has is its own affair
    assert visible_targets(listed).tolist() == [1, 2]  # type: ignore[union-attr]
    listed.target_transform = abs
    assert visible_targets(listed) is None
    listed.target_transform, listed.targets = None, ["a", "b"]
    assert visible_targets(listed) is None


@pytest.mark.parametrize("model", choices("model"))
def test_images_that_do_not_fit_the_network_are_said(mine: Any, model: str) -> None:
    cfg = mine(f"model={model}", channels=3, side=32)
    with pytest.raises(
        UserError, match=r"the network takes \(3, 28, 28\), the data has \(3, 32, 32\); see model.size, data.size"
    ):
        train(cfg)
    cfg = mine(f"model={model}", channels=3, side=32)
    cfg.model.channels = 1
    with pytest.raises(UserError, match=r"the network takes \(1, 28, 28\), the data has \(3, 32, 32\)"):
        train(cfg)


@pytest.mark.parametrize("form", ["pair", "image first", "label first"])
@pytest.mark.parametrize("loaders", [1, 2])
def test_batches_of_every_form_in_one_loader_or_two(mine: Any, tmp_path: Path, form: str, loaders: int) -> None:
    monitor = "val/acc" if loaders == 1 else "val/acc/dataloader_idx_1"
    metrics = train(mine("logger=tensorboard", f"monitor={monitor}", form=form, loaders=loaders))
    names = [""] if loaders == 1 else ["/dataloader_idx_0", "/dataloader_idx_1"]
    for number, name in enumerate(names):
        _, matrix = counts(tmp_path / "run", f"_{number}" if number else "")
        assert matrix.sum() == 640 / loaders
        assert metrics[f"test/acc{name}"] == np.float32(matrix.trace() / matrix.sum())
        assert {f"val/acc{name}", f"val/loss{name}", f"test/loss{name}"} < set(metrics)
    assert {key for key in metrics if key.startswith(("val/", "test/"))} == {
        f"{stage}/{kind}{name}" for stage in ("val", "test") for kind in ("loss", "acc") for name in names
    }
    assert len(list((tmp_path / "run").glob("confusion_matrix*.png"))) == loaders
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    pictures = {f"{stage}/confusion_matrix" for stage in ("val", "test")} | {"test/mistakes", "train/batch"}
    pictures |= {f"{picture}_1" for picture in pictures if "matrix" in picture and loaders == 2}
    assert set(events.Tags()["images"]) == pictures | {"train/weights"}
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert set(state) == {"network.linear.weight", "network.linear.bias"}


def test_a_batch_of_more_than_two_parts_is_no_pair() -> None:
    with pytest.raises(ValueError, match="unpack"):
        inputs_and_targets((torch.zeros(1), torch.zeros(1), torch.zeros(1)))


# Samplers and transforms


def test_class_balanced_draws_each_class_as_often(build: Any) -> None:
    sampler = "data.sampler={_target_:runlab.data.targets.class_balanced,_partial_:true,num_samples:20000}"
    data = build(sampler, "data.shuffle=false")
    labels = data.train_set.targets[data.train_set.indices]
    kept = torch.cat([torch.nonzero(labels == label)[: 50 if label else 5000, 0] for label in range(10)])
    data.train_set = data.train_set.subset(kept)  # a hundred times as many zeros
    drawn = torch.cat([labels for _, labels in data.train_dataloader()])
    assert len(drawn) == 20_000
    assert (drawn.bincount(minlength=10) - 2000).abs().max() < 200  # within 4.7 standard deviations


def test_a_sampler_that_takes_something_else_is_refused(build: Any) -> None:
    weighted = "{_target_:torch.utils.data.WeightedRandomSampler,_partial_:true,num_samples:5000}"
    data = build("data.shuffle=false", f"data.sampler={weighted}")
    words = "data.sampler: its first argument is weights, not one of data_source, .*, take .*class_balanced"
    with pytest.raises(UserError, match=words):
        data.train_dataloader()


@pytest.mark.parametrize("name", ["RandomSampler", "SequentialSampler", "SubsetRandomSampler"])
def test_torchs_other_samplers_are_taken(build: Any, name: str) -> None:
    data = build("data.shuffle=false", f"data.sampler={{_target_:torch.utils.data.{name},_partial_:true}}")
    assert sum(len(labels) for _, labels in data.train_dataloader()) == 55_000


ROTATION = (
    "data.train_transform.transforms="
    "[{_target_:torchvision.transforms.v2.RandomRotation,degrees:90},${data.eval_transform}]"
)


@pytest.mark.parametrize("per_image", [False, True])
def test_random_transforms_draw_once_a_batch_or_once_an_image(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, per_image: bool
) -> None:
    angles: list[float] = []
    draw = RandomRotation.make_params

    def noted(transform: Any, inputs: list[Any]) -> dict[str, Any]:
        drawn: dict[str, Any] = draw(transform, inputs)
        angles.append(drawn["angle"])
        return drawn

    monkeypatch.setattr(RandomRotation, "make_params", noted)
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.log_every_n_steps=1", "logger=none"]
    train(composed(ROTATION, f"data.per_image={per_image}", "data.batch_size=16", *short))
    assert len(set(angles)) == len(angles) == (32 if per_image else 2)


def test_images_one_by_one_give_the_same_by_transforms_that_draw_nothing(composed: Compose, tmp_path: Path) -> None:
    def weights(per_image: bool) -> torch.Tensor:
        run_dir = f"run_dir={tmp_path}/{per_image}"
        train(
            composed(
                f"data.per_image={per_image}",
                "trainer.limit_train_batches=50",
                "trainer.max_epochs=1",
                "logger=none",
                run_dir,
            )
        )
        checkpoint = torch.load(tmp_path / str(per_image) / "checkpoints/last.ckpt", weights_only=True)
        return checkpoint["state_dict"]["network.linear.weight"]

    assert torch.equal(weights(True), weights(False))


@pytest.mark.registry
def test_svhn_as_scipy_reads_it(tmp_path: Path) -> None:
    """SciPy is not installed with the project: torchmetrics imports it where it is, 0.4 s in each process."""
    install(tmp_path / "scipy", "--no-deps", "scipy")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", __file__, "-k", "svhn", "--all", "-m", "not registry"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "scipy"), PATH])}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert re.search(r"[1-9]\d* passed", run.stdout), run.stdout
    assert "skipped" not in run.stdout
