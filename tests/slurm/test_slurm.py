"""The printed scripts on a real Slurm: ranks on several nodes, restarts, arrays, chains."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gnn_core.measure.records import read_records
from tests.slurm.slurm_cluster import Cluster, obstacle

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--epochs", "2", "--precision", "fp64", "--progress", "lines"]
ENDLESS = ["--epochs", "1000000", "--progress", "lines"]
DATASET = "synthetic:papers=2000"
ENV = {"OMPI_MCA_btl": "tcp,self"}  # the nodes have one memory, which MPI must not find
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, with accounting where its packages are there."""
    if problem := obstacle():
        pytest.skip(problem)
    folder = tmp_path_factory.mktemp("slurm")
    with Cluster(3, folder, accounting=obstacle(accounting=True) is None) as cluster:
        yield cluster


@pytest.fixture
def submit(slurm: Cluster, tmp_path: Path) -> Callable[..., str]:
    """Print a script with these flags, and submit it: the number of the job."""

    def submit(*words: str) -> str:
        own = ["--shared", str(tmp_path), "--local", str(slurm.local)]
        command = [sys.executable, "-m", "gnn_core.deploy", "slurm", *own, *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        script = tmp_path / "script"
        script.write_text(done.stdout)
        if "--chain" in words:
            return slurm.run(["sh", str(script)], ENV, tmp_path)
        return slurm.submit(script, f"--output={tmp_path}/log-%j-%a", env=ENV)

    return submit


def log_of(folder: Path) -> str:
    return "\n".join(one.read_text(errors="replace") for one in sorted(folder.glob("log-*")))


def start(slurm: Cluster, job: str, folder: Path, restarts: int) -> list[str]:
    """Wait until the job trains for so many-th time; the nodes that it runs on."""

    def trains(shown: dict[str, str]) -> bool:
        begun = log_of(folder).partition(f"start {restarts} on ")[2]
        return shown["JobState"] == "RUNNING" and "\nepoch" in begun

    slurm.wait_for(job, 200, trains)
    line = log_of(folder).partition(f"start {restarts} on ")[2].partition("\n")[0]
    return line.split()


def stop(slurm: Cluster, job: str) -> None:
    """Do what Slurm does before the time is up."""
    slurm.run(["scancel", "--batch", "--signal=USR1", job])


def resumed(folder: Path) -> None:
    """Check that two runs have left records, the second of which went on where the first was."""
    (first, second), problems = read_records(folder / "records")
    assert not problems
    assert second.resumed_from is not None and second.resumed_from["run_id"] == first.run_id
    assert second.status == "interrupted"


@pytest.mark.needs_horovod
@pytest.mark.parametrize("strategy", ["horovod", "ddp", "multiworker", "param-server"])
def test_two_nodes_learn_what_one_process_learns(
    slurm: Cluster, submit: Callable[..., str], strategy: str, tmp_path: Path
) -> None:
    job = submit(
        *("--nodes", "2", "--ranks-per-node", "1", "--dataset", DATASET, "--strategy", strategy),
        *("--", *SMALL),
    )
    ended = slurm.wait(job, 150)
    assert ended["JobState"] == "COMPLETED", log_of(tmp_path)
    alone = [sys.executable, "baselines/single.py", "--dataset", DATASET, *SMALL]
    folders = ["--cache-dir", str(tmp_path / "cache"), "--records", str(tmp_path / "records")]
    subprocess.run([*alone, *folders], cwd=ROOT, check=True, capture_output=True)
    (both, one), problems = read_records(tmp_path / "records")
    assert not problems and sorted(both.hosts) == ["h1", "h2"] and both.status == "ok"
    assert both.step_losses == pytest.approx(one.step_losses, rel=1e-9)


@pytest.mark.needs_horovod
def test_a_job_whose_time_is_up_goes_on(
    slurm: Cluster, submit: Callable[..., str], tmp_path: Path
) -> None:
    job = submit(
        *("--nodes", "2", "--dataset", DATASET, "--time", "2", "--save-before", "20"),
        *("--restarts", "1", "--", *ENDLESS),
    )
    start(slurm, job, tmp_path, 0)
    start(slurm, job, tmp_path, 1)  # the limit has come, and Slurm has started it again
    stop(slurm, job)
    ended = slurm.wait(job, 60)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "138:0", "1")
    assert "exit code 138 after 1 restarts: not queued again" in log_of(tmp_path)
    resumed(tmp_path)


