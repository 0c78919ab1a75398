"""The MPIJobs of `mpi-operator` on a graph that a test can afford, and what becomes of them."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gnn_core.deploy.manifest_files import MANIFESTS, read_manifests
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord
from tests.hosts import namespace_hosts, pod_hosts
from tests.hosts.namespace_hosts import Hosts, Link
from tests.hosts.pod_hosts import PodHosts

REVISION = "0123456789abcdef0123456789abcdef01234567"
START_SECONDS = 400  # of a job on a busy machine: imports and compilation


@functools.cache
def _obstacle() -> str | None:
    return namespace_hosts.obstacle() or pod_hosts.obstacle()


@contextlib.contextmanager
def ready_pods(
    overlay: str, dataset: str, folder: Path, spare_hosts: int = 0
) -> Iterator[PodHosts]:
    """A job of its own of an overlay: its workers are ready, its graph is prepared.

    Skips the test where pods cannot be made. `spare_hosts` are for workers that join.
    """
    if problem := _obstacle():
        pytest.skip(problem)
    job = job_of(overlay, dataset)
    num_workers = job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"]
    with Hosts(1 + num_workers + spare_hosts, Link(megabits_per_second=1000)) as hosts:
        pods = PodHosts(job, hosts, folder, uid=str(uuid.uuid4()), revision=REVISION)
        for worker in pods.workers[:num_workers]:
            pods.start_worker(worker)
        log = folder / "init.log"
        assert pods.run_init(log) == 0, log.read_text()
        with contextlib.closing(pods):
            yield pods


def job_of(overlay: str, dataset: str) -> dict[str, Any]:
    """The MPIJob of the overlay, on another graph and with a rank in each of its workers."""
    (job,) = read_manifests(str(MANIFESTS / "overlays" / overlay)).of_kind("MPIJob")
    job["spec"]["slotsPerWorker"] = 1
    launcher = job["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
    prepare, train = launcher["initContainers"][0]["command"], launcher["containers"][0]["args"]
    assert (prepare[-1], train[0]) == ("synthetic", "--dataset=synthetic")
    prepare[-1], train[0] = dataset, f"--dataset={dataset}"
    return job


def end_of(launcher: subprocess.Popen[bytes], log: Path, seconds: float) -> int:
    """The exit code of a launcher that ends in time."""
    try:
        return launcher.wait(seconds)
    except subprocess.TimeoutExpired:
        pytest.fail(f"still running after {seconds} s:\n{log.read_text('utf-8')[-4000:]}")


def until_said(
    launcher: subprocess.Popen[bytes], log: Path, words: str, seconds: float = START_SECONDS
) -> None:
    """Wait until the launcher has said something."""
    deadline = time.monotonic() + seconds
    while words not in log.read_text("utf-8"):
        assert launcher.poll() is None and time.monotonic() < deadline, log.read_text("utf-8")
        time.sleep(0.1)


def record_of(pods: PodHosts) -> RunRecord:
    """The newest record on the shared volume; the others are removed with it."""
    records, problems = read_records(pods.shared / "records")
    assert not problems
    for file in (pods.shared / "records").iterdir():
        file.unlink()
    return max(records, key=lambda record: record.started_at)


def curve_here(
    pods: PodHosts,
    run_cli: Callable[..., subprocess.CompletedProcess[str]],
    *flags: str,
    program: str = "baselines/single.py",
) -> list[float | None]:
    """The losses of the same training in one process of this machine."""
    dataset = pods.launcher.spec["containers"][0]["args"][0]
    folders = [f"--cache-dir={pods.shared}/cache", f"--records={pods.shared}/records"]
    command = ["python", program, dataset, *folders, "--progress=off", *flags]
    done = run_cli(command, timeout=START_SECONDS)
    assert done.returncode == 0, done.stderr
    return record_of(pods).step_losses or []
