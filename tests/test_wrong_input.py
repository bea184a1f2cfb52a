"""What a user can get wrong: each row a command and its answer, in one line, with status 1, nothing lost on disk."""

import fcntl
import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, status_of

BATCHES = "data.batch_sampler={_target_:torch.utils.data.BatchSampler,_partial_:true}"
SAMPLER = "data.sampler={_target_:torch.utils.data.SequentialSampler,_partial_:true}"

# What is typed after `python train.py` ({tmp}: the test's folder) -> the words of the answer.
ROWS = [
    ("optimizer.lr=-1", "optimizer.lr=-1: must be number > 0"),
    ("optimizer.lr=nan", "optimizer.lr=nan: must be number > 0"),
    ("optimizer.lr=inf", "optimizer.lr=inf: must be number > 0"),
    ("optimizer.lr=abc", "optimizer.lr=abc: must be number > 0"),
    ("optimizer.momentum=1", "optimizer.momentum=1: must be number >= 0 < 1"),
    ("optimizer.weight_decay=-0.1", "optimizer.weight_decay=-0.1: must be number >= 0"),
    ("optimizer.nesterov=true optimizer.momentum=0", "optimizer: Nesterov momentum requires a momentum"),
    ("model=mlp model.dropout=1.5", "model.dropout=1.5: must be number >= 0 < 1"),
    ("~model.size", "model.size: missing; must be integer >= 1"),
    ("optimizer.lr=${nope}", "optimizer.lr: Interpolation key 'nope' not found"),
    ("optimizer.lr=true", "optimizer.lr=true: must be number > 0"),
    ("optimizer=adamw optimizer.betas=[0.9]", "optimizer.betas=[0.9]: must be list of 2, each number >= 0 < 1"),
    ("data.num_workers=true", "data.num_workers=true: must be integer >= 0"),
    ("+callbacks.progess.refresh_rate=5", "callbacks.progess: has no _target_. Did you mean progress?"),
    ("+sead=3", "sead=3: no such option, and nothing refers to it. Did you mean seed?"),
    ("model=mlp model.hidden_features=0", "model.hidden_features=0: must be integer >= 1"),
    ("seed=-1", "seed=-1: must be integer >= 0"),
    ("seed=null", "seed=null: must be integer >= 0"),
    ("data.batch_size=0", "data.batch_size=0: must be integer >= 1"),
    ("data.batch_size=2.5", "data.batch_size=2.5: must be integer >= 1"),
    ("data.batch_size=null", "data.batch_size=null: give a number of samples"),
    ("data.eval_batch_size=0", "data.eval_batch_size=0: must be integer >= 1"),
    ("data.num_workers=-1", "data.num_workers=-1: must be integer >= 0"),
    ("data.val_size=-5", "data.val_size=-5: must be integer >= 0"),
    ("data.val_size=60000", "data.val_size=60000: the training set has only 60000 samples"),
    ("data.folds=1 data.fold=0", "data.folds=1: must be integer >= 2 or null"),
    ("data.folds=5 data.fold=-1", "data.fold=-1: must be integer >= 0 or null"),
    ("data.folds=5 data.fold=5", "data.fold=5: must be less than data.folds, as the first is 0"),
    ("data.fold=0", "data.fold=0: there are none; add data.folds=5"),
    (
        "data.folds=5",
        "data.fold=null: data.folds is set: say on which to validate, as in data.fold=0, or on each, sweep=folds",
    ),
    ("data.folds=60001 data.fold=0", "data.folds=60001: the training set has only 60000 samples"),
    ("data.num_classes=11", "data.num_classes=11: the dataset has 10 classes"),
    ("data.shuffle=3", "data.shuffle=3: must be true or false"),
    (f"{SAMPLER}", "data.sampler: excludes data.shuffle=true: add data.shuffle=false"),
    (f"{BATCHES}", "data.batch_sampler makes the batches alone: add data.batch_size=null"),
    ("data.batch_size=60000 data.drop_last=true", "data.batch_size=60000 with data.drop_last=true leaves no batch"),
    ("trainer.max_epochs=0", "trainer.max_epochs=0: must be integer >= 1"),
    ("trainer.max_steps=-2", "trainer.max_steps=-2: must be integer >= 1 or -1"),
    ("trainer.limit_train_batches=1.5", "trainer.limit_train_batches=1.5: must be integer >= 1 or share > 0 <= 1"),
    ("trainer.log_every_n_steps=0", "trainer.log_every_n_steps=0: must be integer >= 1"),
    ("trainer.devices=0", "trainer.devices=0: must be integer >= 1"),
    ("trainer.accelerator=cpu trainer.devices=512", "trainer.devices=512: this machine has"),
    ("trainer.accelerator=tpuu", "trainer.accelerator=tpuu: must be auto or cpu or gpu"),
    ("trainer.precision=12", "trainer.precision=12: must be 32-true or 16-mixed or"),
    ("callbacks.confusion_matrix.normalize=rows", "callbacks.confusion_matrix.normalize=rows: must be true or false"),
    ("callbacks.progress.refresh_rate=0", "callbacks.progress.refresh_rate=0: must be integer >= 1"),
    ("-m seed=0,0 hydra.sweep.dir={tmp}/sweep", "seed=0: its folder is that of seed=0; leave one out"),
    ("mode=up", "mode=up: must be max or min"),
    (
        "monitor=val/f1",
        "monitor=val/f1: the validation logs val/loss, val/acc; choose one of them, or monitor=null",
    ),
    ("name=../x", "name=../x: must be matching"),
    ("scheduler=step scheduler.interval=batch", "scheduler.interval=batch: must be step or epoch"),
    ("+model.depth=3", "model.depth=3: no such option. Did you mean model.size?"),
    ("+optimizer.rho=3", "optimizer.rho=3: no such option. Did you mean optimizer.lr?"),
    ("optimzer.lr=1", "optimzer: no such option. Did you mean optimizer?"),
    ("optimizer.lrr=1", "optimizer.lrr: no such option. Did you mean optimizer.lr?"),
    ("model=mpl", "model=mpl: no such choice. Did you mean mlp? Choices: lenet, linear, mlp."),
    ("experiment=notbook", "experiment=notbook: no such choice. Did you mean notebook?"),
    ("optimizer.lr", "optimizer.lr"),
    ("fit=false", "fit=false: nothing to evaluate; add resume=runs/..., or ckpt_path="),
    ("fit=false ckpt_path={tmp}/missing.ckpt", "{tmp}/missing.ckpt: no such checkpoint"),
    ("fit=false ckpt_path={tmp}/empty.ckpt", "{tmp}/empty.ckpt: damaged"),
    ("fit=false ckpt_path={tmp}/garbage.ckpt", "{tmp}/garbage.ckpt: damaged"),
    ("fit=false ckpt_path={tmp}/foreign.ckpt", "{tmp}/foreign.ckpt: no checkpoint of this project"),
    ("fit=false ckpt_path={tmp}/other.ckpt", "{tmp}/other.ckpt: the weights of another network"),
    ("ckpt_path={tmp}/other.ckpt", "{tmp}/other.ckpt: the weights of another network"),
    ("resume={tmp}/nothing", "resume={tmp}/nothing: no run folder, it has no .hydra/config.yaml"),
    ("hydra.run.dir={tmp}/used", "{tmp}/used: another process is using this run folder"),
    ("hydra.run.dir={tmp}/finished", "{tmp}/finished: holds a run; add resume=auto"),
    ("hydra.run.dir=/sys/run", "/sys/run: "),
    ("hydra.run.dir={tmp}/empty.ckpt/run", "{tmp}/empty.ckpt/run: Not a directory; mend that, or name another folder"),
    (
        "data.root={tmp}/nowhere",
        "{tmp}/nowhere/MNIST/raw: data missing or damaged, no download; put the archives there",
    ),
    ("data=kmnist data.root={tmp}/nowhere", "{tmp}/nowhere/KMNIST/raw: data missing or damaged, no download"),
    ("data.root={tmp}/truncated", "{tmp}/truncated/MNIST/raw: data missing or damaged, no download"),
    ("data.root={tmp}/foreign", "{tmp}/foreign/MNIST/raw: data missing or damaged, no download"),
]
if not torch.cuda.is_available():
    ROWS += [
        ("trainer.accelerator=gpu", "no GPU can be used on this machine; take trainer.accelerator=cpu or auto"),
        ("trainer.accelerator=cuda", "no GPU can be used on this machine; take trainer.accelerator=cpu or auto"),
    ]


