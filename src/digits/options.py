"""What the example's values may be. A field that is added to a class is added here, with its bounds and a sentence.

A subclass of `Options` is all that it takes; without one, a `_target_` is checked against its own signature.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from runlab.config.options import Count, FilePath, Mapping, NotNegative, Options, Seed

SomeShare = Annotated[float, Field(ge=0, lt=1, json_schema_extra={"format": "share"})]
Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class ImageData(Options):
    """Images `(B, channels, size, size)` of a torchvision dataset, held in memory."""

    of_group, target = "data", "digits.data.ImageDataModule"
    dataset: Mapping | None = Field(description="The torchvision dataset.")
    root: FilePath = Field(description="Folder of the archives; another one is downloaded into.")
    num_classes: int = Field(ge=2, description="Classes that the dataset must have; the model's outputs follow it.")
    channels: Literal[1, 3] = Field(description="1: grey, 3: colour; the model's input follows it.")
    size: Count = Field(description="Height and width in pixels; the model's input follows it.")
    val_size: NotNegative | SomeShare = Field(
        description="Samples (int) or share (float) of the training set for validation; 0: none."
    )
    folds: Annotated[int, Field(ge=2)] | None = Field(description="Parts of the training set for cross-validation.")
    fold: NotNegative | None = Field(description="The fold to validate on, 0 to folds - 1.")
    split_seed: Seed = Field(description="Draws the split or the folds, the same for every `seed`.")
    shuffle: bool = Field(description="Draw a new order each epoch, from (seed, epoch) alone.")
    sampler: Mapping | None = Field(description="Factory of a torch Sampler, instead of `shuffle`.")
    drop_last: bool = Field(description="Leave out the last training batch if it is smaller than batch_size.")
    batch_sampler: Mapping | None = Field(description="The same for batches of indices.")
    batch_size: Count | None = Field(description="Samples in a training batch, on each device.")
    eval_batch_size: Count = Field(description="Samples in a validation or test batch, on each device.")
    num_workers: NotNegative = Field(description="Loader processes; 0 is the fastest, as images are in memory.")
    device_resident: bool | Literal["auto"] = Field(description="Hold the images on the GPU; auto: if they fit.")
    train_transform: Mapping = Field(description="From a batch (B, C, H, W) uint8 to the network's input, in training.")
    eval_transform: Mapping = Field(description="The same in validation, test and prediction.")
    per_image: bool = Field(description="true: train_transform takes one image at a time, slower.")

    @field_validator("fold")
    @classmethod
    def _one_of_the_folds(cls, fold: int | None, info: ValidationInfo) -> int | None:
        folds = info.data.get("folds", ...)  # not there: wrong itself
        if fold is not None and folds is None:
            raise ValueError("there are none; add data.folds=5")
        if isinstance(fold, int) and isinstance(folds, int) and fold >= folds:
            raise ValueError("must be less than data.folds, as the first is 0")
        if fold is None and isinstance(folds, int):
            raise ValueError("data.folds is set: say on which to validate, as in data.fold=0, or on each, sweep=folds")
        return fold

    @field_validator("sampler")
    @classmethod
    def _instead_of_shuffle(cls, sampler: Any, info: ValidationInfo) -> Any:
        if sampler and info.data.get("shuffle"):
            raise ValueError("excludes data.shuffle=true: add data.shuffle=false")
        return sampler

    @field_validator("batch_size")
    @classmethod
    def _one_source_of_batches(cls, batch_size: int | None, info: ValidationInfo) -> int | None:
        others = [info.data.get(name) for name in ("shuffle", "sampler", "drop_last")]
        if info.data.get("batch_sampler") and (batch_size is not None or any(others)):
            free = "data.batch_size=null data.shuffle=false data.sampler=null data.drop_last=false"
            raise ValueError(f"data.batch_sampler makes the batches alone: add {free}")
        if batch_size is None and info.data.get("batch_sampler", ...) is None:
            raise ValueError("give a number of samples, or a data.batch_sampler")
        return batch_size


class ImageFolderData(ImageData):
    """Images of one's own: a folder with a sub-folder of PNG or JPEG files for each class."""

    target = "digits.data.ImageFolderDataModule"
    test_size: Count | Annotated[SomeShare, Field(gt=0)] = Field(
        description="Samples (int) or share (float) for the test, if there is no folder test/."
    )


class Linear(Options):
    """One linear layer on the pixels."""

    of_group, target = "model", "digits.networks.LinearClassifier"
    channels: Count = Field(description="Channels of the images.")
    size: Count = Field(description="Height and width of the images in pixels.")
    num_classes: Count = Field(description="Outputs.")


class MLP(Linear):
    """Two hidden layers with ReLU and dropout."""

    target = "digits.networks.MLP"
    hidden_features: Count = Field(description="Units in each hidden layer.")
    dropout: Decay = Field(description="Probability of dropping a hidden unit.")


class LeNet(Linear):
    """LeNet-5 with ReLU and max pooling."""

    target = "digits.networks.LeNet"


class Classifier(Options):
    """A network that gives logits, trained with cross-entropy."""

    of_group, target = "task", "digits.classifier.ImageClassifier"
    network: Mapping = Field(description="From images to logits, conf/model/.")
    optimizer: Mapping = Field(description="Takes the parameters, conf/optimizer/.")
    scheduler: Mapping | None = Field(description="Takes the optimizer, conf/scheduler/; empty: a constant rate.")
    num_classes: Count = Field(description="Classes.")
    compile: bool = Field(description="true: torch.compile, in place: the weights keep their names, other last bits.")


