"""Hosts that hold a part each: a host that is lost is named in time, and the run goes on later."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gnn_core.data import datasets
from gnn_core.data.partition.make import Request, make_partition
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord
from gnn_core.training.checkpoint import state_of
from tests.hosts.namespace_hosts import Hosts, Link, obstacle

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 8  # --collective-timeout
SECONDS = 300
ENDS_SECONDS = 75  # mpirun's keepalive, or the ranks' own monitors, whichever comes first
LINK = Link(megabits_per_second=100)
DATASET = "synthetic:papers=2000"


@pytest.fixture(autouse=True, scope="module")
def _hosts_can_be_made() -> None:
    if problem := obstacle():
        pytest.skip(problem)


def last_record(folder: Path) -> RunRecord:
    records, problems = read_records(folder)
    assert not problems
    return records[-1]


@pytest.mark.long
@pytest.mark.needs_horovod
@pytest.mark.parametrize("topology", [False, True], ids=["features", "adjacency"])
@pytest.mark.parametrize("way", ["killed", "unplugged"])
def test_a_lost_host_is_named_and_the_run_resumes(way: str, topology: bool, tmp_path: Path) -> None:
    graph = datasets.load(DATASET)
    parts = tmp_path / "parts"
    make_partition(graph, Request(2, topology=True), parts)
    flags = ["--dataset", DATASET, "--precision", "fp64", "--progress", "off"]
    in_parts = ["--partitions", str(parts), *["--partition-topology"][: int(topology)]]
    saved = ["--checkpoint-dir", str(tmp_path / "saved"), "--records", str(tmp_path / "records")]
    train = [sys.executable, "horovod_gnn/train.py", *flags, *in_parts]
    with Hosts(2, LINK) as hosts, ThreadPoolExecutor() as beside:
        endless = [*train, *saved, "--epochs", "1000000", "--collective-timeout", str(LIMIT)]
        job = beside.submit(hosts.mpirun, 2, endless, cwd=ROOT, timeout=SECONDS)
        while not (tmp_path / "saved" / "best.safetensors").exists():
            assert not job.done(), job.result().stderr
            time.sleep(0.1)
        begun = time.monotonic()
        if way == "killed":
            hosts.kill("h2")
        else:
            hosts.set_link("h2", up=False)
        done = job.result()
        seconds = time.monotonic() - begun
        said = done.stdout + done.stderr
        print(f"{way}: {seconds:.0f} s")
        assert done.returncode != 0 and seconds < ENDS_SECONDS
        assert "h2" in said and "Traceback" not in said, said
    checkpoint = state_of((tmp_path / "saved" / "last.safetensors").read_bytes())
    epochs = str(checkpoint.progress.epoch + 2)
    with Hosts(2, LINK) as hosts:
        resume = [*train, *saved, "--epochs", epochs, "--resume"]
        again = hosts.mpirun(2, resume, cwd=ROOT, timeout=SECONDS)
        alone = [sys.executable, "horovod_gnn/train.py", *flags, "--epochs", epochs]
        alone += ["--records", str(tmp_path / "alone")]
        done = hosts.mpirun(1, alone, cwd=ROOT, timeout=SECONDS)
    assert again.returncode == 0 and done.returncode == 0, again.stderr + done.stderr
    resumed = last_record(tmp_path / "records")
    assert resumed.status == "ok" and resumed.exchange is not None
    assert resumed.exchange.topology == ("parts" if topology else "whole")
    whole = last_record(tmp_path / "alone").step_losses or []
    own = resumed.step_losses or []
    assert 0 < len(own) < len(whole)
    assert own == pytest.approx(whole[-len(own) :], rel=1e-12)
