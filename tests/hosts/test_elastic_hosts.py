"""The MPIJob of the overlay `elastic`: workers go and join, and the job goes on with the others.

Every job here ends with the curve of one process that met nothing.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gnn_core.measure.run_record import RunRecord
from tests.hosts.mpijobs import START_SECONDS, curve_here, end_of, ready_pods, record_of, until_said
from tests.hosts.pod_hosts import CONFIG_SECONDS, Pod, PodHosts

# A worker that is unplugged says no word: the other ranks and ssh miss it after some 20 s. What the
# operator lists reaches the launcher's pod after CONFIG_SECONDS.
GOES_ON_SECONDS = 90 + CONFIG_SECONDS
ENDS_SECONDS = 90
NAMED_SECONDS = 120  # the last answer counts for 40 s, and it is said once a minute
BACK_SECONDS = 300 + CONFIG_SECONDS  # --blacklist-cooldown-range
FLAGS = ("--precision=fp64", "--epochs=300", "--eval-every=50")
# A minute and more on one rank, in few steps: curves of ranks part by roundings, step after step.
LONGER = (
    *("--dataset=synthetic:papers=20000", "--precision=fp64", "--global-batch-size=16384"),
    *("--epochs=200", "--eval-every=50"),
)

pytestmark = pytest.mark.needs_horovod

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[PodHosts]:
    """A job of two workers, which are ready, and a host for a third one."""
    with ready_pods("elastic", "synthetic:papers=2000", tmp_path, spare_hosts=1) as made:
        yield made


def hosts_of(record: RunRecord) -> list[list[str]]:
    """The workers of each world, by number; Horovod may meet anew for hosts that it knows of."""
    worlds = [sorted(host.rpartition("-")[2] for host in world.hosts) for world in record.worlds]
    return [world for world, _ in itertools.groupby(worlds)]


@pytest.mark.long
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("way", ["killed", "unplugged"])
def test_the_job_goes_on_without_a_worker_and_takes_another_one_in(
    pods: PodHosts, tmp_path: Path, run_cli: Run, number: int, way: str
) -> None:
    log = tmp_path / "job.log"
    launcher = pods.launch(log, *LONGER)
    until_said(launcher, log, "epoch 5/")
    lost, joins = pods.workers[number], pods.workers[2]
    if way == "killed":
        pods.crash(lost)
    else:  # of which the operator learns minutes later
        pods.unplug(lost)
    until_said(launcher, log, f"on 1 rank without {lost.name}", GOES_ON_SECONDS)

    pods.scale(3)
    pods.start_worker(joins)
    until_said(launcher, log, f"on 2 ranks with {joins.name}", GOES_ON_SECONDS)
    assert end_of(launcher, log, START_SECONDS) == 0, log.read_text()
    record = record_of(pods)
    assert record.step_losses == pytest.approx(curve_here(pods, run_cli, *LONGER), rel=1e-12)
    assert hosts_of(record) == [["0", "1"], [str(1 - number)], sorted([str(1 - number), "2"])]


@pytest.mark.long
def test_a_worker_that_was_evicted_is_named_until_somebody_deletes_it(
    pods: PodHosts, tmp_path: Path
) -> None:
    log = tmp_path / "job.log"
    launcher = pods.launch(log, *FLAGS, "--epochs=100000", "--progress=lines")
    until_said(launcher, log, "epoch 5/")
    lost = pods.workers[1]
    pods.evict(lost)
    until_said(launcher, log, f"on 1 rank without {lost.name}", GOES_ON_SECONDS)
    until_said(launcher, log, f"missing    worker {lost.name}: ", NAMED_SECONDS)
    pods.delete(lost)
    pods.start_worker(lost)
    until_said(launcher, log, f"on 2 ranks with {lost.name}", BACK_SECONDS)
    pods.crash(pods.launcher)


def resumed_part(pods: PodHosts, run_cli: Run, *flags: str) -> RunRecord:
    """The record of a job that went on from a checkpoint; its losses are those of one process."""
    record = record_of(pods)
    assert record.status == "ok" and record.resumed_from is not None
    own = record.step_losses or []
    whole = curve_here(pods, run_cli, *flags)
    assert 0 < len(own) < len(whole)
    assert own == pytest.approx(whole[-len(own) :], rel=1e-12)
    return record


@pytest.mark.long
def test_a_suspended_job_goes_on_where_it_was_with_the_pods_it_then_gets(
    pods: PodHosts, tmp_path: Path, run_cli: Run
) -> None:
    log, again = tmp_path / "job.log", tmp_path / "again.log"
    launcher = pods.launch(log, *FLAGS)
    until_said(launcher, log, "epoch 50/300")
    pods.delete(pods.launcher, *pods.workers[:2])  # suspended: the operator deletes all of them
    launcher.wait()

    pods.scale(3)
    for worker in pods.workers:
        pods.start_worker(worker)
    assert end_of(pods.launch(again, *FLAGS), again, START_SECONDS) == 0, again.read_text()
    record = resumed_part(pods, run_cli, *FLAGS)
    assert hosts_of(record)[-1] == ["0", "1", "2"]


@pytest.mark.long
def test_ranks_do_not_outlive_their_launcher_and_the_next_one_resumes(
    pods: PodHosts, tmp_path: Path, run_cli: Run
) -> None:
    log, again = tmp_path / "job.log", tmp_path / "again.log"
    launcher = pods.launch(log, *FLAGS, "--epochs=100000", "--progress=lines")
    until_said(launcher, log, "epoch 50/")
    pods.crash(pods.launcher)
    launcher.wait()
    deadline = time.monotonic() + ENDS_SECONDS
    while ranks := [one for pod in pods.workers for one in trainers_on(pods, pod)]:
        assert time.monotonic() < deadline, ranks
        time.sleep(0.5)

    assert end_of(pods.launch(again, *FLAGS), again, START_SECONDS) == 0, again.read_text()
    resumed_part(pods, run_cli, *FLAGS)


def trainers_on(pods: PodHosts, pod: Pod) -> list[str]:
    """The command lines of the trainers in a pod."""
    return [line for line in pods.hosts.commands(pod.host) if "horovod_gnn/train.py" in line]