@pytest.fixture
def tmp(tmp_path: Path) -> Iterator[Path]:
    """A folder with everything that the rows name."""
    torch.save({"epoch": 3}, tmp_path / "foreign.ckpt")
    torch.save({"state_dict": {"x": torch.ones(1)}, "metrics": {}, "callbacks": {}}, tmp_path / "other.ckpt")
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "garbage.ckpt").write_bytes(b"PK" + bytes(range(256)) * 9)
    (tmp_path / "finished").mkdir()
    (tmp_path / "finished/metrics.json").write_text("{}")
    for name in ("truncated", "foreign"):
        raw = tmp_path / name / "MNIST/raw"
        shutil.copytree(ROOT / "data/MNIST/raw", raw, ignore=shutil.ignore_patterns("*-ubyte", ".lock"))
        archive = raw / "train-images-idx3-ubyte.gz"
        archive.write_bytes(archive.read_bytes()[:-9] if name == "truncated" else gzip.compress(b"other"))
    (tmp_path / "used").mkdir()
    with (tmp_path / "used/.lock").open("w") as lock:  # as another process holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tmp_path


@pytest.mark.parametrize(("typed", "words"), ROWS, ids=[row[0] for row in ROWS])
def test_one_line_status_1_and_nothing_lost(
    tmp: Path,
    capfd: pytest.CaptureFixture[str],
    typed: str,
    words: str,
) -> None:
    typed, words = (text.replace("{tmp}", str(tmp)) for text in (typed, words))
    arguments = typed.split(" ") if "{" not in typed else [typed]
    if not any(argument.startswith(("hydra.run.dir", "resume")) for argument in arguments):
        arguments.append(f"hydra.run.dir={tmp}/new")
    before = {path: path.read_bytes() for path in tmp.rglob("*") if path.is_file()}
    assert status_of(*arguments) == 1
    err = capfd.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1, err
    assert before.items() <= {path: path.read_bytes() for path in tmp.rglob("*") if path.is_file()}.items()
