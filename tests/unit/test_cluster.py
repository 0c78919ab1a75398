"""Who the workers are, without TensorFlow: TF_CONFIG, ports, addresses, arrivals, departures."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gnn_core.usage import SharedUsageError, UsageError
from tf_mirrored import cluster as module
from tf_mirrored.cluster import (
    Cluster,
    find_cluster,
    parse_tf_config,
    wait_for_departure,
    watch_arrivals,
)

TWO = ("one:2222", "two:2222")
LAUNCHED = (
    "OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "PMI_RANK", "RANK",
    "OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE", "PMI_SIZE", "WORLD_SIZE",
)  # fmt: skip


@pytest.fixture(autouse=True)
def started_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher and no TF_CONFIG."""
    for name in (*LAUNCHED, "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def listening() -> Iterator[Callable[[], tuple[socket.socket, str]]]:
    """Give `listening()`: somebody who listens at a port of this host, and its address."""
    sockets = []

    def listen() -> tuple[socket.socket, str]:
        found = socket.create_server(("127.0.0.1", 0))
        sockets.append(found)
        return found, f"127.0.0.1:{found.getsockname()[1]}"

    yield listen
    for found in sockets:
        found.close()


def free_address() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"127.0.0.1:{found.getsockname()[1]}"


def tf_config(workers: Any = TWO, index: Any = 0, kind: str = "worker", **others: Any) -> str:
    return json.dumps(
        {"cluster": {"worker": workers, **others}, "task": {"type": kind, "index": index}}
    )


def test_tf_config_names_the_workers() -> None:
    assert parse_tf_config(tf_config(index=1)) == Cluster(TWO, 1)
    assert parse_tf_config(tf_config(["[::1]:80"])) == Cluster(("[::1]:80",), 0)


def test_what_is_read_is_written_again() -> None:
    cluster = Cluster(TWO, 1)
    assert parse_tf_config(cluster.to_tf_config()) == cluster


MALFORMED = {
    "not JSON": ("{cluster", "it is not JSON"),
    "empty JSON": ("{}", "it lacks a cluster of workers or a task"),
    "a list": ("[1]", "it lacks a cluster of workers or a task"),
    "a number": ("7", "it lacks a cluster of workers or a task"),
    "nothing": ("null", "it lacks a cluster of workers or a task"),
    "no task": ('{"cluster": {"worker": ["a:1"]}}', "it lacks a cluster of workers or a task"),
    "no worker": (
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "worker", "index": 0}}',
        "it lacks a cluster of workers or a task",
    ),
    "a list of roles": (
        '{"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}',
        "it lacks a cluster of workers or a task",
    ),
    "one worker without a list": (tf_config("one:2222"), "expected a list of workers"),
    "workers by number": (tf_config({"0": "one:2222"}), "expected a list of workers"),
    "a chief": (tf_config(chief=["a:1"]), "expected workers only, got a chief"),
    "a parameter server": (tf_config(kind="ps"), "expected workers only, got a ps"),
    "a task that is no word": (
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": 3, "index": 0}}',
        "expected workers only, got a 3",
    ),
    "a task that is a list": (
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": [], "index": 0}}',
        "expected workers only, got a []",
    ),
    "no port": (tf_config(["one", "two:2222"]), "expected host:port, got the worker 'one'"),
    "no host": (tf_config([":2222"]), "expected host:port, got the worker ':2222'"),
    "a port in words": (tf_config(["one:http"]), "expected host:port, got the worker 'one:http'"),
    "a port too high": (tf_config(["one:70000"]), "expected host:port, got the worker 'one:70000'"),
    "a worker that is a number": (tf_config([2222]), "expected host:port, got the worker 2222"),
    "nobody": (tf_config([]), "expected workers that differ, got []"),
    "twice the same": (tf_config(["one:1", "one:1"]), "expected workers that differ, got ['one:1'"),
    "an index too high": (tf_config(index=2), "expected a task index of 0 to 1, got 2"),
    "an index too low": (tf_config(index=-1), "expected a task index of 0 to 1, got -1"),
    "an index in words": (tf_config(index="0"), "expected a task index of 0 to 1, got '0'"),
    "true": (tf_config(index=True), "expected a task index of 0 to 1, got True"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_tf_config_that_is_malformed(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    text, words = MALFORMED[case]
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError) as caught:
        find_cluster()
    message = str(caught.value)
    assert message.startswith("TF_CONFIG: ")
    assert words in message
    assert "; expected something like {" in message
    assert "\n" not in message


def test_the_example_that_a_complaint_shows_is_a_good_one() -> None:
    with pytest.raises(UsageError) as caught:
        parse_tf_config("?")
    example = str(caught.value).partition("something like ")[2]
    assert len(parse_tf_config(example).workers) == 2


def test_another_number_of_workers_than_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config())
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(SharedUsageError, match="TF_CONFIG names 2 workers, but 4 were launched"):
        find_cluster()


