"""What the values of the Trainer and of the engine's callbacks may be. Imports pydantic, no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from runlab.config.options import Count, FilePath, Mapping, NotNegative, Options, Share, ShareOrNone

Limit = Count | Share
LimitOrNone = NotNegative | ShareOrNone

# Arguments of the Trainer that no run may set, each with what to type instead.
REFUSED = {
    "callbacks": "callbacks are added by name, as in +callbacks.NAME._target_=...",
    "logger": "loggers are a group of their own: take logger=none, csv, tensorboard, ...",
    "barebones": "switches off checkpoints and self.log, without which a run has no result; for a profile of a run"
    " take trainer=profile",
    "use_distributed_sampler": "Lightning's sampler tests some samples twice; leave it false, the engine shares"
    " them out",
    "model_registry": "sends checkpoints to a service of Lightning's, which nothing here does; leave it out",
}


class AnyTrainer(Options):
    """Lightning's Trainer, or a subclass of one's own."""

    of_group, may_lack = "trainer", True
    max_steps: Count | Literal[-1] = Field(description="Optimizer steps at most; -1: no limit.")
    max_time: str | Mapping | None = Field(None, description="Time at most, as DD:HH:MM:SS or {hours: 1}.")
    max_epochs: Count | Literal[-1] = Field(description="Passes over the training set; -1: no limit.")
    min_epochs: NotNegative | None = Field(description="Passes at least.")
    min_steps: NotNegative | None = Field(description="Optimizer steps at least.")
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = Field(description="Kind of device.")
    devices: Count | list[NotNegative] | Literal[-1, "auto"] = Field(description="How many devices on each node.")
    num_nodes: Count = Field(description="Machines.")
    strategy: str = Field(description="How several devices share the work, as ddp.")
    precision: Literal[
        "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "64", "32", "16", "bf16", 64, 32, 16
    ] | None = Field(description="Bits of numbers in forward and backward passes.")  # fmt: skip
    deterministic: bool | Literal["warn"] = Field(description="true: same seed, same bits; warn: only say.")
    benchmark: bool | None = Field(description="true: cuDNN tries out algorithms, which may differ between runs.")
    log_every_n_steps: Count = Field(description="Optimizer steps between two points of train/loss.")
    val_check_interval: Limit | None = Field(description="Batches (int) or share (float) between two validations.")
    check_val_every_n_epoch: Count | None = Field(description="Epochs between two validations; null: by batches.")
    limit_train_batches: Limit = Field(description="Batches (int) or share (float) of each training epoch.")
    limit_val_batches: LimitOrNone = Field(description="Batches (int) or share (float) of the validation; 0: none.")
    limit_test_batches: Limit = Field(description="Batches (int) or share (float) of the test.")
    limit_predict_batches: LimitOrNone | None = Field(description="Batches (int) or share (float) of a prediction.")
    overfit_batches: Count = Field(description="Batches to train on again and again.")
    num_sanity_val_steps: int = Field(ge=-1, description="Validation batches tried before training; -1: all.")
    accumulate_grad_batches: Count = Field(description="Batches whose gradients are summed for an optimizer step.")
    gradient_clip_val: Annotated[float, Field(gt=0)] | None = Field(description="Largest gradient; null: any.")
    gradient_clip_algorithm: Literal["norm", "value"] | None = Field(description="What of it `gradient_clip_val` is.")
    fast_dev_run: bool | Count = Field(description="Batches of each loader, and nothing is saved; true: one.")
    enable_checkpointing: bool | None = Field(description="Whether checkpoints may be written.")
    enable_progress_bar: bool | None = Field(description="Whether a progress bar is shown.")
    enable_model_summary: bool | None = Field(description="Whether a table of the layers is printed.")
    enable_autolog_hparams: bool = Field(description="Whether Lightning logs hyperparameters itself.")
    inference_mode: bool = Field(description="false: torch.no_grad in validation and test.")
    use_distributed_sampler: Literal[False] = Field(description="The engine shares out the samples, without padding.")
    reload_dataloaders_every_n_epochs: NotNegative = Field(description="Epochs after which loaders are made anew.")
    profiler: Literal["simple", "advanced", "pytorch", "xla"] | None = Field(description="What measures times.")
    detect_anomaly: bool = Field(description="true: find the operation whose gradient is NaN, slowly.")
    barebones: Literal[False] = Field(description="No run may set it: it would have no result.")
    callbacks: None = Field(description="No run may set it: callbacks are a group of their own.")
    logger: None = Field(description="No run may set it: loggers are a group of their own.")
    plugins: list[Any] | str | None = Field(description="How checkpoints are written, and other parts of Lightning.")
    sync_batchnorm: bool = Field(description="true: batch norm over all devices.")
    default_root_dir: FilePath | None = Field(description="Where Lightning writes what has no other place.")
    model_registry: None = Field(description="No run may set it: a service of Lightning's.")

    @field_validator("max_epochs")
    @classmethod
    def _ends(cls, max_epochs: int, info: ValidationInfo) -> int:
        if max_epochs == info.data.get("max_steps") == -1 and info.data.get("max_time") is None:
            raise ValueError("has no end; add trainer.max_steps=... or +trainer.max_time=...")
        return max_epochs

    @field_validator("min_epochs", "min_steps")
    @classmethod
    def _at_most_the_most(cls, least: int | None, info: ValidationInfo) -> int | None:
        most = str(info.field_name).replace("min", "max")
        if (least or 0) > info.data.get(most, -1) != -1:
            raise ValueError(f"more than trainer.{most}")
        return least

    @field_validator("benchmark")
    @classmethod
    def _same_bits(cls, benchmark: bool | None, info: ValidationInfo) -> bool | None:
        if benchmark and info.data.get("deterministic") is True:
            text = "chooses by the clock how to compute, so that the same seed gives other bits; leave it out, or add"
            raise ValueError(f"{text} trainer.deterministic=false")
        return benchmark

    @field_validator("check_val_every_n_epoch")
    @classmethod
    def _validates(cls, epochs: int | None, info: ValidationInfo) -> int | None:
        if epochs is None and info.data.get("val_check_interval") is None:
            raise ValueError("add +trainer.val_check_interval=..., in batches")
        return epochs

    @field_validator("gradient_clip_algorithm")
    @classmethod
    def _clips(cls, algorithm: str | None, info: ValidationInfo) -> str | None:
        if algorithm and info.data.get("gradient_clip_val") is None:
            raise ValueError("clips nothing without a bound; add +trainer.gradient_clip_val=...")
        return algorithm

    @field_validator(*REFUSED, mode="before")
    @classmethod
    def _keeps_promises(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        if value or name in ("callbacks", "logger"):
            raise ValueError(REFUSED[name])
        return value


class Trainer(AnyTrainer):
    target = "lightning.Trainer"


class Progress(Options):
    """A bar on a terminal, elsewhere a line an epoch."""

    of_group, target = "callbacks", "runlab.training.progress.bar"
    refresh_rate: Count = Field(description="Batches between two updates of the bar.")


class BestCheckpoint(Options):
    """checkpoints/best.ckpt, replaced when `monitor` gets better; Lightning's ModelCheckpoint."""

    of_group, target, may_lack = "callbacks", "runlab.training.checkpointing.BestCheckpoint", True
    dirpath: FilePath = Field(description="The folder.")
    filename: str = Field(description="Name of each file, as best or {epoch}; best.ckpt is the best one in any case.")
    monitor: str | None = Field(description="The metric, by its logged name; null: the last epoch is the best.")
    mode: Literal["max", "min"] = Field(description="Which way `monitor` gets better.")
    save_top_k: int = Field(ge=-1, description="How many of the best to keep; -1: all.")
    save_last: bool | Literal["link"] | None = Field(description="Whether there is a last.ckpt of its own.")
    save_weights_only: Literal[False] = Field(description="A file of weights alone could not be resumed or tested.")
    save_on_exception: bool = Field(description="Whether a failure saves, too.")
    save_on_train_epoch_end: bool | None = Field(description="Save after the training epoch, not the validation.")
    every_n_train_steps: NotNegative | None = Field(description="Optimizer steps between two checkpoints.")
    every_n_epochs: NotNegative | None = Field(description="Epochs between two checkpoints.")
    train_time_interval: Mapping | None = Field(description="Time between two: a datetime.timedelta by `_target_`.")
    auto_insert_metric_name: bool = Field(description="Whether a metric's name stands before its value in `filename`.")
    enable_version_counter: bool = Field(description="true: a second file of a name gets a number.")
    verbose: bool = Field(description="true: say what is saved.")


class LastCheckpoint(Options):
    """checkpoints/last.ckpt, replaced after every epoch and where training ends."""

    of_group, target = "callbacks", "runlab.training.checkpointing.LastCheckpoint"
    path: FilePath = Field(description="The file.")


class StopOnSignal(Options):
    """Ctrl-C and SIGTERM end the run after the batch at hand, with last.ckpt saved."""

    of_group, target = "callbacks", "runlab.training.stop.StopOnSignal"
    run_dir: FilePath = Field(description="The run folder.")


class LearningRate(Options):
    """train/lr, where train/loss is logged."""

    of_group, target = "callbacks", "runlab.training.progress.LearningRate"


class Pruning(Options):
    """Ends a trial that does worse than others."""

    of_group, target = "callbacks", "runlab.sweeps.pruning.Pruning"
    monitor: str | None = Field(description="The metric, by its logged name.")
    storage: str = Field(description="SQLAlchemy's URL of the search's database.")
    pruner: Mapping = Field(description="Any of optuna.pruners.")
