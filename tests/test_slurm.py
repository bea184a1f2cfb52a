"""A sweep on a real SLURM: two nodes of this machine, on loopback, started here."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import PATH, ROOT, Cli, Compose, readme, weights
from test_resume import assert_equal

from train import train

pytestmark = pytest.mark.slurm
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
QUICK = ["logger=none", "trainer.limit_test_batches=1", "trainer.limit_val_batches=1"]

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={home}/munge.sock,cred_expire=5  # seconds until a job can be started again
SlurmctldPort={port}
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/%n.log
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
KillWait=1
SchedulerParameters=bf_interval=1,sched_interval=1
MinJobAge=3600
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs=2 RealMemory=4000
PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1
PartitionName=high Nodes=ALL State=UP PriorityTier=10
"""

# Submitit asks for a job's state by sacct, which needs a database that a cluster has and this one has not.
SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
scontrol show job -o | sed -n \\
  -e 's/^JobId=[0-9]* ArrayJobId=\\([0-9]*\\) ArrayTaskId=\\([0-9]*\\) .*JobState=\\([A-Z]*\\).*/\\1_\\2|\\3|/p' \\
  -e 's/^JobId=\\([0-9]*\\) JobName.*JobState=\\([A-Z]*\\).*/\\1|\\2|/p'
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which SLURM's commands reach the cluster."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    assert not missing, f"{missing}: apt-get install slurmctld slurmd slurm-client munge; or leave out: -m 'not slurm'"
    home = tmp_path_factory.mktemp("slurm")
    ports = []
    for _ in range(3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    (home / "state").mkdir()
    host = socket.gethostname().partition(".")[0]
    text = CONF.format(host=host, home=home, port=ports[0], port1=ports[1], port2=ports[2])
    (home / "slurm.conf").write_text(text)
    (home / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")
    (home / "munge.key").write_bytes(os.urandom(1024))
    (home / "munge.key").chmod(0o400)
    (home / "bin").mkdir()
    (home / "bin/sacct").write_text(SACCT)
    (home / "bin/sacct").chmod(0o755)
    # The nodes' names are known to SLURM alone; on a cluster the first node's name is the main address.
    env = {"SLURM_CONF": f"{home}/slurm.conf", "PATH": f"{home}/bin:{os.environ['PATH']}", "MASTER_ADDR": "127.0.0.1"}
    munge = [f"--{name}={home}/munge.{ending}" for name, ending in (("socket", "sock"), ("key-file", "key"))]
    munge += [f"--{name}-file={home}/munged.{name}" for name in ("pid", "log", "seed")]
    everything = {**os.environ, **env}
    for command in (["munged", "--force", *munge], ["slurmctld", "-c"], ["slurmd", "-N", "n1"], ["slurmd", "-N", "n2"]):
        subprocess.run(command, env=everything, check=True)
    try:
        wait_until(lambda: sinfo(everything) == "idle 2")
        yield env
    finally:
        subprocess.run(["scancel", "--user=root"], env=everything, check=True)
        wait_until(lambda: sinfo(everything) == "idle 2")
        for name in ("n1", "n2", "slurmctld", "munged"):
            pid = int((home / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]


def sinfo(env: dict[str, str]) -> str:
    return subprocess.run(
        ["sinfo", "-h", "-o", "%T %D"], env=env, capture_output=True, text=True, check=False
    ).stdout.strip()


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_jobs_go_on_after_a_timeout_and_a_preemption(
    cluster: dict[str, str], composed: Compose, tmp_path: Path
) -> None:
    sweep, setting = tmp_path / "sweep", [*QUICK, "trainer.limit_train_batches=100", "trainer.max_epochs=3"]
    options = [
        f"hydra.launcher.{option}" for option in ("partition=low", "mem_gb=1", "cpus_per_task=1", "timeout_min=7")
    ]
    command = [
        sys.executable,
        "train.py",
        *readme("hydra/launcher=slurm"),
        *options,
        *setting,
        "+callbacks.held={_target_: faults.Held, step: 150}",
        f"hydra.sweep.dir={sweep}",
    ]
    env = {**os.environ, **cluster, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATH}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: len(list(sweep.glob("*seed=*/checkpoints/last.ckpt"))) == 2)
        jobs = subprocess.run(
            ["scontrol", "show", "job", "-o"], env=env, capture_output=True, text=True, check=True
        ).stdout
        for job in jobs.splitlines():
            words = dict(word.partition("=")[::2] for word in job.split())
            assert (words["Partition"], words["TimeLimit"], words["NumNodes"]) == ("low", "00:07:00", "1")
            assert (words["MinMemoryNode"], words["CPUs/Task"]) == ("1G", "1")
        assert len(jobs.splitlines()) == 2

        # The first job gets what SLURM sends before the time is up; the second has to give way to another partition's.
        subprocess.run(["scancel", "--signal=USR2", "1_0"], env=env, check=True)
        wait_until(
            lambda: "Requeued job 1_0 (99 remaining timeouts)" in (sweep / ".submitit/1_0/1_0_0_log.out").read_text()
        )
        preempt = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true"]
        subprocess.run(preempt, env=env, check=True, capture_output=True)
        out, err = process.communicate(timeout=90)
    finally:
        process.kill()  # where the test has failed
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[0] == f"2 jobs, 0 of them finished, in {sweep}"
    for seed in (0, 1):
        [run_dir] = sweep.glob(f"*seed={seed},*")
        assert json.loads((run_dir / "metrics.json").read_text())["global_step"] == 300
        resumed = len(json.loads((run_dir / "provenance.json").read_text())["resumed"])
        assert resumed in ((1, 2), (1,))[seed]  # the first may be running again when it has to give way too
    train(composed("seed=1", *setting, f"run_dir={tmp_path}/alone"))
    assert_equal(weights(run_dir), weights(tmp_path / "alone"))


def test_two_nodes_by_submitit_and_by_srun(cluster: dict[str, str], cli: Cli, tmp_path: Path) -> None:
    nodes = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.num_nodes=2", "trainer.devices=1"]
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=5"]
    env = {**os.environ, **cluster, "OMP_NUM_THREADS": "1"}
    command = shlex.join([*readme("srun -K python train.py"), *nodes, *short, f"hydra.run.dir={tmp_path}/run"])
    batch = ["sbatch", "--nodes=2", "--ntasks-per-node=1", "--mem=1G", f"--output={tmp_path}/batch.log"]
    wrap = f"--wrap=srun -K {sys.executable} train.py {command}"
    subprocess.run([*batch, wrap], cwd=ROOT, env=env, check=True, capture_output=True)
    options = ["hydra/launcher=slurm", "hydra.launcher.mem_gb=1", "hydra.launcher.cpus_per_task=1"]
    answer = cli("-m", "seed=0", *options, *nodes, *short, env=cluster)
    assert (answer.returncode, answer.stderr) == (0, "")
    wait_until(lambda: (tmp_path / "run/metrics.json").exists())
    [job] = (tmp_path / "sweep").glob("seed=0,*")
    for run_dir in (job, tmp_path / "run"):
        lines = (run_dir / "confusion_matrix.csv").read_text().splitlines()[1:]
        assert sum(int(cell) for line in lines for cell in line.split(",")[1:]) == 10_000
        assert json.loads((run_dir / "metrics.json").read_text())["global_step"] == 5
        assert len(list(run_dir.glob("events.*"))) == 2  # one of training, one of the test, both of rank 0
    assert_equal(weights(job), weights(tmp_path / "run"))
