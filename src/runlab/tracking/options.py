"""What the values of the loggers may be. Imports pydantic, no torch."""

from typing import Literal

from pydantic import Field

from runlab.config.options import Count, FilePath, Mapping, NotNegative, Options


class TensorBoard(Options):
    """Scalars, figures and texts for TensorBoard."""

    of_group, target, may_lack = "logger", "runlab.tracking.loggers.TensorBoardLogger", True
    save_dir: FilePath = Field(description="Folder of the event files.")
    name: str | None = Field(description="A folder below it.")
    version: int | str | None = Field(description="A folder below that.")
    sub_dir: str | None = Field(description="A folder below that.")
    default_hp_metric: bool = Field(description="true: log hp_metric, a number of Lightning's own.")
    log_graph: bool = Field(description="true: log the network's graph; it wants an example_input_array.")
    prefix: str = Field(description="Stands before each metric's name.")
    flush_secs: Count = Field(description="Seconds until a logged value is on disk.")
    max_queue: Count = Field(description="Values that wait for that at most.")
    purge_step: NotNegative | None = Field(description="Events from this step on are not shown.")
    filename_suffix: str = Field(description="Ends the names of the event files.")
    comment: str = Field(description="Of TensorBoard's own folder names, which are not used here.")
    charts: Mapping = Field(description="The custom scalars tab: {category: {chart: [Multiline, [scalars]]}}.")


class CSV(Options):
    """A table: a row for each step that logged something."""

    of_group, target, may_lack = "logger", "runlab.tracking.history.CSVLogger", True
    save_dir: FilePath = Field(description="The folder.")
    name: str | None = Field(description="A folder below it.")
    version: int | str | None = Field(description="A folder below that: version_<version>.")
    prefix: str = Field(description="Stands before each metric's name.")
    flush_logs_every_n_steps: Count = Field(description="Optimizer steps until logged values are on disk.")


class MLFlow(Options):
    """MLflow, one store for all runs."""

    of_group, target, may_lack = "logger", "runlab.tracking.loggers.MLFlowLogger", True
    experiment_name: str = Field(description="The experiment that the run belongs to.")
    run_name: str | None = Field(description="The run's name.")
    tracking_uri: str = Field(description="The store: sqlite:///<file>, or a server's address.")
    tags: Mapping | None = Field(description="Names and values that the run is found by.")
    save_dir: FilePath | None = Field(description="A folder as the store, where there is no tracking_uri.")
    log_model: bool | Literal["all"] = Field(description="true: copy the checkpoints at the end; all: each one.")
    prefix: str = Field(description="Stands before each metric's name.")
    artifact_location: str | None = Field(description="Folder of the pictures.")
    run_id: str | None = Field(description="A run of the store to log into.")
    synchronous: bool | None = Field(description="false: log without waiting for the store.")


class Wandb(Options):
    """Weights & Biases; what Lightning does not take goes to wandb.init."""

    of_group, target, may_lack = "logger", "runlab.tracking.loggers.WandbLogger", True
    save_dir: FilePath = Field(description="Folder of wandb/.")
    dir: FilePath | None = Field(description="The same, by W&B's name.")
    project: str | None = Field(description="The project.")
    entity: str | None = Field(description="The user or team that the project belongs to.")
    name: str | None = Field(description="The run's name.")
    notes: str | None = Field(description="A text about the run.")
    tags: list[str] | None = Field(description="Words that the run is found by.")
    group: str | None = Field(description="Runs of the same group are shown as one.")
    job_type: str | None = Field(description="The kind of run, as train.")
    offline: bool = Field(description="false: send as it runs, which needs `wandb login`.")
    mode: Literal["online", "offline", "disabled", "shared"] | None = Field(description="W&B's own word for it.")
    log_model: bool | Literal["all"] = Field(description="true: upload the checkpoints at the end; all: each one.")
    checkpoint_name: str | None = Field(description="Name of the checkpoints there.")
    add_file_policy: Literal["mutable", "immutable"] = Field(description="Whether a checkpoint is copied first.")
    prefix: str = Field(description="Stands before each metric's name.")
    version: str | None = Field(description="The run's id, by Lightning's name.")
    id: str | None = Field(description="The run's id; the engine keeps it for a resumed run.")
    config: Mapping | str | None = Field(description="More hyperparameters.")
    config_exclude_keys: list[str] | None = Field(description="Of `config`, what is left out.")
    config_include_keys: list[str] | None = Field(description="Of `config`, what is taken.")
    allow_val_change: bool | None = Field(description="Whether they may change later.")
    settings: Mapping | None = Field(description="Any of wandb.Settings.")
    save_code: bool | None = Field(description="true: upload the script.")
    force: bool | None = Field(description="true: it is an error not to be logged in.")
    resume: bool | Literal["allow", "never", "must", "auto"] | None = Field(description="Whether `id` may exist.")
    reinit: bool | str | None = Field(description="What becomes of a run that is open in this process.")
    resume_from: str | None = Field(description="A run and step to rewind to.")
    fork_from: str | None = Field(description="A run and step to branch off from.")
    tensorboard: bool | None = Field(description="true: take over what TensorBoard gets.")
    sync_tensorboard: bool | None = Field(description="The same.")
    monitor_gym: bool | None = Field(description="true: videos of gym's environments.")