@pytest.mark.needs_horovod
@pytest.mark.parametrize("strategy", ["horovod", "ddp"])
def test_a_job_that_loses_a_node_goes_on_with_others(
    slurm: Cluster, submit: Callable[..., str], strategy: str, tmp_path: Path
) -> None:
    words = ["--nodes", "2", "--dataset", DATASET, "--strategy", strategy, "--restarts", "1"]
    job = submit(*words, "--", *ENDLESS)
    before = start(slurm, job, tmp_path, 0)
    while not list(tmp_path.glob("checkpoints/*/last.safetensors")):
        time.sleep(0.2)
    slurm.hosts.kill(before[1])
    try:
        after = start(slurm, job, tmp_path, 1)
        assert before[1] not in after and len(after) == 2
        stop(slurm, job)
        slurm.wait(job, 60)
    finally:
        slurm.start_node(before[1])
        slurm.await_nodes()
    resumed(tmp_path)


@pytest.mark.needs_horovod
def test_a_cancelled_job_stays_cancelled(
    slurm: Cluster, submit: Callable[..., str], tmp_path: Path
) -> None:
    job = submit("--nodes", "2", "--dataset", DATASET, "--", *ENDLESS)
    start(slurm, job, tmp_path, 0)
    slurm.run(["scancel", job])
    ended = slurm.wait(job, 60)
    assert ended["JobState"] == "CANCELLED" and ended["Restarts"] == "0"


@pytest.mark.needs_torch
def test_an_array_leaves_a_record_of_every_run(
    slurm: Cluster, submit: Callable[..., str], tmp_path: Path
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "strategies: [single]\nrepeats: 12\nepochs: 2\ndatasets: ['synthetic:papers=500']\n"
        f"records: {tmp_path}/sweep\n"
    )
    job = submit("--array", str(plan))
    states = ["scontrol", "--oneliner", "show", "job", job]
    deadline = time.monotonic() + 400
    while slurm.run(states).count("JobState=COMPLETED") < 12:
        assert time.monotonic() < deadline, log_of(tmp_path)
        time.sleep(1)
    records, problems = read_records(tmp_path / "sweep")
    assert not problems and [one.status for one in records] == ["ok"] * 12
    if slurm.accounting:
        fields = ["--noheader", "--allocations", "--parsable2", "--format=JobID,State,ExitCode"]
        wanted = sorted(f"{job}_{task}|COMPLETED|0:0" for task in range(1, 13))
        while (told := sorted(slurm.run(["sacct", "-j", job, *fields]).split())) != wanted:
            assert time.monotonic() < deadline, told
            time.sleep(1)


@pytest.mark.needs_horovod
def test_a_chain_ends_with_the_report(
    slurm: Cluster, submit: Callable[..., str], tmp_path: Path
) -> None:
    said = submit("--nodes", "2", "--dataset", DATASET, "--chain", "--", *SMALL)
    jobs = [word for word in said.replace(",", "").split() if word.isdigit()]
    states = [slurm.wait(job, 150)["JobState"] for job in jobs]
    assert states == ["COMPLETED"] * 3, "\n".join(
        one.read_text() for one in sorted(tmp_path.glob("*.log"))
    )
    assert "<html" in (tmp_path / "report.html").read_text()


@pytest.mark.needs_horovod
@pytest.mark.parametrize("interface", ["none", "pmi2"])
@pytest.mark.parametrize(
    "program", [["horovod_gnn/train.py"], ["tf_mirrored/train.py", "--strategy", "multiworker"]]
)
def test_srun_is_refused_for_what_meets_through_mpi(
    slurm: Cluster, interface: str, program: list[str], tmp_path: Path
) -> None:
    words = ["srun", "--nodes=2", f"--mpi={interface}", sys.executable, *program]
    with pytest.raises(RuntimeError) as caught:
        slurm.run([*words, "--dataset", DATASET], cwd=ROOT)
    assert str(caught.value).count("srun started 2 copies of this program") == 1
    assert "Exited with exit code 2" in str(caught.value)
