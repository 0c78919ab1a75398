"""The MPIJob of `mpi-operator`, run as the MPI Operator would: a launcher and two workers.

What is started is the manifest's, of a smaller graph. A job ends within a bound when a worker goes,
however it goes, and the launcher that is started again comes to the curve of a job that met
nothing.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts.mpijobs import (
    REVISION,
    START_SECONDS,
    curve_here,
    end_of,
    ready_pods,
    record_of,
    until_said,
)
from tests.hosts.pod_hosts import PodHosts

# After a worker has gone: 40 of keepalive at most, then SIGTERM, patience and SIGKILL.
ENDS_SECONDS = 90
SAVES_SECONDS = 30  # of the 60 that a pod has

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.needs_horovod


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One volume for all jobs of this file, as on a cluster."""
    return tmp_path_factory.mktemp("mpijob")


@pytest.fixture
def pods(folder: Path, request: pytest.FixtureRequest) -> Iterator[PodHosts]:
    """A job of the test's own on the graph it names: workers are ready, the graph is prepared."""
    dataset = getattr(request, "param", "synthetic:papers=2000")
    with ready_pods("kind", dataset, folder) as made:
        yield made


def test_the_job_trains_on_both_workers_and_leaves_its_record(
    pods: PodHosts, folder: Path, run_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    flags = ["--precision=fp64", "--epochs=2"]
    log = folder / "job.log"
    assert end_of(pods.launch(log, *flags), log, START_SECONDS) == 0, log.read_text()
    record = record_of(pods)
    assert record.hosts == ["ringsage-kind-worker-0", "ringsage-kind-worker-1"]
    assert (record.world_size, record.controller) == (2, "mpi")
    assert (record.commit, record.dirty) == (REVISION, False)  # from the image, by ssh
    assert record.step_losses == pytest.approx(curve_here(pods, run_cli, *flags), rel=1e-12)


def test_ranks_that_all_run_in_the_launchers_pod_refuse(pods: PodHosts, folder: Path) -> None:
    # As Open MPI 5 does it, which reads no host file of the operator.
    (pods.shared / "hostfile").write_text("localhost slots=2\n")
    log = folder / "one-host.log"
    launcher = pods.launch(log, "--epochs=1", mpirun=["--hostfile", "/shared/hostfile"])
    assert end_of(launcher, log, START_SECONDS) == 2, log.read_text()
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert "expected the ranks on ringsage-kind-worker-0, ringsage-kind-worker-1" in line
    assert "got 2 on ringsage-kind-launcher" in line
    assert "epoch" not in log.read_text() and "Traceback" not in log.read_text()


@pytest.mark.long
@pytest.mark.parametrize("way", ["killed", "unplugged"])
@pytest.mark.parametrize("number", [0, 1], ids=["the first worker", "the second worker"])
def test_a_worker_that_goes_ends_the_job_and_the_next_launcher_resumes(
    pods: PodHosts, folder: Path, run_cli: Run, number: int, way: str
) -> None:
    flags = ["--precision=fp64", "--epochs=60"]
    worker, log = pods.workers[number], folder / f"{way}-{number}.log"
    launcher = pods.launch(log, *flags)
    until_said(launcher, log, "epoch 5/60")
    if way == "killed":
        pods.crash(worker)
    else:
        pods.unplug(worker)
    assert end_of(launcher, log, ENDS_SECONDS) != 0
    assert worker.name in log.read_text().partition("epoch 5/60")[2]

    if way == "unplugged":  # its node is deleted, and the operator makes another
        pods.crash(worker)
        pods.hosts.set_link(worker.host, up=True)
    pods.start_worker(worker)
    again = folder / f"{way}-{number}-again.log"
    assert end_of(pods.launch(again, *flags), again, START_SECONDS) == 0, again.read_text()
    resumed(pods, run_cli, *flags)


@pytest.mark.long
def test_a_launcher_waits_for_a_worker_that_was_evicted_and_says_what_to_do(
    pods: PodHosts, folder: Path, run_cli: Run
) -> None:
    flags = ["--precision=fp64", "--epochs=60"]
    worker, log = pods.workers[1], folder / "evicted.log"
    launcher = pods.launch(log, *flags)
    until_said(launcher, log, "epoch 5/60")
    pods.evict(worker)
    assert end_of(launcher, log, ENDS_SECONDS) != 0

    again = folder / "evicted-again.log"
    launcher = pods.launch(again, *flags)
    until_said(launcher, again, f"kubectl delete pod {worker.name}, and it is made anew", 60)
    with pytest.raises(RuntimeError, match="the operator makes no other"):
        pods.start_worker(worker)
    pods.delete(worker)
    pods.start_worker(worker)
    assert end_of(launcher, again, START_SECONDS) == 0, again.read_text()
    resumed(pods, run_cli, *flags)


@pytest.mark.long
def test_a_suspended_job_saves_at_once_and_says_so(
    pods: PodHosts, folder: Path, run_cli: Run
) -> None:
    flags = ["--precision=fp64", "--epochs=60"]
    log = folder / "suspended.log"
    launcher = pods.launch(log, *flags)
    until_said(launcher, log, "epoch 5/60")
    begun = time.monotonic()
    pods.delete(pods.launcher, *pods.workers)
    assert time.monotonic() - begun < SAVES_SECONDS
    assert launcher.wait() == 128 + signal.SIGTERM
    assert "interrupted" in log.read_text(), log.read_text()

    for worker in pods.workers:
        pods.start_worker(worker)
    again = folder / "suspended-again.log"
    assert end_of(pods.launch(again, *flags), again, START_SECONDS) == 0, again.read_text()
    resumed(pods, run_cli, *flags)


def resumed(pods: PodHosts, run_cli: Run, *flags: str) -> None:
    """The newest record went on from a checkpoint; its losses are those of one process."""
    record = record_of(pods)
    assert record.resumed_from is not None
    losses = curve_here(pods, run_cli, *flags)
    own = record.step_losses or []
    assert 0 < len(own) and own[-1] == pytest.approx(losses[-1], rel=1e-12)
    assert own == pytest.approx(losses[-len(own) :], rel=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("pods", ["synthetic"], indirect=True)
def test_the_graph_of_the_manifest_learns_on_two_workers_what_it_learns_on_one(
    pods: PodHosts, folder: Path, run_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    log = folder / "default.log"
    launcher = pods.launch(log, "--precision=fp64")
    assert end_of(launcher, log, 2 * START_SECONDS) == 0, log.read_text()
    record = record_of(pods)
    losses = curve_here(pods, run_cli, "--precision=fp64", "--epochs=3")
    assert record.step_losses == pytest.approx(losses, rel=1e-12)
