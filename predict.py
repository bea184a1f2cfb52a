"""Predict with a finished run's best weights.

python predict.py run=runs/... input=scans output=predictions.csv

run=         folder of a finished run
input=       what to predict from: a folder of files, one file, a .npy or .npz of one array, a .csv of a row a sample;
             in the example image files, or pixels from 0 to 255. Left out: the run's test set, with the true class
output=      .csv or .npz; left out: predictions.csv
device=      cpu or cuda; left out: a GPU if there is one
batch_size=  samples of the input at a time; left out: 256
"""

import sys
from pathlib import Path
from tempfile import TemporaryFile

from runlab.config.messages import UserError, report_errors, suggest, user_errors
from runlab.config.startup import fast_exit, fast_imports
from runlab.runs.files import atomic_write


def main(run: str, input: str = "", output: str = "predictions.csv", device: str = "", batch_size: str = "256") -> None:
    file = Path(output)
    if file.suffix not in (".csv", ".npz") or file.is_dir():
        raise UserError(f"output={output}: name a file that ends in .csv or .npz")
    if device not in ("", "cpu", "cuda"):
        raise UserError(f"device={device}: no such choice." + suggest(device, ["cpu", "cuda"]))
    if not (batch_size.isdecimal() and int(batch_size)):
        raise UserError(f"batch_size={batch_size}: give a whole number from 1")
    with user_errors(f"output={output}"):  # now, not after the predictions
        file.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=file.parent).close()
    with fast_imports():
        from runlab import predict
        from runlab.load import load_run
    loaded = load_run(run)
    inputs = predict.Inputs(loaded.data, Path(input), int(batch_size)) if input else None
    batches = predict.predict(loaded, inputs, device or None, file.suffix)
    with atomic_write(file) as temporary:
        predict.write(temporary, file.suffix, batches, inputs)
    if inputs and inputs.errors:
        number, message = min(inputs.errors.items())
        count = f"{len(inputs.errors)} of {len(inputs.names)} inputs could not be read"
        raise UserError(f"{output}: {count}, see error there; the first is {inputs.names[number]}: {message}")
    print(f"{output}: predictions of {run}")


if __name__ == "__main__":
    with fast_exit(), report_errors():
        keys, options = ("run", "input", "output", "device", "batch_size"), {}
        for argument in sys.argv[1:]:
            key, _, options[key] = argument.partition("=")
            if key not in keys and argument not in ("--help", "-h"):
                raise UserError(f"{argument}: no such option." + suggest(key, keys))
        if "--help" in options or "-h" in options:
            print(__doc__)
        elif not options.get("run"):
            raise UserError("run=: name the folder of a finished run; --help shows how")
        else:
            main(**options)
