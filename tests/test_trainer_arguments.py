"""Lightning's Trainer, argument by argument, and its callbacks: each works with all promises or is refused in a line.

`docs/trainer.md` is made of the tables here: PYTHONPATH=. .venv/bin/python tests/test_trainer_arguments.py
"""

import importlib.util
import inspect
import json
import os
import shlex
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from lightning.pytorch import callbacks
from omegaconf import DictConfig

from runlab.config.messages import report_errors

PAGE = ROOT / "docs/trainer.md"
COMMAND = "PYTHONPATH=. .venv/bin/python tests/test_trainer_arguments.py"
SETTING = [
    "~task",
    "~data",
    "+task={_target_: probe.Probe, lr: 0.05}",
    "+data={_target_: probe.Rows, batch_size: 4}",
    "logger=none",
    "monitor=val_loss",
    "mode=min",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
]


@dataclass
class Ran:
    """A run that is over, with what it saw, beside the plain one that nothing was typed for."""

    folder: Path
    metrics: dict[str, Any]
    seen: list[Any]
    notes: list[str]
    output: str
    plain: "Ran | None" = None

    def count(self, stage: str, epoch: int | None = None) -> int:
        """How many batches a stage has had, in all or in an epoch."""
        return sum(seen.stage == stage and epoch in (None, seen.epoch) for seen in self.seen)

    def checkpoint(self, name: str) -> Any:
        return torch.load(self.folder / f"checkpoints/{name}.ckpt", weights_only=True)

    def contents(self) -> Any:
        """What must be equal, bit for bit, however the run came to its end."""
        keys = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "metrics")
        names = [
            n
            for n in ("best", "last")
            if self.metrics["best_checkpoint"] and (self.folder / f"checkpoints/{n}.ckpt").exists()
        ]
        found = {name: [self.checkpoint(name)[key] for key in keys] for name in names}
        return found, {name: value for name, value in self.metrics.items() if name != "seconds"}


@dataclass
class Case:
    """What is typed, and what comes of it: a line that refuses it, or a run of which `check` holds."""

    typed: list[str]
    line: str = ""
    _: KW_ONLY
    check: Callable[[Ran], Any] = lambda _: True
    stop: int | None = 13  # the batch at which it is stopped, to be resumed; None: not at all
    warns: str = "$never"  # the warning that it gives
    needs: str = ""  # a condition on the machine, without which the case is left out


@dataclass
class Row:
    verdict: str
    says: str
    cases: list[Case] = field(default_factory=list)


def equals_plain(run: Ran) -> bool:
    """Whether the run came to the same as the plain one."""
    assert run.plain
    return same(run.contents(), run.plain.contents())


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def rows_of(run: Ran, stage: str, epoch: int) -> list[int]:
    return [row for seen in run.seen if (seen.stage, seen.epoch) == (stage, epoch) for row in seen.rows]


def callback(name: str, options: str = "", key: str = "x") -> str:
    """The override that adds one of Lightning's callbacks."""
    return f"+callbacks.{key}={{_target_: lightning.pytorch.callbacks.{name}{', ' * bool(options)}{options}}}"


EARLY = callback("EarlyStopping", "monitor: val_loss, patience: 1, min_delta: 100")  # ends a run after two epochs
LONG = ["trainer.max_epochs=5", EARLY]


def precision(name: str, dtype: torch.dtype, warns: str = "$never") -> Case:
    def check(run: Ran) -> bool:
        saved = {tensor.dtype for tensor in run.checkpoint("best")["state_dict"].values()}
        return {seen.dtype for seen in run.seen} == saved == {dtype}

    return Case([f"trainer.precision={name}"], check=check, warns=warns)


def differs(run: Ran) -> bool:
    """Whether what was typed has changed the training."""
    assert run.plain
    return run.metrics["train_loss"] != run.plain.metrics["train_loss"]


def predicts_one_batch(run: Ran) -> bool:
    from runlab.load import load_run
    from runlab.training.build import build_trainer

    loaded = load_run(run.folder)
    return len(build_trainer(loaded.config, []).predict(loaded.model, loaded.data.val_dataloader())) == 1


def on_one_process(run: Ran) -> bool:
    """Whether DDP on one process has trained the same; what it logs is summed up in 64 bits."""
    assert run.plain
    return all(same(run.checkpoint(n)["state_dict"], run.plain.checkpoint(n)["state_dict"]) for n in ("best", "last"))


def is_clipped(norm: bool) -> Callable[[Ran], bool]:
    """Plain SGD's first step with a rate of 0.05 on gradients that are clipped to 0.01 is at most that long."""

    def check(run: Ran) -> bool:
        buffers = [
            state["momentum_buffer"] for state in run.checkpoint("last")["optimizer_states"][0]["state"].values()
        ]
        flat = torch.cat([buffer.flatten() for buffer in buffers])  # a sum of clipped gradients, 0.9 of the one before
        return differs(run) and bool((flat.norm() if norm else flat.abs().max()) <= 0.01 / (1 - 0.9) + 1e-6)

    return check