class Optimizer(Options):
    """What holds for any optimizer of torch's; one that is left out here is checked against its signature."""

    of_group, may_lack = "optimizer", True
    lr: Rate = Field(description="Learning rate at the start.")
    weight_decay: float = Field(ge=0, description="Factor of the weights that is taken off them, or the L2 penalty.")
    maximize: bool = Field(description="true: go up the loss.")
    foreach: bool | None = Field(description="One call for all parameters, where `fused` is false.")
    fused: bool = Field(description="One kernel for all parameters; false where a device has none.")
    differentiable: bool = Field(description="true: autograd goes through the step.")


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    target = "torch.optim.SGD"
    momentum: Decay = Field(description="Share of the last step that is taken again.")
    dampening: float = Field(description="Share of the gradient that momentum leaves out.")
    nesterov: bool = Field(description="Nesterov's momentum; needs momentum > 0.")


class AdamW(Optimizer):
    """Adam with decoupled weight decay."""

    target = "torch.optim.AdamW"
    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)] = Field(
        description="Decay of the running averages of the gradient and its square."
    )
    eps: float = Field(ge=0, description="Added to the denominator.")
    amsgrad: bool = Field(description="true: the largest of the past squares.")
    capturable: bool = Field(description="true: for CUDA graphs.")


class Scheduler(Options):
    """What holds for any scheduler of torch's: these go to Lightning. `optimizer` is what the task supplies."""

    of_group, may_lack = "scheduler", True
    interval: Literal["step", "epoch"] = Field(description="After what it is stepped: an optimizer step, an epoch.")
    frequency: Count = Field(description="Intervals between two steps.")
    monitor: str | None = Field(description="Metric that ReduceLROnPlateau watches, by its logged name.")
    strict: bool = Field(description="Whether it is an error that the metric is missing.")


class LinearToZero(Scheduler):
    """The learning rate falls in a straight line to zero."""

    target = "runlab.training.schedulers.linear"


class CosineToZero(Scheduler):
    """The learning rate falls along half a cosine to zero."""

    target = "runlab.training.schedulers.cosine"


class Step(Scheduler):
    """The learning rate is multiplied by gamma every step_size epochs."""

    target = "torch.optim.lr_scheduler.StepLR"
    step_size: Count = Field(description="Length of a stair, in units of `interval`.")
    gamma: Rate = Field(description="Factor of the learning rate.")
    last_epoch: int = Field(ge=-1, description="Where it begins; -1: at the start.")


class OneCycle(Scheduler):
    """The learning rate rises to max_lr and falls to nearly zero, in one cycle over the whole run."""

    target = "torch.optim.lr_scheduler.OneCycleLR"
    max_lr: Rate = Field(description="Highest learning rate.")
    total_steps: Count | None = Field(description="Optimizer steps; left out: those of the whole run.")
    epochs: Count | None = Field(description="With steps_per_epoch, instead of total_steps.")
    steps_per_epoch: Count | None = Field(description="With epochs, instead of total_steps.")
    pct_start: float = Field(ge=0, le=1, description="Share of the steps in which it rises.")
    anneal_strategy: Literal["cos", "linear"] = Field(description="Along half a cosine or a straight line.")
    cycle_momentum: bool = Field(description="Whether the momentum goes the other way.")
    base_momentum: float | list[float] = Field(description="Lowest momentum.")
    max_momentum: float | list[float] = Field(description="Highest momentum.")
    div_factor: Rate = Field(description="max_lr / the first learning rate.")
    final_div_factor: Rate = Field(description="The first learning rate / the last.")
    three_phase: bool = Field(description="true: a third phase for the last fall.")
    last_epoch: int = Field(ge=-1, description="Where it begins; -1: at the start.")


class Plateau(Scheduler):
    """The learning rate falls when the monitored metric has not become better for some epochs."""

    target = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    mode: Literal["max", "min"] = Field(description="Which way the metric gets better.")
    factor: float = Field(gt=0, lt=1, description="Factor of the learning rate.")
    patience: NotNegative = Field(description="Epochs without a better value that are borne.")
    threshold: float = Field(ge=0, description="What counts as better.")
    threshold_mode: Literal["rel", "abs"] = Field(description="A share of the best value, or a difference from it.")
    cooldown: NotNegative = Field(description="Epochs after a fall in which none is counted.")
    min_lr: float | list[float] = Field(description="Lowest learning rate.")
    eps: float = Field(ge=0, description="Falls by less are left out.")


class ConfusionMatrix(Options):
    """Draws the confusion matrices of the validation and test sets."""

    of_group, target = "callbacks", "digits.callbacks.ConfusionMatrix"
    normalize: bool = Field(description="true: each row as shares of its true class; false: counts.")
    run_dir: FilePath = Field(description="Where the test set's .png and .csv go.")


class TrainBatch(Options):
    """train/batch: images of the first batch as the network sees them."""

    of_group, target = "callbacks", "digits.callbacks.TrainBatch"
    count: Count = Field(description="Images.")


class Mistakes(Options):
    """test/mistakes: what the network is most sure of and wrong about."""

    of_group, target = "callbacks", "digits.callbacks.Mistakes"
    count: Count = Field(description="Images.")


class Weights(Options):
    """train/weights after each epoch, for a network that is one linear layer."""

    of_group, target = "callbacks", "digits.callbacks.Weights"


class PRCurves(Options):
    """test_pr/<class>: precision against recall."""

    of_group, target = "callbacks", "digits.callbacks.PRCurves"
