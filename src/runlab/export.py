"""`python -m runlab.export runs/... --format onnx` writes a finished run's network for use without this project.

It does what `predict.py` does with a batch: the data module's `on_after_batch_transfer`, then the module's
`predict_step`. The data module's `example_input`, a batch of two or more samples, says what it takes.
"""

import inspect
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runlab.config.arguments import Arguments
from runlab.config.messages import UserError, report_errors, user_errors
from runlab.load import Run, load_run
from runlab.predict import check_module
from runlab.runs.files import atomic_write


class Predictor(nn.Module):
    """From a batch as it is read to what `predict_step` returns."""

    def __init__(self, task: Any, data: Any) -> None:
        super().__init__()
        self.task, self.data = task, data
        self.batch_idx = [0] * (len(inspect.signature(task.predict_step).parameters) > 1)  # where it is taken

    def forward(self, inputs: Tensor) -> Any:
        return self.task.predict_step(self.data.on_after_batch_transfer(inputs, 0), *self.batch_idx)


def export(run: Run, kind: str, output: Path) -> None:
    """Write a run's network for batches of any size, as `onnx` or as `torch`, for `torch.export.load`."""
    check_module(run.model)
    if not hasattr(run.data, "example_input"):
        text = "a batch of two or more samples, as they are before on_after_batch_transfer"
        raise UserError(f"{type(run.data).__name__} has no example_input: {text}")
    if kind == "onnx" and not find_spec("onnxscript"):
        raise UserError("--format onnx needs the package onnxscript: pip install onnxscript")
    with torch.no_grad(), user_errors(f"--format {kind}"):
        predictor, shapes = Predictor(run.model, run.data).eval(), ({0: torch.export.Dim.DYNAMIC},)
        program: Any = torch.export.export(predictor, (run.data.example_input,), dynamic_shapes=shapes)
        if kind == "onnx":
            names: Any = {"input_names": ["input"], "output_names": ["output"]}
            program = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    with atomic_write(output) as temporary, temporary.open("wb") as file:
        if kind == "onnx":
            file.write(program.model_proto.SerializeToString())
        else:
            torch.export.save(program, file)
    print(f"{output}: the network of {run.config.run_dir}")


if __name__ == "__main__":
    with report_errors():
        parser = Arguments(prog="python -m runlab.export", description="Write a finished run's network.")
        parser.add_argument("run", help="folder of the run")
        parser.add_argument("--format", required=True, choices=("onnx", "torch"), help="torch: a .pt2 of torch.export")
        parser.add_argument("--output", type=Path, help="left out: model.onnx or model.pt2 in the run folder")
        options = parser.parse_args(sys.argv[1:])
        default = Path(options.run, "model.onnx" if options.format == "onnx" else "model.pt2")
        export(load_run(options.run), options.format, options.output or default)
