"""A run that was ended, however, resumes as if it had not been: bit for bit."""

import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Cli, Compose
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningModule, Trainer

from runlab.config.messages import UserError
from runlab.load import load_run
from train import train

# Dropout and an augmentation draw random numbers; ten batches make an epoch.
SETTING = [
    "model=mlp",
    "data.batch_size=200",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=10",
    "trainer.limit_val_batches=2",
    "trainer.log_every_n_steps=1",
    "data.train_transform.transforms="
    "[{_target_:torchvision.transforms.v2.RandomHorizontalFlip},${data.eval_transform}]",
]
QUIET = [*SETTING, "logger=none"]


class SignalAt(Callback):
    """Sends this process a signal, once: in training batch `step` (from 1), or in the first call of a hook."""

    sent = False

    def __init__(self, signum: int, step: int = 0, hook: str = "on_train_batch_start") -> None:
        def send(trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:  # noqa: ARG001
            if step in (0, trainer.global_step + 1) and not self.sent:
                self.sent = True
                os.kill(os.getpid(), signum)

        setattr(self, hook, send)


class BreakWeights(Callback):
    """Sets a weight to NaN at the end of optimizer step `step`, as an overflow would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:  # noqa: ARG002
        if trainer.global_step == self.step:
            next(pl_module.parameters()).data[0, 0] = torch.nan


def contents(run_dir: Path) -> dict[str, Any]:
    """What must be equal, bit for bit, however often a run was interrupted."""
    found: dict[str, Any] = {}
    for name in ("best", "last"):
        checkpoint = torch.load(run_dir / f"checkpoints/{name}.ckpt", weights_only=True)
        found[name] = [checkpoint["state_dict"], checkpoint["optimizer_states"], checkpoint["lr_schedulers"]]
        found[name] += [checkpoint["epoch"], checkpoint["global_step"], checkpoint["metrics"]]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    found["metrics"] = {name: value for name, value in metrics.items() if name != "seconds"}
    found["counts"] = (run_dir / "confusion_matrix.csv").read_bytes()
    return found


def assert_equal(a: Any, b: Any) -> None:
    """Equal values, and equal bits of tensors, however deep."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a.cpu(), b.cpu())
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_equal(one, other)
    else:
        assert a == b


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run that nobody interrupted."""
    from hydra import compose, initialize_config_dir

    run_dir = tmp_path_factory.mktemp("straight")
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        train(compose("train", [f"run_dir={run_dir}", f"data.root={ROOT}/data", *QUIET]))
    return contents(run_dir)


@pytest.mark.parametrize("workers", [0, 2])
def test_repeat_is_equal(composed: Compose, straight: dict[str, Any], tmp_path: Path, workers: int) -> None:
    torch.rand(7)  # whatever was drawn before
    train(composed(*QUIET, f"data.num_workers={workers}"))
    assert_equal(contents(tmp_path / "run"), straight)


# Steps 1 to 30 are three epochs of ten: the first batch of a run and of an epoch, a middle, a last but one, a last.
@pytest.mark.parametrize("step", [1, 9, 10, 15, 20, 30])
def test_a_stop_in_any_batch_goes_on_equal(
    composed: Compose, straight: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], step: int
) -> None:
    signum = random.Random(step).choice([signal.SIGINT, signal.SIGTERM])
    kill = f"+callbacks.kill={{_target_:test_resume.SignalAt,signum:{int(signum)},step:{step}}}"
    setting = SETTING if step == 15 else QUIET  # once with TensorBoard's curves going on too
    with pytest.raises(SystemExit) as caught:
        train(composed(*setting, kill))
    assert caught.value.code == {signal.SIGINT: 130, signal.SIGTERM: 143}[signum]
    assert "resume with: python train.py resume=" in capsys.readouterr().err
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert saved == step
    assert not (tmp_path / "run/metrics.json").exists()
    train(composed(*setting, "resume=auto"))
    assert_equal(contents(tmp_path / "run"), straight)
    assert not list((tmp_path / "run").glob("version_*"))


@pytest.mark.parametrize("hook", ["on_validation_start", "on_train_epoch_end", "on_test_batch_start"])
def test_a_stop_outside_training_goes_on_equal(
    composed: Compose, straight: dict[str, Any], tmp_path: Path, hook: str
) -> None:
    kill = f"+callbacks.kill={{_target_:test_resume.SignalAt,signum:{int(signal.SIGTERM)},hook:{hook}}}"
    with pytest.raises(SystemExit) as caught:
        train(composed(*QUIET, "trainer.num_sanity_val_steps=0", kill))
    assert caught.value.code == 143
    train(composed(*QUIET, "resume=auto"))
    assert_equal(contents(tmp_path / "run"), straight)


def test_resume_of_a_finished_run_changes_nothing(composed: Compose, tmp_path: Path) -> None:
    first = train(composed(*SETTING))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert train(composed(*SETTING, "resume=auto")) == first
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_run_is_never_overwritten(composed: Compose, tmp_path: Path) -> None:
    train(composed(*QUIET))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="holds a run; add resume=auto"):
        train(composed(*QUIET, "seed=1"))
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_longer_run_goes_on_from_a_finished_one(composed: Compose, tmp_path: Path) -> None:
    short = [*QUIET, "trainer.max_epochs=2", "scheduler=none"]
    train(composed(*short))
    metrics = train(composed(*short, "trainer.max_epochs=3", "resume=auto"))
    assert (metrics["epoch"], metrics["global_step"]) == (3, 30)
    whole = train(composed(*short, "trainer.max_epochs=3", f"run_dir={tmp_path}/whole"))
    assert_equal(contents(tmp_path / "run")["last"], contents(tmp_path / "whole")["last"])
    assert metrics["test/acc"] == whole["test/acc"]
    provenance = json.loads((tmp_path / "run/provenance.json").read_text())
    assert [source["seed"] for source in provenance["resumed"]] == [0]


def test_a_moved_run_goes_on_equal(composed: Compose, straight: dict[str, Any], tmp_path: Path) -> None:
    kill = "+callbacks.kill={_target_:test_resume.SignalAt,signum:15,step:25}"
    with pytest.raises(SystemExit):
        train(composed(*QUIET, kill))
    shutil.move(tmp_path / "run", tmp_path / "moved")
    train(composed(*QUIET, "resume=auto", f"run_dir={tmp_path}/moved"))
    assert_equal(contents(tmp_path / "moved"), straight)


def wait_for(text: str, process: "subprocess.Popen[str]") -> None:
    """Read the process's output until a line has `text`."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"{text} was not printed")


KILLED = ["model=mlp", "data.batch_size=250", "trainer.max_epochs=3", "trainer.limit_train_batches=150"]


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was not killed."""
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        train(compose("train", [*KILLED, f"run_dir={run_dir}", f"data.root={ROOT}/data"]))
    return run_dir


@pytest.mark.parametrize(
    "signum",
    [*(pytest.param(signum, marks=pytest.mark.slow) for signum in (signal.SIGINT, signal.SIGTERM)), signal.SIGKILL],
)
def test_a_killed_process_goes_on_equal_by_its_folder(
    unkilled: Path, quick_cli: Cli, tmp_path: Path, signum: signal.Signals
) -> None:
    run_dir = tmp_path / "run"
    command = [sys.executable, "train.py", *KILLED, f"hydra.run.dir={run_dir}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for("epoch 1/3", process)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[signum]
    assert ("resume with: python train.py resume=" in err) == (signum != signal.SIGKILL)
    assert "Traceback" not in err
    torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    record = (run_dir / ".hydra/overrides.yaml").read_bytes()

    moved = tmp_path / "optimizer.lr=0.04,seed=0"  # a name as a sweep gives it
    shutil.move(run_dir, moved)
    again = quick_cli(f"resume={moved}")
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    assert (moved / ".hydra/overrides.yaml").read_bytes() == record
    assert_equal(contents(moved), contents(unkilled))


def test_evaluating_a_run_again_gives_its_numbers(quick_cli: Cli, tmp_path: Path) -> None:
    assert quick_cli("trainer=debug", "seed=3", f"hydra.run.dir={tmp_path}/first").returncode == 0
    again = quick_cli("fit=false", f"resume={tmp_path}/first", f"run_dir={tmp_path}/again")
    assert again.returncode == 0, again.stderr
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("first", "again"))
    for key in first.keys() - {"seconds", "best_checkpoint"}:
        assert first[key] == second[key]


def test_one_command_begins_goes_on_and_is_done(quick_cli: Cli, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    setting = ["trainer=debug", "resume=auto"]
    assert "test accuracy" in quick_cli(*setting).stdout
    (run_dir / "metrics.json").rename(tmp_path / "metrics.json")
    assert "test accuracy" in quick_cli(*setting).stdout
    first, again = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, run_dir))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    before = (run_dir / ".hydra/config.yaml").read_bytes()
    done = quick_cli(*setting)
    assert (done.returncode, "finished, nothing is changed" in done.stdout) == (0, True)
    assert (run_dir / ".hydra/config.yaml").read_bytes() == before


@pytest.fixture
def stopped(composed: Compose, tmp_path: Path) -> Path:
    """The checkpoints' folder of a run that was stopped in its third epoch."""
    with pytest.raises(SystemExit):
        train(composed(*QUIET, "+callbacks.kill={_target_:test_resume.SignalAt,signum:15,step:25}"))
    return tmp_path / "run/checkpoints"


@pytest.mark.parametrize("share", [0, 0.5, random.Random(0).random()])
def test_a_cut_checkpoint_is_passed_over(
    composed: Compose, straight: dict[str, Any], stopped: Path, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    last = stopped / "last.ckpt"
    last.write_bytes(last.read_bytes()[: int(share * last.stat().st_size)])
    train(composed(*QUIET, "resume=auto"))  # from best.ckpt, the second epoch's
    err = capsys.readouterr().err
    assert f"{last}: damaged" in err
    assert "passed over" in err
    assert_equal(contents(stopped.parent), straight)


def test_no_sound_checkpoint_is_said_and_nothing_is_lost(composed: Compose, stopped: Path) -> None:
    for path in stopped.iterdir():
        path.write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="no checkpoint can be read"):
        train(composed(*QUIET, "resume=auto"))
    assert {path.read_bytes() for path in stopped.iterdir()} == {b"no checkpoint"}


class Payload:
    """What a malicious pickle does: runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_malicious_checkpoint_is_refused_and_its_payload_does_not_run(
    composed: Compose, stopped: Path, tmp_path: Path, form: str
) -> None:
    evil, proof = tmp_path / "evil.ckpt", tmp_path / "payload-ran"
    content = torch.load(stopped / "last.ckpt", weights_only=True) | {"extra": Payload(proof)}
    if form == "torch":
        torch.save(content, evil)
    else:
        evil.write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(UserError, match="damaged, or holds more than tensors and plain values"):
        train(composed("fit=false", f"ckpt_path={evil}", f"run_dir={tmp_path}/other"))
    shutil.copy(evil, stopped / "last.ckpt")
    train(composed(*QUIET, "resume=auto"))
    assert not proof.exists()


def test_a_checkpoint_of_another_network_is_one_line(composed: Compose, stopped: Path, tmp_path: Path) -> None:
    for fit in ("true", "false"):
        with pytest.raises(UserError, match=r"last.ckpt: the weights of another network") as caught:
            train(composed("model=lenet", f"fit={fit}", f"ckpt_path={stopped}/last.ckpt", f"run_dir={tmp_path}/other"))
        assert "\n" not in str(caught.value)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="no checkpoint of this project"):
        train(composed("fit=false", f"ckpt_path={tmp_path}/foreign.ckpt", f"run_dir={tmp_path}/other"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which root alone may; CI runs as root")
@pytest.mark.slow
def test_a_full_disk_leaves_sound_checkpoints(composed: Compose, cli: Cli, quick_cli: Cli, tmp_path: Path) -> None:
    # Two checkpoints of 2.1 MB fit, not three.
    disk, setting = tmp_path / "disk", ["model=mlp", "trainer.max_epochs=3", "trainer.limit_train_batches=60"]
    setting.append("logger=none")  # TensorBoard's own thread meets the full disk too, now and then, with a traceback
    disk.mkdir()
    train(composed(*setting, f"run_dir={tmp_path}/straight"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], check=True)
    try:
        answer = cli(*setting, f"hydra.run.dir={disk}/run")
        assert answer.returncode == 1
        assert "No space left on device; mend that" in answer.stderr
        assert len(answer.stderr.splitlines()) <= 2
        for name in ("last", "best"):
            assert torch.load(disk / f"run/checkpoints/{name}.ckpt", weights_only=True)["epoch"] == 0
        assert not list(disk.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=30m", str(disk)], check=True)
        assert quick_cli(f"resume={disk}/run").returncode == 0
        assert_equal(contents(disk / "run"), contents(tmp_path / "straight"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_loss_that_is_nan_stops_the_run_and_spares_the_checkpoints(composed: Compose, tmp_path: Path) -> None:
    break_at = "+callbacks.break={_target_:test_resume.BreakWeights,step:15}"
    with pytest.raises(UserError, match=r"train/loss is nan at optimizer step 16; lower optimizer.lr") as caught:
        train(composed(*QUIET, break_at))
    assert "\n" not in str(caught.value)
    for name in ("best", "last"):
        checkpoint = torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)
        assert checkpoint["global_step"] == 10
        assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values())


@pytest.mark.parametrize(("step", "saved_at"), [(10, 10), (14, 15)])
def test_weights_that_are_nan_are_never_saved(composed: Compose, tmp_path: Path, step: int, saved_at: int) -> None:
    break_at = f"+callbacks.break={{_target_:test_resume.BreakWeights,step:{step}}}"
    kill = f"+callbacks.kill={{_target_:test_resume.SignalAt,signum:15,step:{step + 1}}}"
    setting = [*QUIET, "trainer.log_every_n_steps=10", "trainer.limit_val_batches=0", "monitor=null"]
    with pytest.raises(UserError, match=f"weights are not finite at optimizer step {saved_at}"):
        train(composed(*setting, break_at, kill))
    assert (tmp_path / "run/checkpoints/last.ckpt").exists() == (step == 14)


def test_the_handlers_of_signals_are_given_back(composed: Compose) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    train(composed(*QUIET))
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def test_nan_is_one_line_alone_and_a_status_in_a_sweep(quick_cli: Cli, tmp_path: Path) -> None:
    alone = quick_cli("optimizer.lr=1e38")
    assert alone.returncode == 1
    assert "train/loss is" in alone.stderr
    assert len(alone.stderr.splitlines()) <= 2
    sweep = quick_cli("-m", "optimizer.lr=1e38,0.04", "trainer.max_epochs=1")
    assert sweep.returncode == 1
    assert "diverged: train/loss is" in sweep.stderr
    assert len(list((tmp_path / "sweep").glob("*/metrics.json"))) == 1


CHANGES = ["optimizer.lr=0.01", "optimizer=adamw", "model.dropout=0.5", "seed=1", "data.batch_size=500"]


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_checkpoint_fixes_cannot_be_changed(composed: Compose, stopped: Path, change: str) -> None:
    before = {path: path.read_bytes() for path in stopped.parent.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="the run to resume has"):
        train(composed(*QUIET, change, "resume=auto", "trainer.max_epochs=4"))
    assert {path: path.read_bytes() for path in stopped.parent.rglob("*") if path.is_file()} == before


def test_ckpt_path_begins_with_its_weights(composed: Compose, stopped: Path, tmp_path: Path) -> None:
    begun_with, run_dir = stopped / "last.ckpt", tmp_path / "new"
    metrics = train(composed(*QUIET, f"ckpt_path={begun_with}", "optimizer.lr=1e-30", f"run_dir={run_dir}"))
    assert metrics["global_step"] == 30
    old, new = (torch.load(path, weights_only=True) for path in (begun_with, run_dir / "checkpoints/last.ckpt"))
    assert_equal(new["state_dict"], old["state_dict"])


def test_reproduce_says_equal_or_what_differs(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import reproduce

    monkeypatch.chdir(tmp_path)  # it writes into runs/reproduce/
    train(composed(*QUIET))
    threads = torch.get_num_threads()
    assert reproduce.main(tmp_path / "run") == 0
    assert torch.get_num_threads() == threads
    last = tmp_path / "run/checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["state_dict"]["network.1.bias"][0] += 1e-7
    torch.save(checkpoint, last)
    assert reproduce.main(tmp_path / "run") == 1
    other = next((tmp_path / "runs/reproduce").iterdir())
    assert reproduce.differences(tmp_path / "run", other) == ["weights of last.ckpt"]


def test_load_run_gives_the_best_weights(composed: Compose, tmp_path: Path) -> None:
    metrics = train(composed(*QUIET))
    run = load_run(tmp_path / "run")
    assert run.metrics == metrics
    assert run.config.model.dropout == 0.1
    assert not run.model.training
    run.data.prepare_data()
    run.data.setup("test")
    logits = run.model(run.data.eval_transform(run.data.test_set.inputs))
    assert (logits.argmax(dim=1) == run.data.test_set.targets).sum().item() == round(metrics["test/acc"] * 10_000)
    with pytest.raises(UserError, match="no finished run"):
        load_run(tmp_path / "nowhere")


@pytest.mark.slow
def test_the_pages_way_to_open_a_run_works_in_a_process_of_its_own(tmp_path: Path) -> None:
    [line] = re.findall(r"`(from runlab.load import load_run; .*?)`", (ROOT / "README.md").read_text())
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        metrics = train(compose("train", [*QUIET, f"run_dir={tmp_path}/run"]))
    program = line.replace("runs/...", f"{tmp_path}/run") + "; print(run.metrics['test/acc'], run.data.root)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{metrics['test/acc']} {ROOT}/data\n"


def test_a_run_without_a_checkpoint_is_a_line(composed: Compose, tmp_path: Path) -> None:
    no_checkpoints = ["~callbacks.best_checkpoint", "~callbacks.last_checkpoint", "+trainer.enable_checkpointing=false"]
    metrics = train(composed(*QUIET, *no_checkpoints))
    assert metrics["best_checkpoint"] is None
    with pytest.raises(UserError, match="this run wrote no checkpoint"):
        load_run(tmp_path / "run")


def test_a_samplers_order_goes_on_equal(composed: Compose, tmp_path: Path) -> None:
    sampler = "data.sampler={_target_:torch.utils.data.RandomSampler,_partial_:true,replacement:true}"
    setting = [*QUIET, "data.shuffle=false", sampler]
    train(composed(*setting, f"run_dir={tmp_path}/whole"))
    with pytest.raises(SystemExit):
        train(composed(*setting, "+callbacks.kill={_target_:test_resume.SignalAt,signum:15,step:15}"))
    train(composed(*setting, "resume=auto"))
    assert_equal(contents(tmp_path / "run"), contents(tmp_path / "whole"))


@pytest.mark.parametrize("wrong", ["trainer.precision=12", "trainer.devices=512", "trainer.max_epochs=1"])
def test_a_wrong_value_on_resume_leaves_the_record(composed: Compose, stopped: Path, wrong: str) -> None:
    before = (stopped.parent / ".hydra/config.yaml").read_bytes()
    with pytest.raises(UserError):
        train(composed(*QUIET, wrong, "trainer.accelerator=cpu", "resume=auto"))
    assert (stopped.parent / ".hydra/config.yaml").read_bytes() == before


def test_an_evaluation_does_not_write_into_a_trained_run(composed: Compose, stopped: Path) -> None:
    before = {path: path.read_bytes() for path in stopped.parent.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="holds a run"):
        train(composed(*QUIET, "fit=false", f"ckpt_path={stopped}/best.ckpt", "resume=auto"))
    assert {path: path.read_bytes() for path in stopped.parent.rglob("*") if path.is_file()} == before


def test_a_few_steps_are_a_run(composed: Compose) -> None:
    assert train(composed(*QUIET, "trainer.max_steps=3", "monitor=null"))["global_step"] == 3
