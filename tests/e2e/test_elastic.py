"""Ranks go and join under horovodrun, and the curve is that of a run that met nothing.

Names of this machine stand for the hosts of a cluster.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gnn_core.measure.run_record import RunRecord
from gnn_core.training.checkpoint import state_of
from tests.e2e.jobs import Job, job
from tests.e2e.small import LAUNCHERS, TRAIN, Place, assert_same_curve

pytestmark = pytest.mark.needs_horovod
FP64 = 1e-10
EPOCHS = 60
FIRST, SECOND = "localhost", "127.0.0.1"


@pytest.fixture
def third() -> str:
    """A third name of this machine, by which Horovod knows it to be this one."""
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        pytest.skip(f"this machine's name, {name}, has no address")
    own = [each.address for some in psutil.net_if_addrs().values() for each in some]
    if address not in own or name in (FIRST, SECOND):
        pytest.skip(f"this machine's name, {name}, does not name it")
    return name


class Hosts:
    """What horovodrun discovers."""

    def __init__(self, folder: Path):
        self._list = folder / "hosts"
        self.script = folder / "discover.sh"
        self.script.write_text(f"#!/bin/sh\ncat {self._list}\n", encoding="utf-8")
        self.script.chmod(0o755)
        self.are(FIRST, SECOND)

    def are(self, *names: str) -> None:
        unfinished = self._list.with_suffix(".new")
        unfinished.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        unfinished.replace(self._list)


@pytest.fixture
def hosts(place: Place) -> Hosts:
    return Hosts(place.folder)


@contextlib.contextmanager
def training(place: Place, hosts: Hosts, *more: str) -> Iterator[Job]:
    """An elastic job of two ranks, which has trained some epochs unless `more` forbids it."""
    words = [
        "-np",
        "2",
        "--min-np",
        "1",
        "--slots-per-host",
        "1",
        "--network-interfaces",
        "lo",
        "--host-discovery-script",
        str(hosts.script),
    ]
    flags = place.saving(epochs=EPOCHS, checkpoint_every_steps=3, eval_every=10)
    command = [str(LAUNCHERS / "horovodrun"), *words, "python", TRAIN, *flags, *more]
    with job(command, place.folder) as started:
        yield started


def until_said(started: Job, words: str) -> None:
    started.wait_until(lambda: words in started.out)


def rank_on(host: str, started: Job) -> psutil.Process:
    """The rank that horovodrun has started for a host."""
    for process in psutil.Process(started.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if TRAIN in process.cmdline() and process.name().startswith("python"):
                if process.environ().get("HOROVOD_HOSTNAME") == host:
                    return process
    raise AssertionError(f"no rank for {host}")


_RECORDS: list[RunRecord] = []


def one_process(place: Place, single: Callable) -> RunRecord:
    """The record of the same run in this process; it is made once."""
    if not _RECORDS:
        elsewhere = Place(place.folder / "whole", place.cache)
        flags = elsewhere.flags(epochs=EPOCHS, progress="off", eval_every=10)
        assert single(flags).code == 0
        _RECORDS.append(elsewhere.record())
    return _RECORDS[0]


@pytest.mark.parametrize(
    ("lost", "kept"), [(FIRST, SECOND), pytest.param(SECOND, FIRST, marks=pytest.mark.long)]
)
def test_a_rank_is_lost_another_one_joins_and_no_step_is_lost(
    place: Place, hosts: Hosts, third: str, single: Callable, lost: str, kept: str
) -> None:
    with training(place, hosts) as started:
        until_said(started, f"epoch 3/{EPOCHS}")
        rank_on(lost, started).kill()
        until_said(started, "goes on    on 1 rank from epoch")
        refused = single(place.saving(resume=True))
        assert refused.code == 2 and f"{place.saved} is in use by run " in refused.err
        survivor = rank_on(kept, started).pid
        hosts.are(lost, kept, third)
        until_said(started, "goes on    on 2 ranks from epoch")
        assert started.end() == 0, started.err
        assert "Traceback" not in started.err
    record = place.record()
    assert_same_curve([record], one_process(place, single), FP64)
    assert [epoch.epoch for epoch in record.epochs] == list(range(EPOCHS))
    assert [sum(world.ranks_per_host) for world in record.worlds] == [2, 1, 2]
    assert record.world_size == 2 and len(record.memory) == len(record.resources) == 2
    assert not psutil.pid_exists(survivor)


def test_a_host_that_is_listed_no_more_is_left_and_the_others_go_on(
    place: Place, hosts: Hosts, single: Callable
) -> None:
    with training(place, hosts) as started:
        until_said(started, f"epoch 3/{EPOCHS}")
        hosts.are(SECOND)
        until_said(started, "goes on    on 1 rank from epoch")
        assert started.end() == 0, started.err
        assert "has been removed from elastic job" in started.err  # by Horovod, which ends it
        assert "Traceback" not in started.err
    assert_same_curve([place.record()], one_process(place, single), FP64)


def test_sigterm_to_the_launcher_saves_and_one_process_goes_on(
    place: Place, hosts: Hosts, single: Callable
) -> None:
    with training(place, hosts) as started:
        until_said(started, f"epoch 3/{EPOCHS}")
        os.kill(started.pid, signal.SIGTERM)
        assert started.end() != 0
    stopped = place.record()
    assert stopped.status == "interrupted"
    reached = state_of((place.saved / "last.safetensors").read_bytes()).progress
    assert len(stopped.step_losses or []) == reached.epoch * 10 + reached.step
    flags = place.saving(epochs=EPOCHS, eval_every=10, resume=True, progress="off")
    assert single(flags).code == 0
    assert_same_curve([stopped, place.record()], one_process(place, single), FP64)


@pytest.mark.long  # of what it says, tests/unit/test_config.py
def test_what_binds_a_run_to_its_ranks_is_refused(place: Place, hosts: Hosts) -> None:
    with training(place, hosts, "--scale-lr", "--world-size=2") as started:
        assert started.end() != 0
        (line,) = [line for line in started.err.splitlines() if "error: " in line]
    for flag in ("--scale-lr", "--world-size"):
        assert f"{flag}: ranks may go and join" in line
    assert line.count("leave it out") == 2
    assert place.saved.exists() is False