ARGUMENTS = {
    "accelerator": Row(
        "works",
        "cpu, gpu, cuda, mps or auto; make test-gpu runs tests on a GPU, where there is one.",
        [
            Case(["trainer.accelerator=auto"], check=equals_plain),
            Case(
                ["trainer.accelerator=gpu"],
                "trainer: no GPU can be used on this machine; take trainer.accelerator=cpu or auto",
            ),
        ],
    ),
    "strategy": Row(
        "works",
        "auto, and DDP by trainer=ddp (tests/test_ddp.py); what forks or spawns loses what its processes have done;"
        " FSDP and DeepSpeed want several GPUs and were not tried on this machine.",
        [
            Case(["+trainer.strategy=auto"], check=equals_plain),
            Case(["+trainer.strategy=ddp"], check=on_one_process),
            *(
                Case(
                    [f"+trainer.strategy={name}"],
                    f"trainer.strategy={name}: starts its processes in a way that loses what they have done; take"
                    " trainer=ddp",
                )
                for name in ("ddp_spawn", "ddp_fork", "ddp_notebook")
            ),
            Case(
                ["+trainer.strategy={_target_: lightning.pytorch.strategies.DDPStrategy, start_method: spawn}"],
                "trainer.strategy=DDPStrategy: starts its processes in a way that loses what they have done; take"
                " trainer=ddp",
            ),
            Case(
                ["+trainer.strategy=fsdp"],
                "trainer: The strategy `fsdp` requires a GPU accelerator, but received `accelerator='cpu'`. Please set"
                " `accelerator='cuda'`, `accelerator='gpu'`, or pass a `CUDAAccelerator()` instance to use FSDP.",
            ),
        ],
    ),
    "devices": Row(
        "works",
        "How many, on each machine (tests/test_ddp.py); at most one CPU process a core.",
        [
            Case(["trainer.devices=1"], check=equals_plain),
            Case(["trainer.devices=auto"], check=equals_plain),
            Case(
                ["trainer.devices=1000"],
                "trainer.devices=1000: this machine has CORES CPU cores; take at most CORES",
            ),
        ],
    ),
    "num_nodes": Row(
        "works",
        "Where srun or torchrun has started the processes (tests/test_slurm.py, tests/test_ddp.py).",
        [
            Case(
                ["trainer.num_nodes=2"],
                "trainer.num_nodes=2: start a process on each machine by srun or torchrun, or set MASTER_ADDR and"
                " NODE_RANK on each",
            )
        ],
    ),
    "precision": Row(
        "works",
        "What is trained is what best.ckpt holds: 64-bit weights stay so in fit=false and load_run.",
        [
            precision("32-true", torch.float32),
            precision("32", torch.float32),
            precision("64-true", torch.float64),
            precision("bf16-true", torch.bfloat16),
            precision("16-true", torch.float16),
            precision("bf16-mixed", torch.float32),
            precision("16-mixed", torch.float32, warns="You passed `Trainer.accelerator='cpu', precision='16-mixed'"),
            Case(
                ["trainer.precision=double"],
                "trainer.precision=double: must be 32-true or 16-mixed or bf16-mixed or 16-true or bf16-true or 64-true"
                " or 64 or 32 or 16 or bf16 or null",
            ),
        ],
    ),
    "logger": Row(
        "the engine sets it",
        "By the group logger: none, csv, tensorboard, mlflow, wandb, or several.",
        [
            Case(
                ["+trainer.logger=false"],
                "trainer.logger=false: loggers are a group of their own: take logger=none, csv, tensorboard, ...",
            )
        ],
    ),
    "callbacks": Row(
        "the engine sets it",
        "By the group callbacks, each with a name; see the second table.",
        [
            Case(
                ["+trainer.callbacks=[]"],
                "trainer.callbacks=[]: callbacks are added by name, as in +callbacks.NAME._target_=...",
            )
        ],
    ),
    "fast_dev_run": Row(
        "works",
        "A batch (or so many) of each stage; nothing is logged, no best is picked, the weights at hand are tested.",
        [
            Case(
                ["+trainer.fast_dev_run=true"],
                check=lambda run: (
                    [run.count(stage) for stage in ("train", "val", "test")] == [1, 1, 1]
                    and run.metrics["global_step"] == run.metrics["epoch"] == 1
                ),
                stop=None,
            ),
            Case(
                ["+trainer.fast_dev_run=3"],
                check=lambda run: [run.count(stage) for stage in ("train", "val", "test")] == [3, 3, 2],
                stop=2,
            ),
            Case(
                ["+trainer.fast_dev_run=true", "monitor=val_nope"],
                "monitor=val_nope: the validation logs val_loss; choose one of them, or monitor=null",
            ),
        ],
    ),
    "max_epochs": Row(
        "works",
        "-1 has no end, and wants trainer.max_steps or trainer.max_time.",
        [
            Case(["trainer.max_epochs=3"], check=lambda run: run.metrics["epoch"] == 3 and run.count("train") == 30),
            Case(
                ["trainer.max_epochs=-1", "trainer.max_steps=13"],
                check=lambda run: run.metrics["global_step"] == run.count("train") == 13,
                stop=12,
            ),
            Case(
                ["trainer.max_epochs=-1"],
                "trainer.max_epochs=-1: has no end; add trainer.max_steps=... or +trainer.max_time=...",
            ),
            Case(["trainer.max_epochs=0"], "trainer.max_epochs=0: must be integer >= 1 or -1"),
        ],
    ),
    "min_epochs": Row(
        "works",
        "Early stopping waits for it.",
        [
            Case(LONG, check=lambda run: run.metrics["epoch"] == 2),
            Case([*LONG, "+trainer.min_epochs=4"], check=lambda run: run.metrics["epoch"] == 4),
            Case(["+trainer.min_epochs=3"], "trainer.min_epochs=3: more than trainer.max_epochs"),
        ],
    ),
    "max_steps": Row(
        "works",
        "Optimizer steps; the run can be resumed with more.",
        [
            Case(
                ["trainer.max_steps=13"],
                check=lambda run: (
                    run.metrics["global_step"] == run.count("train") == 13
                    and run.checkpoint("last")["global_step"] == 13
                ),
                stop=12,
            ),
            Case(["trainer.max_steps=20"], check=equals_plain),
            Case(["trainer.max_steps=0"], "trainer.max_steps=0: must be integer >= 1 or -1"),
        ],
    ),
    "min_steps": Row(
        "works",
        "Early stopping waits for it, and then ends in the middle of an epoch.",
        [
            Case([*LONG, "+trainer.min_steps=25"], check=lambda run: run.metrics["global_step"] == 25),
            Case(["trainer.max_steps=9", "+trainer.min_steps=10"], "trainer.min_steps=10: more than trainer.max_steps"),
        ],
    ),
    "max_time": Row(
        "works",
        "Ends after the batch at hand; how far a run comes depends on the machine. It can be resumed with more.",
        [
            Case(["+trainer.max_time=00:00:10:00"], check=equals_plain),
            Case(
                ["+trainer.max_time={days: 0}"],
                check=lambda run: run.metrics["global_step"] == 0 and "the weights at hand are tested" in run.output,
                stop=None,
            ),
        ],
    ),
    "limit_train_batches": Row(
        "works",
        "The first so many of each epoch's order, or a share.",
        [
            Case(["trainer.limit_train_batches=5"], check=lambda run: run.metrics["global_step"] == 10, stop=7),
            Case(["trainer.limit_train_batches=0.5"], check=lambda run: run.metrics["global_step"] == 10, stop=7),
            Case(
                ["trainer.limit_train_batches=0.05"],
                "You requested to check 0.05 of the `train_dataloader` but 0.05 * 10 < 1. Please increase the"
                " `limit_train_batches` argument. Try at least `limit_train_batches=0.1`",
            ),
            Case(
                ["trainer.limit_train_batches=0"],
                "trainer.limit_train_batches=0: must be integer >= 1 or share > 0 <= 1",
            ),
        ],
    ),
    "limit_val_batches": Row(
        "works",
        "0 validates nothing: monitor=null then, or a metric of the training.",
        [
            Case(["trainer.limit_val_batches=2"], check=lambda run: run.count("val") == 4),
            Case(
                ["trainer.limit_val_batches=0.4"], check=lambda run: run.count("val") == 2 and run.count("val", 0) == 1
            ),
            Case(
                ["trainer.limit_val_batches=0", "monitor=null"],
                check=lambda run: run.count("val") == 0 and "val_loss" not in run.metrics,
            ),
            Case(["trainer.limit_val_batches=0", "monitor=train_loss"], check=lambda run: run.count("val") == 0),
            Case(
                ["trainer.limit_val_batches=0"],
                "monitor=val_loss: is never logged, as trainer.limit_val_batches is 0; add monitor=null",
            ),
        ],
    ),
    "limit_test_batches": Row(
        "works",
        "A share of less than a batch is found out after the training; the run is then resumed straight to the test.",
        [
            Case(["trainer.limit_test_batches=1"], check=lambda run: run.count("test") == 1),
            Case(
                ["trainer.limit_test_batches=0.1"],
                "You requested to check 0.1 of the `test_dataloader` but 0.1 * 2 < 1. Please increase the"
                " `limit_test_batches` argument. Try at least `limit_test_batches=0.5`",
            ),
            Case(
                ["trainer.limit_test_batches=0"], "trainer.limit_test_batches=0: must be integer >= 1 or share > 0 <= 1"
            ),
        ],
    ),
    "limit_predict_batches": Row(
        "works",
        "For Trainer.predict, which train.py does not call.",
        [
            Case(
                ["+trainer.limit_predict_batches=1"],
                check=lambda run: equals_plain(run) and predicts_one_batch(run),
            )
        ],
    ),
    "overfit_batches": Row(
        "works",
        "So many batches, the same ones in each epoch and in order; as many are validated.",
        [
            Case(
                ["+trainer.overfit_batches=2"],
                check=lambda run: (
                    rows_of(run, "train", 0) == rows_of(run, "train", 1) == list(range(8)) and run.count("val") == 4
                ),
                stop=3,
                warns="You requested to overfit but enabled train",
            ),
            Case(
                ["+trainer.overfit_batches=1"],
                check=lambda run: run.count("train") == 2,
                stop=None,
                warns="You requested to overfit but enabled train",
            ),
            Case(["+trainer.overfit_batches=0.2"], "trainer.overfit_batches=0.2: must be integer >= 1"),
        ],
    ),
    "val_check_interval": Row(
        "works",
        "Batches, or a share of an epoch, between two validations; not by the clock, as another machine would then"
        " choose another best.",
        [
            Case(["+trainer.val_check_interval=3"], check=lambda run: run.count("val") == 2 * 3 * 3),
            Case(["+trainer.val_check_interval=0.5"], check=lambda run: run.count("val") == 2 * 2 * 3),
            Case(["+trainer.val_check_interval=3"], check=lambda run: run.count("val", 1) == 9, stop=12),
            Case(
                ["+trainer.val_check_interval=20"],
                "trainer.val_check_interval=20: an epoch has 10 batches; lower it, or add"
                " trainer.check_val_every_n_epoch=null to count on over epochs",
            ),
            Case(
                ["+trainer.val_check_interval=00:00:00:01"],
                "trainer.val_check_interval=00:00:00:01: must be integer >= 1 or share > 0 <= 1 or null",
            ),
        ],
    ),
    "check_val_every_n_epoch": Row(
        "works",
        "null: val_check_interval counts on over epochs.",
        [
            Case(
                ["trainer.check_val_every_n_epoch=2"],
                check=lambda run: (
                    (run.count("val", 0), run.count("val", 1)) == (0, 3) and run.checkpoint("best")["epoch"] == 1
                ),
            ),
            Case(
                ["trainer.check_val_every_n_epoch=null", "+trainer.val_check_interval=15"],
                check=lambda run: (
                    (run.count("val", 0), run.count("val", 1)) == (0, 3) and run.checkpoint("best")["global_step"] == 15
                ),
            ),
            Case(
                ["trainer.check_val_every_n_epoch=null"],
                "trainer.check_val_every_n_epoch=null: add +trainer.val_check_interval=..., in batches",
            ),
            Case(
                ["trainer.check_val_every_n_epoch=3"],
                "monitor=val_loss: is never logged, as trainer.check_val_every_n_epoch=3 and trainer.max_epochs=2; add"
                " monitor=null",
            ),
        ],
    ),
    "num_sanity_val_steps": Row(
        "works",
        "They change no number; with 0 a wrong monitor is found out later.",
        [
            Case(["trainer.num_sanity_val_steps=0"], check=equals_plain),
            Case(["trainer.num_sanity_val_steps=-1"], check=equals_plain),
        ],
    ),
    "log_every_n_steps": Row(
        "works",
        "At least once an epoch, whatever it is.",
        [
            Case(["trainer.log_every_n_steps=1"], check=equals_plain),
            Case(["trainer.log_every_n_steps=0"], "trainer.log_every_n_steps=0: must be integer >= 1"),
        ],
    ),
    "enable_checkpointing": Row(
        "works",
        "false: without the callbacks that write them; the weights at hand are tested, and a line says so.",
        [
            Case(
                ["+trainer.enable_checkpointing=false", "~callbacks.best_checkpoint", "~callbacks.last_checkpoint"],
                check=lambda run: (
                    run.metrics["best_checkpoint"] is None
                    and not (run.folder / "checkpoints").exists()
                    and "no checkpoint was written: the weights at hand are tested" in run.output
                ),
            ),
            Case(
                ["+trainer.enable_checkpointing=false"],
                "trainer.enable_checkpointing=false: leave out what does it as well, add '~callbacks.best_checkpoint'"
                " '~callbacks.last_checkpoint'",
            ),
        ],
    ),
    "enable_progress_bar": Row(
        "works",
        "false: without the callback that shows it.",
        [
            Case(
                ["+trainer.enable_progress_bar=false", "~callbacks.progress"],
                check=lambda run: equals_plain(run) and "epoch 1/2" not in run.output,
            ),
            Case(
                ["+trainer.enable_progress_bar=false"],
                "trainer.enable_progress_bar=false: leave out what does it as well, add '~callbacks.progress'",
            ),
        ],
    ),
    "enable_model_summary": Row(
        "works",
        "true: a table of the network's layers before the training.",
        [
            Case(
                ["trainer.enable_model_summary=true"],
                check=lambda run: equals_plain(run) and "Trainable params" in run.output,
            )
        ],
    ),
    "accumulate_grad_batches": Row(
        "works",
        "An epoch's last window is divided by the same number, also where it has fewer batches.",
        [
            Case(["+trainer.accumulate_grad_batches=3"], check=lambda run: run.metrics["global_step"] == 8),
            Case(["+trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches=0: must be integer >= 1"),
        ],
    ),
    "gradient_clip_val": Row(
        "works",
        "The largest norm of all gradients together, or with gradient_clip_algorithm=value of each number.",
        [
            Case(["+trainer.gradient_clip_val=0.01"], check=is_clipped(norm=True)),
            Case(["+trainer.gradient_clip_val=0"], "trainer.gradient_clip_val=0: must be number > 0 or null"),
        ],
    ),
    "gradient_clip_algorithm": Row(
        "works",
        "norm or value, with gradient_clip_val.",
        [
            Case(
                ["+trainer.gradient_clip_val=0.01", "+trainer.gradient_clip_algorithm=value"],
                check=is_clipped(norm=False),
            ),
            Case(
                ["+trainer.gradient_clip_algorithm=value"],
                "trainer.gradient_clip_algorithm=value: clips nothing without a bound; add"
                " +trainer.gradient_clip_val=...",
            ),
            Case(
                ["+trainer.gradient_clip_val=1", "+trainer.gradient_clip_algorithm=max"],
                "trainer.gradient_clip_algorithm=max: must be norm or value or null",
            ),
        ],
    ),
    "deterministic": Row(
        "works",
        "true, the default, is what equal bits rest on: an operation without a deterministic way on a GPU is refused in"
        " a line. warn lets that one run; false gives up equal bits on a GPU altogether.",
        [
            Case(
                ["trainer.deterministic=warn"],
                check=lambda run: equals_plain(run) and torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            Case(
                ["trainer.deterministic=false"],
                check=lambda run: equals_plain(run) and not torch.are_deterministic_algorithms_enabled(),
            ),
        ],
    ),
    "benchmark": Row(
        "refused",
        "With trainer.deterministic=false it may be set.",
        [
            Case(
                ["+trainer.benchmark=true"],
                "trainer.benchmark=true: chooses by the clock how to compute, so that the same seed gives other bits;"
                " leave it out, or add trainer.deterministic=false",
            ),
            Case(["+trainer.benchmark=true", "trainer.deterministic=false"], check=equals_plain),
        ],
    ),
    "inference_mode": Row(
        "works",
        "Of the test; validation within the training always runs without it, as Lightning has it.",
        [
            Case(
                ["+trainer.inference_mode=false"],
                check=lambda run: equals_plain(run) and not any(seen.inference for seen in run.seen),
            ),
            Case(
                ["+trainer.inference_mode=true"],
                check=lambda run: {seen.stage for seen in run.seen if seen.inference} == {"test"},
            ),
        ],
    ),
    "use_distributed_sampler": Row(
        "the engine sets it",
        "The engine shares out the samples, each once, on any number of processes.",
        [
            Case(
                ["trainer.use_distributed_sampler=true"],
                "trainer.use_distributed_sampler=true: Lightning's sampler tests some samples twice; leave it false,"
                " the engine shares them out",
            )
        ],
    ),
    "profiler": Row(
        "works",
        "trainer=profile writes it into the run folder; simple and advanced print it.",
        [
            Case(
                ["trainer.profiler=simple"],
                check=lambda run: equals_plain(run) and "FIT Profiler Report" in run.output,
            ),
            Case(
                ["trainer.profiler=advanced"],
                check=lambda run: equals_plain(run) and "FIT Profiler Report" in run.output,
            ),
        ],
    ),
    "detect_anomaly": Row(
        "works",
        "Slower; a gradient that is NaN then raises where it was made. trainer=debug has it.",
        [
            Case(
                ["+trainer.detect_anomaly=true"],
                check=lambda run: equals_plain(run) and all(seen.anomaly for seen in run.seen if seen.stage == "train"),
            )
        ],
    ),
    "barebones": Row(
        "refused",
        "A run without metrics is none.",
        [
            Case(
                ["+trainer.barebones=true"],
                "trainer.barebones=true: switches off checkpoints and self.log, without which a run has no result; for"
                " a profile of a run take trainer=profile",
            )
        ],
    ),
    "plugins": Row(
        "works",
        "A list; one of them must write checkpoints whole or not at all.",
        [
            Case(
                [
                    "trainer.plugins=[{_target_: runlab.runs.checkpoints.AtomicCheckpointIO},"
                    "{_target_: lightning.pytorch.plugins.environments.LightningEnvironment}]"
                ],
                check=equals_plain,
            ),
            Case(
                ["trainer.plugins=[]"],
                "trainer.plugins: TorchCheckpointIO can leave half a checkpoint behind; keep"
                " runlab.runs.checkpoints.AtomicCheckpointIO among them",
            ),
            Case(
                ["trainer.plugins=[{_target_: lightning.pytorch.plugins.AsyncCheckpointIO}]"],
                "trainer.plugins: AsyncCheckpointIO can leave half a checkpoint behind; keep"
                " runlab.runs.checkpoints.AtomicCheckpointIO among them",
            ),
        ],
    ),
    "sync_batchnorm": Row(
        "not on this machine: torch's SyncBatchNorm wants several GPUs",
        "On one device it changes nothing; on several CPU processes it is refused.",
        [Case(["+trainer.sync_batchnorm=true"], check=equals_plain)],
    ),
    "reload_dataloaders_every_n_epochs": Row(
        "works",
        "The loaders are made anew, and the order of the samples stays the same.",
        [
            Case(
                ["+trainer.reload_dataloaders_every_n_epochs=1"],
                check=lambda run: equals_plain(run) and run.notes.count("train") == 2,
            ),
            Case(
                ["+trainer.reload_dataloaders_every_n_epochs=2", "trainer.max_epochs=4"],
                check=lambda run: run.notes.count("train") == 2,
                stop=33,
            ),
        ],
    ),
    "default_root_dir": Row(
        "the engine sets it",
        "To the run folder; where it is another one, nothing of the run goes there.",
        [Case(["trainer.default_root_dir=${run_dir}/elsewhere"], check=equals_plain)],
    ),
    "enable_autolog_hparams": Row(
        "works",
        "Whether loggers get what save_hyperparameters has kept; the run's record is written in any case.",
        [Case(["+trainer.enable_autolog_hparams=false"], check=equals_plain)],
    ),
    "model_registry": Row(
        "refused",
        "It is for a service of Lightning's.",
        [
            Case(
                ["+trainer.model_registry=mine"],
                "trainer.model_registry=mine: sends checkpoints to a service of Lightning's, which nothing here does;"
                " leave it out",
            )
        ],
    ),
}


def has_averaged_weights(run: Ran) -> bool:
    """Whether what is kept and tested is an average, other than the weights that are trained on."""
    best = run.checkpoint("best")
    name = "network.0.weight"
    return not torch.equal(best["state_dict"][name], best["current_model_state"][name])


def thaws(run: Ran) -> bool:
    """Whether the optimizer has got a second group of parameters on the way."""
    [optimizer] = run.checkpoint("last")["optimizer_states"]
    assert run.plain
    return len(optimizer["param_groups"]) == 2 and differs(run)


def logs(*names: str) -> Callable[[Ran], bool]:
    """Whether the CSV file has columns whose names begin so."""

    def check(run: Ran) -> bool:
        [path] = run.folder.rglob("metrics.csv")
        columns = path.read_text().splitlines()[0].split(",")
        return all(any(column.startswith(name) for column in columns) for name in names)

    return check


THAW = "+callbacks.x._target_=mine.Thaw"


def scheduler(name: str, options: str = "") -> str:
    return f"+task.scheduler={{_target_: torch.optim.lr_scheduler.{name}, _partial_: true{options}}}"


CALLBACKS = {
    "Callback": Row(
        "works", "The base class of one's own: any, by its path.", [Case([callback("Callback")], check=equals_plain)]
    ),
    "Checkpoint": Row(
        "works", "The base class of what writes checkpoints.", [Case([callback("Checkpoint")], check=equals_plain)]
    ),
    "ModelCheckpoint": Row(
        "works",
        "Beside best.ckpt or in its folder; of those that watch `monitor` the best is tested.",
        [
            Case(
                [callback("ModelCheckpoint", "dirpath: '${run_dir}/more'")],
                check=lambda run: equals_plain(run) and len(list((run.folder / "more").iterdir())) == 1,
            ),
            Case(
                [
                    callback(
                        "ModelCheckpoint",
                        "dirpath: '${run_dir}/checkpoints', filename: '{step}', every_n_train_steps: 3, save_top_k: -1",
                    )
                ],
                check=lambda run: equals_plain(run) and (run.folder / "checkpoints/step=18.ckpt").exists(),
            ),
        ],
    ),
    "OnExceptionCheckpoint": Row(
        "refused",
        "Lightning loads what it finds in its folder, whichever run has left it there.",
        [
            Case(
                [callback("OnExceptionCheckpoint", "dirpath: '${run_dir}/checkpoints'")],
                "callbacks.x: OnExceptionCheckpoint has a new run begin with what any earlier one has left in its"
                " folder; leave it out, a run is resumed from the end of its last epoch",
            )
        ],
    ),
    "WeightAveraging": Row(
        "works",
        "best.ckpt, the test and load_run have the averaged weights.",
        [Case([callback("WeightAveraging")], check=has_averaged_weights)],
    ),
    "EMAWeightAveraging": Row(
        "works",
        "The same, with an exponential average.",
        [
            Case([callback("EMAWeightAveraging", "decay: 0.9")], check=has_averaged_weights),
            Case([callback("EMAWeightAveraging", "decay: 0.9"), "monitor=null"], check=has_averaged_weights),
        ],
    ),
    "StochasticWeightAveraging": Row(
        "refused",
        "Its average is there only when the last checkpoint has been written.",
        [
            Case(
                [callback("StochasticWeightAveraging", "swa_lrs: 0.01")],
                "callbacks.x: StochasticWeightAveraging makes its average after the last checkpoint, so that it would"
                " neither be kept nor tested; take WeightAveraging or EMAWeightAveraging",
            )
        ],
    ),
    "EarlyStopping": Row(
        "works",
        "By a metric of the validation, or with check_on_train_epoch_end of the training.",
        [
            Case(LONG, check=lambda run: run.metrics["epoch"] == 2),
            Case(
                [
                    "trainer.max_epochs=5",
                    callback(
                        "EarlyStopping",
                        "monitor: train_loss, patience: 2, min_delta: 100, check_on_train_epoch_end: true",
                    ),
                ],
                check=lambda run: run.metrics["epoch"] == 3,
                stop=25,
            ),
            Case(
                [callback("EarlyStopping", "monitor: nope")],
                "EarlyStopping with monitor=nope: this run logs val_loss, train_loss; choose one of them",
            ),
            Case(
                [callback("EarlyStopping", "monitor: val_nope")],
                "EarlyStopping with monitor=val_nope: the validation logs val_loss; choose one of them",
            ),
            Case(
                [callback("EarlyStopping", "monitor: val_loss"), "monitor=null", "trainer.limit_val_batches=0"],
                "EarlyStopping with monitor=val_loss: is never logged, as trainer.limit_val_batches is 0; leave it out",
            ),
        ],
    ),
    "LearningRateFinder": Row(
        "refused",
        "What it finds is in no record, and a resumed run finds another rate.",
        [
            Case(
                [callback("LearningRateFinder")],
                "callbacks.x: LearningRateFinder trains with another learning rate than the record says; search for one"
                " by a sweep, as in -m optimizer.lr=0.01,0.1,1",
            )
        ],
    ),
    "BatchSizeFinder": Row(
        "refused",
        "What it finds fits neither the schedule nor the record.",
        [
            Case(
                [callback("BatchSizeFinder")],
                "callbacks.x: BatchSizeFinder trains with another batch size than the record and the schedule say;"
                " search for one by a sweep, as in -m data.batch_size=64,128,256",
            )
        ],
    ),
    "ModelPruning": Row(
        "refused",
        "The weights that it saves are not those that were validated, and a resumed run prunes otherwise.",
        [
            Case(
                [callback("ModelPruning", "pruning_fn: l1_unstructured, amount: 0.5")],
                "callbacks.x: ModelPruning prunes after the validation, so that best.ckpt would hold other weights than"
                " its metrics are of; prune the finished network, as load_run gives it",
            )
        ],
    ),
    "GradientAccumulationScheduler": Row(
        "works",
        "With scheduler=none, or one that counts in epochs: nobody knows the number of steps beforehand.",
        [
            Case(
                [callback("GradientAccumulationScheduler", "scheduling: {0: 2, 1: 4}")],
                check=lambda run: run.metrics["global_step"] == 5 + 3,
            ),
            Case(
                [callback("GradientAccumulationScheduler", "scheduling: {1: 5}")],
                check=lambda run: run.metrics["global_step"] == 10 + 2,
            ),
        ],
    ),
    "Timer": Row(
        "works",
        "As trainer.max_time, which is one.",
        [
            Case([callback("Timer", "duration: '00:00:10:00'")], check=equals_plain),
            Case(
                [callback("Timer", "duration: {days: 0}")], check=lambda run: run.metrics["global_step"] == 0, stop=None
            ),
        ],
    ),
    "BaseFinetuning": Row(
        "works",
        "The base class of what thaws layers, as mine.Thaw in the tests; with a scheduler of torch's that takes in the"
        " new parameters.",
        [
            Case([THAW], check=thaws),
            *(
                Case([THAW, scheduler(name, options)], check=thaws)
                for name, options in (
                    ("StepLR", ", step_size: 1"),
                    ("MultiStepLR", ", milestones: [1]"),
                    ("ExponentialLR", ", gamma: 0.5"),
                    ("ConstantLR", ""),
                    ("LinearLR", ""),
                    ("PolynomialLR", ""),
                )
            ),
            *(
                Case(
                    [THAW, scheduler(name, options)],
                    f"scheduler: {name} does not take in the parameters that Thaw adds to the optimizer; take"
                    " scheduler=none, step or plateau",
                )
                for name, options in (
                    ("LambdaLR", ", lr_lambda: {_target_: hydra.utils.get_method, path: probe.half}"),
                    ("CosineAnnealingLR", ", T_max: 2"),
                    ("OneCycleLR", ", max_lr: 0.1, total_steps: 20"),
                )
            ),
        ],
    ),
    "BackboneFinetuning": Row(
        "works",
        "For a task that has a `backbone`; schedulers as for BaseFinetuning.",
        [
            Case(
                [
                    "task._target_=probe.WithBackbone",
                    callback("BackboneFinetuning", "unfreeze_backbone_at_epoch: 1, backbone_initial_lr: 0.01"),
                ],
                check=thaws,
            ),
            Case(
                [callback("BackboneFinetuning")],
                "callbacks: BackboneFinetuning wants a `backbone`, which Probe does not have",
            ),
        ],
    ),
    "LambdaCallback": Row(
        "works",
        "Functions by their paths.",
        [
            Case(
                [
                    callback(
                        "LambdaCallback",
                        "on_train_epoch_end: {_target_: hydra.utils.get_method, path: probe.note_epoch}",
                    )
                ],
                check=lambda run: equals_plain(run) and {"epoch 0", "epoch 1"} <= set(run.notes),
            )
        ],
    ),
    "ProgressBar": Row(
        "works",
        "The base class of progress bars; in the place of ours.",
        [
            Case(["~callbacks.progress", callback("ProgressBar")], check=lambda run: "epoch 1/2" not in run.output),
            Case(
                [callback("ProgressBar")],
                "callbacks: there can be one progress bar; leave out one, as in '~callbacks.progress'",
            ),
        ],
    ),
    "TQDMProgressBar": Row(
        "works",
        "In the place of ours, which is one of these on a terminal.",
        [
            Case(
                ["callbacks.progress._target_=lightning.pytorch.callbacks.TQDMProgressBar"],
                check=lambda run: equals_plain(run) and "Epoch 1" in run.output,
            )
        ],
    ),
    "RichProgressBar": Row(
        "not on this machine: the package rich is not among the requirements",
        "A line says so where it is missing.",
        [
            Case(
                ["~callbacks.progress", callback("RichProgressBar")],
                "callbacks.x: `RichProgressBar` requires `rich` >= 10.2.2. Install it by running `pip install -U rich"
                "`.",
                needs="no rich",
            )
        ],
    ),
    "ModelSummary": Row(
        "works",
        "As trainer.enable_model_summary=true, with a depth.",
        [
            Case(
                [callback("ModelSummary", "max_depth: 2")],
                check=lambda run: equals_plain(run) and "network.0" in run.output,
            )
        ],
    ),
    "RichModelSummary": Row(
        "not on this machine: the package rich is not among the requirements",
        "A line says so where it is missing.",
        [
            Case(
                [callback("RichModelSummary")],
                "callbacks.x: `RichModelSummary` requires `rich` to be installed. Install it by running `pip install -U"
                " rich`.",
                needs="no rich",
            )
        ],
    ),
    "LearningRateMonitor": Row(
        "works",
        "With a logger; train/lr is logged without it.",
        [
            Case([callback("LearningRateMonitor"), "logger=csv"], check=logs("lr-SGD")),
            Case(
                [callback("LearningRateMonitor")],
                "callbacks.x: LearningRateMonitor needs a logger; add logger=csv or tensorboard, or leave it out",
            ),
        ],
    ),
    "DeviceStatsMonitor": Row(
        "works",
        "With a logger; on a CPU it wants the package psutil.",
        [
            Case(
                [callback("DeviceStatsMonitor"), "logger=csv", "trainer.log_every_n_steps=1"],
                check=logs("DeviceStatsMonitor.on_train_batch_start/"),
            ),
            Case(
                [callback("DeviceStatsMonitor")],
                "callbacks.x: DeviceStatsMonitor needs a logger; add logger=csv or tensorboard, or leave it out",
            ),
        ],
    ),
    "ThroughputMonitor": Row(
        "works",
        "With a logger and a function that says how many samples a batch has.",
        [
            Case(
                [
                    callback(
                        "ThroughputMonitor",
                        "window_size: 2, batch_size_fn: {_target_: hydra.utils.get_method, path: probe.batch_size}",
                    ),
                    "logger=csv",
                    "trainer.log_every_n_steps=1",
                ],
                check=logs("train/device/"),
                warns="When using the `ThroughputMonitor`, you need to define a `flops_per_batch`",
            ),
            Case(
                [callback("ThroughputMonitor")],
                "callbacks.x.batch_size_fn: missing, lightning.pytorch.callbacks.ThroughputMonitor needs it;"
                " add +callbacks.x.batch_size_fn=...",
            ),
        ],
    ),
    "SpikeDetection": Row(
        "refused",
        "It keeps no mean in a checkpoint.",
        [
            Case(
                [callback("SpikeDetection")],
                "callbacks.x: SpikeDetection forgets its mean loss on a resume, and would then end the run elsewhere;"
                " leave it out, a loss that is not finite ends a run anyway",
            )
        ],
    ),
    "BasePredictionWriter": Row(
        "works",
        "The base class of what writes Trainer.predict's results, which train.py does not call.",
        [Case([callback("BasePredictionWriter")], check=equals_plain)],
    ),
}


def composed(*typed: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose("train", [*SETTING, *typed])


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Put back what a run sets for its whole process."""
    mode = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(mode)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def ran(
    cfg: DictConfig, folder: Path, capture: tuple[Any, Any], stop: int | None = None, resume: str | None = None
) -> Ran:
    """Run what a config says in a folder; with `stop`, send Ctrl-C at the start of that batch."""
    import probe

    from train import train

    cfg = cfg.copy()
    cfg.run_dir, cfg.resume = str(folder), resume
    if stop:
        cfg.callbacks = {**cfg.callbacks, "interrupt": {"_target_": "faults.InterruptAt", "batch": stop}}
    probe.SEEN.clear()
    probe.NOTES.clear()
    capfd, caplog = capture
    caplog.clear()
    capfd.readouterr()
    metrics: dict[str, Any] = {}
    if stop:
        with pytest.raises(SystemExit) as ended:
            train(cfg)
        assert ended.value.code == 128 + signal.SIGINT
    else:
        metrics = train(cfg)
        assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    return Ran(folder, metrics, list(probe.SEEN), list(probe.NOTES), "".join(capfd.readouterr()) + caplog.text)


def cases(rows: dict[str, Row]) -> list[Any]:
    """A test for each command. All but each argument's first are left to `make test-all`."""
    return [
        pytest.param(case, id=f"{name}-{i}", marks=pytest.mark.slow if i else [])
        for name, row in rows.items()
        for i, case in enumerate(row.cases)
    ]


PLAIN: list[Ran] = []


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain")


@pytest.mark.parametrize("case", cases(ARGUMENTS) + cases(CALLBACKS))
def test_what_is_typed_works_or_is_refused_in_a_line(
    case: Case,
    tmp_path: Path,
    plain_folder: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    if case.needs == "no rich" and importlib.util.find_spec("rich"):
        pytest.skip(f"wants {case.needs}")
    capture = capfd, caplog
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", case.warns)
        if not PLAIN:
            PLAIN.append(ran(composed(), plain_folder / "run", capture))
        cfg = composed(*case.typed)
        if case.line:
            with pytest.raises(SystemExit) as ended, report_errors():
                ran(cfg, tmp_path / "run", capture)
            assert ended.value.code == 1
            assert capfd.readouterr().err.splitlines()[-1] == case.line.replace("CORES", str(os.cpu_count()))
            assert not (tmp_path / "run/metrics.json").exists()
            return
        straight = ran(cfg, tmp_path / "straight", capture)
        straight.plain = PLAIN[0]
        assert case.check(straight)
        if case.stop:
            begun = ran(cfg, tmp_path / "run", capture, stop=case.stop)
            resumed = ran(cfg, tmp_path / "run", capture, resume="auto")
            trained = [seen for seen in [*begun.seen, *resumed.seen] if seen.stage == "train"]
            assert trained == [seen for seen in straight.seen if seen.stage == "train"]
            assert same(resumed.contents(), straight.contents())


def test_every_argument_and_callback_of_lightnings_has_a_row() -> None:
    arguments = list(inspect.signature(lightning.Trainer.__init__).parameters)[1:]
    assert sorted(ARGUMENTS) == sorted(arguments), "give each argument a row in ARGUMENTS"
    assert sorted(CALLBACKS) == sorted(callbacks.__all__), "give each callback a row in CALLBACKS"


def page() -> str:
    """The text of docs/trainer.md."""
    lines = [
        "# What of Lightning's Trainer works",
        "",
        f"Each argument of `lightning.Trainer` ({lightning.__version__}) and each callback that Lightning ships, with"
        " what becomes of it here. *Works* means with all promises: `best.ckpt` is the best, metrics are what their"
        " names say, and a run that is stopped in the middle of an epoch and resumed comes out equal, bit for bit. What"
        " cannot keep them is refused in a line before the training, with status 1. Each command below is a run in"
        " `tests/test_trainer_arguments.py`, of two epochs on ten training batches, three of validation and two of the"
        " test, with `monitor=val_loss`. This page is made of it:",
        "",
        f"    {COMMAND}",
    ]
    for title, rows in (("Arguments", ARGUMENTS), ("Callbacks", CALLBACKS)):
        lines += ["", f"## {title}", "", "| | verdict | |", "|---|---|---|"]
        lines += [f"| `{name}` | {row.verdict} | {row.says} |" for name, row in rows.items()]
        for heading, refused in (("Works, as in", False), ("Refused", True)):
            lines += ["", f"**{heading}**", "", "| typed | answer |" if refused else "| typed |"]
            lines += ["|---|---|" if refused else "|---|"]
            for case in (case for row in rows.values() for case in row.cases if bool(case.line) == refused):
                typed = f"| `{shlex.join(case.typed)}` |"
                answer = f" {case.line.replace('CORES', '8')} |" if refused else ""
                if typed + answer not in lines:
                    lines.append(typed + answer)
    return "\n".join(lines) + "\n"


def test_the_page_is_made_of_these_tables() -> None:
    assert PAGE.read_text() == page(), f"renew it: {COMMAND}"


if __name__ == "__main__":
    PAGE.write_text(page())
