"""What the values of a config may be: what all models of them share, and the one page. Imports pydantic, no torch.

The others stand beside the code that takes the values, the Trainer's in `runlab.training.options`.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=4294967295)]
Share = Annotated[float, Field(gt=0, le=1, json_schema_extra={"format": "share"})]  # 1 is one of them, 1.0 all
ShareOrNone = Annotated[float, Field(ge=0, le=1, json_schema_extra={"format": "share"})]
Mapping = dict[str, Any]
FilePath = Annotated[str, Field(json_schema_extra={"format": "path"})]  # one that is typed starts where it is typed


class Options(BaseModel):
    """The keys beside one `_target_`: each with its type, its bounds, and a sentence for editors and `--help`.

    A subclass is found by its `target`. Without one it says what holds for any target of the group, which may have
    more keys. What has a `_target_` itself, as a value, is made when the run begins and passed over here.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, defer_build=True)
    of_group: ClassVar[str] = ""
    target: ClassVar[str] = ""
    may_lack: ClassVar[bool] = False  # whether a key may be left out: the target's own default holds then

    @field_validator("*", mode="wrap")
    @classmethod
    def _no_other_number(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
        valid = handler(value)
        if type(valid) is int and type(value) is not int:
            raise PydanticCustomError("not_int", "Literal[1] takes true and 1.0")
        return valid


class Page(Options):
    """conf/train.yaml: the values that belong to no group."""

    name: str = Field(
        pattern=r"^\w[\w.,=+@-]*(/\w[\w.,=+@-]*)*$", description="The run's folder is runs/<name>/<time>."
    )
    seed: Seed = Field(description="Fixes initial weights, shuffling and augmentation.")
    monitor: str | None = Field(description="Metric that picks best.ckpt and that a sweep optimizes; null: none.")
    mode: Literal["max", "min"] = Field(description="Which way `monitor` gets better.")
    resume: FilePath | None = Field(description="Run folder to resume; auto: the run in the folder, if it holds one.")
    rerun: bool | None = Field(description="Of a finished run whose code has changed: true: anew, false: as it is.")
    ckpt_path: FilePath | None = Field(description="Checkpoint to begin with, or with fit=false to evaluate.")
    fit: bool = Field(description="false: evaluate `ckpt_path` on the test set, train nothing.")
    ckpt_strict: bool = Field(description="false: take of `ckpt_path` the weights that fit, and say which.")
    hyperparameters: list[str] = Field(description="Keys that are columns of the dashboard's table of runs.")
    fast_loop: bool = Field(description="false: Lightning's own training loop, slower and with the same numbers.")
    resume_may_change: list[str] = Field(description="Keys that a resumed run may have another value of.")
    run_dir: FilePath = Field(description="Folder that the run writes.")

    @field_validator("fit")
    @classmethod
    def _has_weights(cls, fit: bool, info: ValidationInfo) -> bool:
        if not fit and info.data.get("ckpt_path", "") is None:
            raise ValueError("nothing to evaluate; add resume=runs/..., or ckpt_path=...")
        return fit
