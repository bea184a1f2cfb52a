"""`train(cfg)`: what a run does and what it leaves in its folder."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL_TEST, SMALL_TRAIN, Cli, Compose, choices, of_the_example
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.datasets import MNIST, FashionMNIST

from digits import figures
from runlab.load import load_run
from train import train

QUICK = ["trainer.max_epochs=1", "trainer.limit_train_batches=10", "trainer.log_every_n_steps=1"]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def read_counts(run_dir: Path) -> tuple[list[str], np.ndarray]:
    """The class names and the counts in `confusion_matrix.csv`."""
    with (run_dir / "confusion_matrix.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[0] == "true/predicted"
    assert header[1:] == [row[0] for row in rows]
    return header[1:], np.array([row[1:] for row in rows], dtype=int)


def test_default_run_reaches_its_accuracy_and_writes_its_folder(
    composed: Compose, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = train(composed())
    assert metrics["test/acc"] >= 0.918
    assert metrics == json.loads((run_dir / "metrics.json").read_text())
    assert (metrics["epoch"], metrics["global_step"]) == (5, 5 * 215)
    assert {"train/loss", "val/loss", "val/acc", "test/loss", "test/acc", "seconds"} < set(metrics)
    assert metrics["best_checkpoint"] == "checkpoints/best.ckpt"

    names, counts = read_counts(run_dir)
    assert names == [str(digit) for digit in range(10)]
    assert counts.sum() == 10_000
    assert counts.trace() / 10_000 == metrics["test/acc"]
    assert counts.sum(axis=1).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (run_dir / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")

    provenance = json.loads((run_dir / "provenance.json").read_text())
    assert provenance["seed"] == 0
    assert provenance["torch"].startswith(torch.__version__.split("+")[0])
    assert {"git_commit", "git_dirty", "python", "lightning", "hydra-core", "device", "command"} < set(provenance)
    assert provenance["data_md5"] == dict(MNIST.resources)

    out = capsys.readouterr().out
    assert f"{counts.trace()}/10000 = {counts.trace() / 100:.2f} %" in out
    assert out.count("epoch ") == 5
    assert "--logdir" in out

    for name in ("best", "last"):
        checkpoint = torch.load(run_dir / f"checkpoints/{name}.ckpt", weights_only=True)
        assert set(checkpoint["state_dict"]) == {"network.linear.weight", "network.linear.bias"}
    assert not list(run_dir.rglob("*.part"))

    assert not (run_dir / "hparams.yaml").exists()


def test_what_the_dashboard_gets(composed: Compose, run_dir: Path) -> None:
    train(composed("trainer.max_epochs=2"))
    events = EventAccumulator(str(run_dir), size_guidance={"images": 0, "tensors": 0}).Reload()
    tags, ends = events.Tags(), [215, 430]  # optimizer steps done: one axis for scalars and images
    scalars = {tag: [event.step for event in events.Scalars(tag)] for tag in tags["scalars"]}
    assert scalars == {
        "train/loss": [49, 99, 149, 199, 249, 299, 349, 399],  # of the step that comes next
        "train/lr": [49, 99, 149, 199, 249, 299, 349, 399],
        **{"val/loss": ends, "val/acc": ends, "test/loss": [430], "test/acc": [430]},
    }
    rates = [event.value for event in events.Scalars("train/lr")]
    assert rates == pytest.approx([0.04 * (1 - step / 430) for step in scalars["train/lr"]])
    images = {tag: [image.step for image in events.Images(tag)] for tag in tags["images"]}
    assert images == {
        **{"val/confusion_matrix": ends, "test/confusion_matrix": [430], "test/mistakes": [430]},
        **{"train/weights": ends, "train/batch": [0]},
    }
    assert sorted(events.PluginTagToContent("pr_curves")) == [f"test_pr/{digit}" for digit in range(10)]
    text = {
        tag: events.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()
        for tag in ("config", "test/per_class")
    }
    assert "lr: 0.04" in text["config"]
    assert "${" not in text["config"]
    names, counts = read_counts(run_dir)
    assert text["test/per_class"].splitlines()[2:] == [
        f"| {name} | {row[i]} | {row.sum()} | {row[i] / row.sum():.4f} |"
        for i, (name, row) in enumerate(zip(names, counts, strict=True))
    ]


def test_mistakes_are_the_ones_that_the_network_is_most_sure_of(
    composed: Compose, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}
    draw = figures.mistakes

    def noted(images: Any, names: Any, true: Any, predicted: Any, sure: Any) -> Figure:
        drawn.update(images=images, true=true, predicted=predicted, sure=sure)
        return draw(images, names, true, predicted, sure)

    monkeypatch.setattr(figures, "mistakes", noted)
    train(composed(*QUICK))
    run = load_run(run_dir)
    run.data.setup("test")
    images, labels = run.data.test_set[:]
    with torch.no_grad():
        sure, predicted = run.model(run.data.eval_transform(images)).softmax(dim=1).max(dim=1)
    order = torch.where(predicted == labels, 0.0, sure).argsort(descending=True)[:20]
    assert drawn["sure"] == pytest.approx(sure[order].tolist())
    assert drawn["true"] == labels[order].tolist()
    assert drawn["predicted"] == predicted[order].tolist()
    assert torch.equal(torch.tensor(drawn["images"]), run.data.eval_transform(images[order])[:, 0])


@pytest.mark.parametrize("model", [*choices("model"), "mlp model.hidden_features=10"])
def test_only_a_linear_classifier_has_a_picture_of_its_weights(composed: Compose, run_dir: Path, model: str) -> None:
    train(composed(*f"model={model}".split(), *QUICK))
    images = EventAccumulator(str(run_dir), size_guidance={"images": 0}).Reload().Tags()["images"]
    assert ("train/weights" in images) == (model == "linear")


def test_profile_says_where_the_time_goes(composed: Compose, run_dir: Path) -> None:
    train(composed("trainer=profile", *QUICK))
    for stage, call in (("fit", "run_training_batch"), ("test", "test_step")):
        assert call in (run_dir / f"{stage}-profile.txt").read_text()


def test_val_metrics_are_the_best_checkpoints(composed: Compose, run_dir: Path) -> None:
    # A learning rate that grows the loss: the first epoch is the best one.
    metrics = train(
        composed("logger=none", *QUICK, "trainer.max_epochs=3", "monitor=val/loss", "mode=min", "optimizer.lr=2")
    )
    best = torch.load(run_dir / "checkpoints/best.ckpt", weights_only=True)["metrics"]
    last = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["metrics"]
    assert best["val/loss"] <= last["val/loss"]
    assert metrics["val/loss"] == pytest.approx(best["val/loss"])
    assert metrics["val/acc"] == pytest.approx(best["val/acc"])


def test_evaluate_only(composed: Compose, run_dir: Path, tmp_path: Path) -> None:
    first = train(composed("logger=none", *QUICK))
    checkpoint = run_dir / "checkpoints/best.ckpt"
    again = train(composed("logger=none", "fit=false", f"ckpt_path={checkpoint}", f"run_dir={tmp_path}/again"))
    assert {name: again[name] for name in first if "/" in name} == {name: first[name] for name in first if "/" in name}
    assert not (tmp_path / "again/checkpoints").exists()
    assert (run_dir / "confusion_matrix.csv").read_bytes() == (tmp_path / "again/confusion_matrix.csv").read_bytes()


def test_one_seed_gives_equal_weights_another_does_not(composed: Compose, tmp_path: Path) -> None:
    def weights(seed: int, name: str) -> dict[str, Any]:
        train(composed("logger=none", "model=mlp", f"seed={seed}", f"run_dir={tmp_path}/{name}", *QUICK))
        state: dict[str, Any] = torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        return state

    first, other, second = weights(0, "a"), weights(1, "b"), weights(0, "c")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["network.1.weight"], other["network.1.weight"])


@pytest.mark.slow
def test_notebook_experiment_is_the_notebooks_setting(composed: Compose) -> None:
    cfg = composed("experiment=notebook", "logger=none")
    assert (cfg.data.batch_size, cfg.data.eval_batch_size, cfg.data.val_size) == (16, 24, 0)
    assert (cfg.optimizer.lr, cfg.optimizer.momentum, cfg.trainer.max_epochs, cfg.seed) == (0.001, 0.9, 6, 0)
    assert cfg.scheduler == {}
    assert cfg.model._target_ == "digits.networks.LinearClassifier"
    cfg.trainer.max_epochs = 1
    metrics = train(cfg)
    assert metrics["global_step"] == 3750  # 60,000 / 16; six epochs are 22,500
    assert metrics["test/acc"] > 0.9
    assert "val/acc" not in metrics


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist", "kmnist"])  # the others: test_datasets.py
@pytest.mark.parametrize("model", choices("model"))
@pytest.mark.slow
def test_every_model_on_every_dataset(
    composed: Compose, run_dir: Path, small_archives: Path, model: str, data: str
) -> None:
    small = [] if data == "mnist" else [f"data.root={small_archives}", "data.val_size=100", "data.batch_size=50"]
    metrics = train(composed(f"model={model}", f"data={data}", *small, *QUICK, "logger=none"))
    assert metrics["global_step"] == (10 if data == "mnist" else (SMALL_TRAIN - 100) // 50)
    names, counts = read_counts(run_dir)
    assert counts.sum() == (10_000 if data == "mnist" else SMALL_TEST)
    assert (names == FashionMNIST.classes) == (data == "fashion_mnist")


GROUPS = ["optimizer", "scheduler", "trainer", "callbacks"]  # test_loggers.py tries the loggers
CHOICES = [f"{group}={name}" for group in GROUPS for name in choices(group) if name != "ddp"]  # that one: test_ddp.py
CHOICES += [f"experiment={name}" for name in of_the_example("experiment")]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_every_group_trains(composed: Compose, run_dir: Path, choice: str) -> None:
    metrics = train(composed(choice, *QUICK, "trainer.limit_train_batches=3"))
    assert metrics["global_step"] == 3
    assert (run_dir / "checkpoints/last.ckpt").exists()
    assert list(run_dir.glob("events.*"))


def test_scheduler_falls_over_the_whole_run(composed: Compose, run_dir: Path) -> None:
    for scheduler, last in (("none", 0.04), ("linear", 0.0), ("cosine", 0.0)):
        train(composed("logger=none", f"scheduler={scheduler}", f"run_dir={run_dir}/{scheduler}", *QUICK))
        checkpoint = torch.load(run_dir / scheduler / "checkpoints/last.ckpt", weights_only=True)
        assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(last)


def test_one_callback_can_be_dropped(composed: Compose, run_dir: Path) -> None:
    train(composed("logger=none", "~callbacks.confusion_matrix", "~callbacks.best_checkpoint", *QUICK))
    assert not (run_dir / "confusion_matrix.csv").exists()
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["last.ckpt"]


def test_confusion_matrix_normalized_is_another_picture_of_the_same_counts(composed: Compose, tmp_path: Path) -> None:
    for normalize in ("true", "false"):
        train(
            composed(
                "logger=none",
                f"callbacks.confusion_matrix.normalize={normalize}",
                f"run_dir={tmp_path}/{normalize}",
                *QUICK,
            )
        )
    for suffix, equal in (("csv", True), ("png", False)):
        files = [(tmp_path / normalize / f"confusion_matrix.{suffix}").read_bytes() for normalize in ("true", "false")]
        assert (files[0] == files[1]) == equal


def test_data_come_from_the_project(composed: Compose) -> None:
    assert Path(composed().data.root) == ROOT / "data"


def test_evaluate_another_checkpoint_of_a_run(quick_cli: Cli, run_dir: Path, tmp_path: Path) -> None:
    assert quick_cli("logger=none", *QUICK).returncode == 0
    evaluate = [f"resume={run_dir}", "fit=false", f"hydra.run.dir={tmp_path}/again"]
    for typed, tested in (([], "best"), ([f"ckpt_path={run_dir}/checkpoints/last.ckpt"], "last")):
        assert quick_cli(*evaluate, *typed).returncode == 0
        metrics = json.loads((tmp_path / "again/metrics.json").read_text())
        assert metrics["best_checkpoint"] == f"../run/checkpoints/{tested}.ckpt"
        shutil.rmtree(tmp_path / "again")
    missing = quick_cli(*evaluate, f"ckpt_path={tmp_path}/none.ckpt")
    assert (missing.returncode, missing.stderr) == (1, f"{tmp_path}/none.ckpt: no such checkpoint; name another\n")
