"""Section b: time of an optimizer step in training."""

import io
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from typing import Any
from unittest.mock import patch

import torch
from lightning import LightningModule, Trainer
from measure import Row, alternated, compared, parts
from mnist import pil_mnist, repeated, repeating
from plain import batches
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

N = 7
WARM = 50  # steps before the clock starts
SLOW_WARM = 8  # the notebook's two workers have four batches ready when they are asked for the first
# Batch size -> measured steps, half a second or more; the notebook's pipeline is 10 to 100 times slower.
STEPS, SLOW_STEPS = {16: 2000, 256: 1000, 4096: 150}, {16: 300, 256: 40}
TARGETS = {16: 1.5, 256: 1.3}  # against a plain loop
LR = 0.001  # small enough for every batch size; the time does not depend on it
# Without the callbacks that ask for the example's module, and for one that has no validation.
USERS = [*(f"~callbacks.{name}" for name in ("confusion_matrix", "weights", "mistakes", "pr_curves")), "monitor=null"]


class Clock:
    """Reads the time as step `first` and step `last` begin (synchronised on a GPU), counted from 0."""

    def __init__(self, first: int, count: int, device: str) -> None:
        self.first, self.last, self.device = first, first + count, device
        self.step, self.times = 0, list[float]()

    def tick(self) -> None:
        if self.step in (self.first, self.last):
            if self.device == "cuda":
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())
        self.step += 1

    @property
    def microseconds(self) -> float:
        """Microseconds of a step."""
        first, last = self.times
        return 1e6 * (last - first) / (self.last - self.first)


class Minimal(LightningModule):
    """As little as the Trainer takes; with `name`, the loss is logged as such."""

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.net, self.name = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10)), name

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        if self.name:
            self.log(self.name, loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=LR, momentum=0.9, fused=True)


def fit(trainer: Trainer, model: Any, data: Any, clock: Clock) -> None:
    step = model.training_step

    def timed(batch: Any, batch_idx: int) -> Tensor:
        clock.tick()
        return step(batch, batch_idx)

    with patch.object(model, "training_step", timed):
        trainer.fit(model, data)


def ours(size: int, clock: Clock, model: LightningModule | None = None, more: Iterable[str] = ()) -> None:
    """The default config with its logger and callbacks; validation comes after the last step."""
    steps = [f"data.batch_size={size}", "trainer.max_epochs=1", f"trainer.limit_train_batches={clock.last + 1}"]
    steps += [f"optimizer.lr={LR}", f"trainer.accelerator={clock.device}", *repeating(images_for(size)), *more]
    # A terminal would get a bar and a file a line: the same everywhere.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        trainer, classifier, data = parts(folder, *steps)
        fit(trainer, model or classifier, data, clock)


def user(size: int, clock: Clock) -> None:
    """A user's module, which has nothing of the example's, with all that the engine does for it."""
    ours(size, clock, Minimal(), USERS)


def logging(size: int, clock: Clock) -> None:
    """One that calls `self.log` at each step."""
    ours(size, clock, Minimal("train/loss"), USERS)


def images_for(size: int) -> int:
    """As many whole MNISTs as an epoch of all steps needs: an epoch's end is not inside the window."""
    return -(-((STEPS[size] + WARM + 1) * size + 5000) // 60_000) * 60_000


class Batches:
    """An epoch of plain.py's batches as often as it is asked for, on the device."""

    def __init__(self, size: int, device: str) -> None:
        self.size, (self.images, self.labels) = size, (part.to(device) for part in repeated(images_for(size)))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return batches(self.images, self.labels, self.size)


def barebones(size: int, clock: Clock) -> None:
    """Lightning's own floor: barebones mode, batches from memory, no scheduler."""
    trainer = Trainer(barebones=True, accelerator=clock.device, devices=1, max_steps=clock.last + 1)
    fit(trainer, Minimal(), Batches(size, clock.device), clock)


def loop(source: Iterable[tuple[Tensor, Tensor]], clock: Clock, fused: bool) -> None:
    """A training loop by hand over the first batches of `source`."""
    net = nn.Linear(28 * 28, 10).to(clock.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, fused=fused)
    for x, y in source:
        clock.tick()
        if clock.step > clock.last:
            return
        optimizer.zero_grad()
        x, y = x.to(clock.device), y.to(clock.device)
        F.cross_entropy(net(x.reshape(x.size(0), -1)), y).backward()
        optimizer.step()


def plain(size: int, clock: Clock) -> None:
    loop(Batches(size, clock.device), clock, fused=True)


def notebook(size: int, clock: Clock) -> None:
    """Images through PIL one by one, in two workers."""
    loop(DataLoader(pil_mnist(), batch_size=size, shuffle=True, num_workers=2), clock, fused=False)


def microseconds(kind: Callable[[int, Clock], None], size: int, device: str) -> float:
    slow = kind is notebook
    clock = Clock(SLOW_WARM if slow else WARM, (SLOW_STEPS if slow else STEPS)[size], device)
    torch.use_deterministic_algorithms(False)  # ours turns it on; the others do not pay for that
    kind(size, clock)
    return clock.microseconds


def measured(size: int, device: str) -> list[Row]:
    def step(kind: Callable[[int, Clock], None]) -> Callable[[], float]:
        return lambda: microseconds(kind, size, device)

    kinds = [ours, user, logging, plain, barebones, *([notebook] if size in SLOW_STEPS else [])]
    mine, users, logs, loops, bare, *slow = alternated(N, *map(step, kinds))
    what, target = f"optimizer step, batch {size}", TARGETS.get(size)
    return [
        compared(f"{what}: against a plain loop", [mine, loops], "µs", target),
        compared(f"{what}: a user's own module against a plain loop", [users, loops], "µs", target),
        compared(f"{what}: one that logs at each step against a plain loop", [logs, loops], "µs", target),
        compared(f"{what}: against Lightning barebones", [mine, bare], "µs"),
        *(compared(f"{what}: times faster than PIL and two workers", [mine, times], "µs", more=True) for times in slow),
    ]


def rows(device: str) -> list[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [row for size in STEPS for row in measured(size, device)]