def test_workers_named_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config([free_address(), "two:2222"]))
    assert find_cluster().index == 0


def test_a_port_in_use(monkeypatch: pytest.MonkeyPatch, listening: Callable) -> None:
    _, address = listening()
    monkeypatch.setenv("TF_CONFIG", tf_config(["two:2222", address], index=1))
    with pytest.raises(UsageError) as caught:
        find_cluster()
    message = str(caught.value)
    assert f"TF_CONFIG: worker 1 is to listen at {address}, and cannot (Address al" in message
    assert "choose another port" in message
    assert "\n" not in message


def test_alone_without_launcher() -> None:
    (worker,) = find_cluster().workers
    host, _, port = worker.rpartition(":")
    assert host == "127.0.0.1"
    socket.create_server(("127.0.0.1", int(port))).close()  # nobody holds it


def test_mpi_must_be_met_before_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setitem(sys.modules, "tensorflow", json)
    with pytest.raises(RuntimeError, match="before TensorFlow is imported"):
        find_cluster()


# Addresses of a host and of worker 0 -> where the others reach the host.
REACHABLE = {
    "one network": (["10.0.0.7/24"], ["10.0.0.1/24"], "10.0.0.7"),
    "the second is shared": (["172.17.0.1/16", "10.0.0.7/24"], ["10.0.0.1/24"], "10.0.0.7"),
    "dotted masks": (["192.168.1.5/255.255.255.0"], ["192.168.1.9/255.255.255.0"], "192.168.1.5"),
    "routed": (["10.1.0.7/24", "10.2.0.7/24"], ["10.0.0.1/24"], "10.1.0.7"),
    "both shared": (
        ["10.1.0.7/24", "10.2.0.7/24"], ["10.2.0.1/24", "10.1.0.1/24"], "10.1.0.7",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REACHABLE)
def test_the_address_that_worker_0_shares_a_network_with(case: str) -> None:
    mine, first, expected = REACHABLE[case]
    assert module._reachable(mine, first) == expected


def test_a_host_without_a_network() -> None:
    with pytest.raises(SharedUsageError, match="expected a network between the hosts"):
        module._reachable([], ["10.0.0.1/24"])


def test_addresses_are_of_networks_that_are_up() -> None:
    for address in module._addresses():
        assert not address.startswith("127.")
        assert module._reachable([address], [address]) == address.partition("/")[0]


WATCHING = """
import sys, time
from tf_mirrored.cluster import Cluster, watch_arrivals
arrived = watch_arrivals(Cluster(tuple(sys.argv[2:]), int(sys.argv[1])), 0.3)
time.sleep(20)
"""


def watched(run_cli: Callable, index: int, workers: list[str], **env: str) -> Any:
    return run_cli(["python", "-c", WATCHING, str(index), *workers], env=env, timeout=15)


def test_who_does_not_arrive_is_named(run_cli: Callable, listening: Callable) -> None:
    (_, here), there, lost = listening(), listening()[1], free_address()
    done = watched(run_cli, 0, [here, there, lost])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: expected 3 workers within 0.3 s, but worker 2 (")
    assert f"worker 2 ({lost}) did not arrive" in line
    assert there not in line
    assert "wait longer with --start-timeout" in line


def test_all_are_there_and_do_not_answer(run_cli: Callable, listening: Callable) -> None:
    (_, here), (_, there) = listening(), listening()
    done = watched(run_cli, 1, [here, there])
    assert done.returncode == 2
    assert "but some worker, though all of them listen, did not arrive" in done.stderr


@pytest.mark.parametrize(("index", "lines"), [(0, 1), (1, 0)])
def test_under_a_launcher_worker_0_speaks_for_all(
    run_cli: Callable, index: int, lines: int
) -> None:
    workers = [free_address(), free_address()]
    done = watched(run_cli, index, workers, OMPI_COMM_WORLD_RANK=str(index))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == lines


def test_whoever_arrives_in_time_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    arrived = watch_arrivals(Cluster((free_address(), free_address()), 0), 60)
    (thread,) = [t for t in threading.enumerate() if t.name == "ringsage-arrivals"]
    arrived.set()
    thread.join(5)
    assert not thread.is_alive()
    assert ended == []


def test_departure_is_when_nobody_else_listens(listening: Callable) -> None:
    (_, here), (other, there) = listening(), listening()
    cluster = Cluster((here, there), 0)
    before = time.monotonic()
    wait_for_departure(cluster, 0.2)
    assert time.monotonic() - before >= 0.2  # the other stayed: not for ever
    threading.Timer(0.1, other.close).start()
    wait_for_departure(cluster, 60)
    with pytest.raises(OSError):
        socket.create_connection(other_address(there), timeout=1)


def other_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def test_a_single_worker_waits_for_nobody(listening: Callable) -> None:
    wait_for_departure(Cluster((listening()[1],), 0), 60)
