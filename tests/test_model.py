import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Compose, choices
from hydra.utils import instantiate
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_cases import mine
from torch.nn import functional as F
from torchvision.datasets import MNIST

from digits.networks import LinearClassifier
from runlab.config.messages import UserError
from runlab.training import schedulers
from train import train


def test_gradients_are_those_of_softmax_regression() -> None:
    """Autograd against the closed form of the cross-entropy's gradient, Xᵀ(p - y)/B, in NumPy."""
    mnist = MNIST(ROOT / "data", train=True)
    images = mnist.data[:64].unsqueeze(1).double() / 255
    labels = mnist.targets[:64]
    model = LinearClassifier(1, 28, 10).double()
    F.cross_entropy(model(images), labels).backward()

    x = images.numpy().reshape(64, 784)
    logits = x @ model.linear.weight.detach().numpy().T + model.linear.bias.detach().numpy()
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    error = (p - np.eye(10)[labels.numpy()]) / 64
    assert model.linear.weight.grad is not None
    assert model.linear.bias.grad is not None
    np.testing.assert_allclose(model.linear.weight.grad.numpy(), error.T @ x, rtol=0, atol=1e-14)
    np.testing.assert_allclose(model.linear.bias.grad.numpy(), error.sum(axis=0), rtol=0, atol=1e-14)


def test_linear_classifier_takes_images_or_rows() -> None:
    model = LinearClassifier(1, 28, 10)
    images = torch.rand(3, 1, 28, 28)
    assert model(images).shape == (3, 10)
    assert torch.equal(model(images), model(images.reshape(3, 784)))
    assert sum(p.numel() for p in model.parameters()) == 7850


@pytest.mark.parametrize("name", choices("model"))
def test_every_network_gives_logits(composed: Compose, name: str) -> None:
    torch.manual_seed(0)
    network = instantiate(composed(f"model={name}").model)
    logits = network(torch.rand(5, 1, 28, 28))
    assert logits.shape == (5, 10)
    assert logits.dtype == torch.float32
    assert logits.min() < 0  # logits, not probabilities


@pytest.mark.parametrize("name", choices("model"))
def test_a_networks_arguments_have_no_second_default(composed: Compose, name: str) -> None:
    config = composed(f"model={name}").model
    cls = type(instantiate(config))
    for parameter in inspect.signature(cls.__init__).parameters.values():
        assert parameter.default is inspect.Parameter.empty, parameter


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        ("cosine", [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0, 0.0]),
    ],
)
def test_the_rate_ends_at_zero(name: str, expected: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = getattr(schedulers, name)(optimizer, total_steps=4)
    rates = []
    for _ in expected:
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([2 * factor for factor in expected])


def test_rows_of_pixels_are_trained_on_without_their_pictures(composed: Compose, tmp_path: Path) -> None:
    trained = train(composed(*mine("mine.Rows"), "logger=tensorboard", "trainer.max_epochs=1"))
    assert trained["epoch"] == 1
    tags = EventAccumulator(str(tmp_path / "run"), size_guidance={"tensors": 0}).Reload().Tags()
    assert "val/confusion_matrix" in tags["images"]
    assert not {"train/batch", "test/mistakes"} & set(tags["images"])


def test_a_label_that_nobody_could_see_is_a_line(composed: Compose) -> None:
    with pytest.raises(UserError, match="labels must be 0 to 9, found 10"):
        train(composed(*mine("mine.Unseen"), "logger=tensorboard", "scheduler=none"))
