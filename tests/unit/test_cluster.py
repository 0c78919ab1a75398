"""Who the workers are, without TensorFlow: TF_CONFIG, ports, addresses, arrivals, departures."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from gnn_core.usage import SharedUsageError, UsageError
from tf_mirrored import cluster as module
from tf_mirrored.cluster import (
    Cluster,
    find_cluster,
    meet,
    parse_tf_config,
    silent_workers,
    wait_for_departure,
)

TWO = ("one:2222", "two:2222")
LAUNCHED = (
    "OMPI_COMM_WORLD_RANK",
    "HOROVOD_RANK",
    "PMI_RANK",
    "RANK",
    "OMPI_COMM_WORLD_SIZE",
    "HOROVOD_SIZE",
    "PMI_SIZE",
    "WORLD_SIZE",
)


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
        find_cluster(0.5)
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
        find_cluster(0.5)


def test_workers_named_by_hand_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config([free_address()]))
    assert find_cluster(0.5).index == 0
    monkeypatch.setenv("TF_CONFIG", tf_config([free_address(), "two:2222"]))
    with pytest.raises(UsageError, match=r"but worker 1 \(two:2222\) did not arrive"):
        find_cluster(0.5)


def test_a_port_in_use(monkeypatch: pytest.MonkeyPatch, listening: Callable) -> None:
    _, address = listening()
    monkeypatch.setenv("TF_CONFIG", tf_config(["two:2222", address], index=1))
    with pytest.raises(UsageError) as caught:
        find_cluster(0.5)
    message = str(caught.value)
    assert f"TF_CONFIG: worker 1 is to listen at {address}, and cannot (Address al" in message
    assert "choose another port" in message
    assert "\n" not in message


def test_alone_without_launcher() -> None:
    (worker,) = find_cluster(0.5).workers
    host, _, port = worker.rpartition(":")
    assert host == "127.0.0.1"
    socket.create_server(("127.0.0.1", int(port))).close()  # nobody holds it


def test_mpi_must_be_met_before_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setitem(sys.modules, "tensorflow", json)
    with pytest.raises(RuntimeError, match="before TensorFlow is imported"):
        find_cluster(0.5)


# -- rendezvous ----------------------------------------------------------------------------------


def all_meet(
    workers: Sequence[str], present: Sequence[int], seconds: float, delays: Sequence[float] = ()
) -> list[str | None]:
    """Let the present workers meet, some later than others; what each is told, if anything."""
    reported: list[str | None] = [None] * len(present)

    def arrive(position: int) -> None:
        if delays:
            time.sleep(delays[position])
        try:
            meet(Cluster(tuple(workers), present[position]), seconds)
        except UsageError as error:
            reported[position] = str(error)

    threads = [threading.Thread(target=arrive, args=(n,)) for n in range(len(present))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return reported


def free_addresses(count: int) -> list[str]:
    """So many addresses that differ, where nobody listens."""
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]


@pytest.mark.parametrize(
    "delays", [(), (0.5, 0, 0), (0, 0.5, 0.2)], ids=["at once", "worker 0 last", "worker 1 last"]
)
def test_workers_meet_and_leave_the_port_free(delays: tuple[float, ...]) -> None:
    workers = free_addresses(3)
    assert all_meet(workers, [0, 1, 2], 10, delays) == [None] * 3
    for worker in workers:  # TensorFlow will listen there
        socket.create_server(("", Cluster((worker,), 0).port)).close()


def test_a_worker_alone_meets_nobody() -> None:
    assert all_meet(free_addresses(1), [0], 10) == [None]


def test_all_who_came_learn_who_is_missing() -> None:
    workers = free_addresses(4)
    reported = all_meet(workers, [0, 2], 0.5)
    missing = f"worker 1 ({workers[1]}), worker 3 ({workers[3]})"
    for complaint in reported:
        assert complaint is not None
        assert complaint.startswith(f"expected 4 workers within 0.5 s, but {missing} did not ar")
        assert "wait longer with --start-timeout" in complaint


def test_without_worker_0_there_is_nobody_to_meet() -> None:
    workers = free_addresses(2)
    (reported,) = all_meet(workers, [1], 0.5)
    assert reported is not None
    assert f"but worker 0 ({workers[0]}) did not arrive" in reported


def test_strangers_at_the_door_are_sent_away() -> None:
    workers = free_addresses(2)
    host, port = other_address(workers[0])
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"ringsage-worker 7", b"ringsage-worker x"):
        waiting = threading.Thread(target=all_meet, args=(workers, [0], 10))
        waiting.start()
        stranger = connected(host, port)
        stranger.sendall(said)
        stranger.close()
        assert all_meet(workers, [1], 10) == [None]
        waiting.join(20)
        assert not waiting.is_alive()


def connected(host: str, port: int) -> socket.socket:
    """A connection to somebody who may begin to listen only now."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((host, port), timeout=1)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_long_wait_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LONG_SECONDS", 0.2)
    assert all_meet(free_addresses(3), [0, 1], 0.5)[0] is not None
    assert capsys.readouterr().out.splitlines()[-1] == "waiting    for worker 2"


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


def test_who_does_not_listen_is_silent(listening: Callable) -> None:
    (_, here), (_, there), lost = listening(), listening(), free_address()
    assert silent_workers(Cluster((here, there, lost), 0)) == [2]
    assert silent_workers(Cluster((lost, there), 0)) == []


def test_a_single_worker_waits_for_nobody(listening: Callable) -> None:
    wait_for_departure(Cluster((listening()[1],), 0), 60)
