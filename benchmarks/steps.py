"""Section b: time of an optimizer step in training, at several batch sizes."""

import io
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from typing import Any
from unittest.mock import patch

import torch
from lightning import LightningModule, Trainer
from measure import Row, compared, parts, pil_mnist, repeated, repeating
from plain import batches
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

N = 7
WARM = 50  # steps before the clock starts
STEPS = {16: 2000, 64: 1500, 256: 1000, 1024: 400}  # batch size -> measured steps, half a second or more
SLOW_WARM = 8  # the notebook's two workers have four batches ready when they are asked for the first
SLOW_STEPS = {16: 300, 64: 120, 256: 40, 1024: 12}  # the same for the notebook's pipeline, 10 to 100 times slower
LR = 0.001  # small enough for every batch size; the time does not depend on it


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


def images_for(size: int) -> int:
    """As many whole MNISTs as an epoch of all steps needs: an epoch's end is not inside the window."""
    wanted = (STEPS[size] + WARM + 1) * size + 5000
    return -(-wanted // 60_000) * 60_000


def ours(size: int, clock: Clock) -> None:
    """The default config with all its callbacks and its logger; validation comes after the last step."""
    steps = [f"data.batch_size={size}", "trainer.max_epochs=1", f"trainer.limit_train_batches={clock.last + 1}"]
    steps += [f"optimizer.lr={LR}", f"trainer.accelerator={clock.device}", *repeating(images_for(size))]
    # A terminal would get a bar and a file a line: the same everywhere.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        trainer, model, data = parts(folder, *steps)
        step = model.training_step

        def timed(batch: Any, batch_idx: int) -> Tensor:
            clock.tick()
            return step(batch, batch_idx)

        with patch.object(model, "training_step", timed):
            trainer.fit(model, data)


class Minimal(LightningModule):
    """As little as the Trainer takes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.net, self.clock = nn.Linear(28 * 28, 10), clock

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        self.clock.tick()
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=LR, momentum=0.9, fused=True)


class Batches:
    """An epoch of plain.py's batches as often as it is asked for, on the device."""

    def __init__(self, size: int, device: str) -> None:
        self.size, (self.images, self.labels) = size, (part.to(device) for part in repeated(images_for(size)))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return batches(self.images, self.labels, self.size)


def barebones(size: int, clock: Clock) -> None:
    """Lightning's own floor: barebones mode, batches from memory, no scheduler."""
    trainer = Trainer(barebones=True, accelerator=clock.device, devices=1, max_steps=clock.last + 1)
    trainer.fit(Minimal(clock), Batches(size, clock.device))


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


def measured(size: int, device: str) -> dict[str, list[float]]:
    """Microseconds of a step, N of each kind, in alternation."""
    times: dict[str, list[float]] = {}
    for _ in range(N):
        for kind in (ours, barebones, plain, notebook):
            slow = kind is notebook
            clock = Clock(SLOW_WARM if slow else WARM, (SLOW_STEPS if slow else STEPS)[size], device)
            torch.use_deterministic_algorithms(False)  # ours turns it on; the others do not pay for that
            kind(size, clock)
            times.setdefault(kind.__name__, []).append(clock.microseconds)
    return times


def rows(device: str) -> list[Row]:
    result = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for size in STEPS:
            times = measured(size, device)
            for other, name, target, more in (
                ("barebones", "against Lightning barebones", 1.15, False),
                ("plain", "against a plain loop", 1.6 if size == 256 else None, False),
                ("notebook", "times faster than PIL, two workers and a plain loop", None, True),
            ):
                what = f"optimizer step, batch {size}: {name}"
                result.append(compared(what, times["ours"], times[other], "µs", target, more))
    return result
