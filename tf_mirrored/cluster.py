"""Who the workers are: TF_CONFIG, made from the MPI world where there is one. No TensorFlow here.

MPI is met, and left again, before TensorFlow is imported: TensorFlow's library exports symbols of
a hwloc of its own, and Open MPI's shutdown would call those and crash.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import sys
import time
from dataclasses import dataclass

from gnn_core.joining import call_in_time, waited_for_by_mpi
from gnn_core.launch import launched_size, require_mpi_launcher, under_launcher
from gnn_core.network import addresses, bypass_proxies, host_and_port, open_listener, reachable
from gnn_core.usage import SharedUsageError, UsageError

_EXAMPLE = (
    '{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", "index": 0}}'
)
_GREETING = "ringsage-worker"
_LONG_SECONDS = 5.0  # until it is printed what is waited for


@dataclass(frozen=True)
class Cluster:
    """The workers of a job."""

    workers: tuple[str, ...]  # host:port of each
    index: int  # of this one

    @property
    def port(self) -> int:
        """Where this worker listens."""
        return int(self.workers[self.index].rpartition(":")[2])

    def to_tf_config(self) -> str:
        """As TensorFlow reads it."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.workers)}, "task": task})


def find_cluster(seconds: float) -> Cluster:
    """The workers of this job: TF_CONFIG's, else those that MPI has started, else this one alone.

    All of them are there when it returns, and no proxy stands between them. Raises UsageError
    where TF_CONFIG is malformed, differs from the MPI world, where this worker's port is taken, or
    where a worker does not come within `seconds`.
    """
    cluster = _find(seconds)
    bypass_proxies(address.rpartition(":")[0] for address in cluster.workers)
    return cluster


def _find(seconds: float) -> Cluster:
    given = os.environ.get("TF_CONFIG")
    if given:
        cluster = parse_tf_config(given)
        _require_same_world(cluster)
        _require_free_port(cluster)
        meet(cluster, seconds)
        return cluster
    require_mpi_launcher()
    if under_launcher():
        return call_in_time(_from_mpi, seconds, waited_for_by_mpi)
    return Cluster((f"127.0.0.1:{_free_port()[1]}",), 0)


def parse_tf_config(text: str) -> Cluster:
    """Read TF_CONFIG; raises UsageError with what it should look like."""

    def wrong(what: str) -> UsageError:
        return UsageError(f"TF_CONFIG: {what}; expected something like {_EXAMPLE}")

    try:
        content = json.loads(text)
        roles = dict(content["cluster"])
        task, index = str(content["task"]["type"]), content["task"]["index"]
        workers = roles.pop("worker")
    except json.JSONDecodeError as error:
        raise wrong(f"it is not JSON ({error})") from None
    except RecursionError:
        raise wrong("it is nested too deeply") from None
    except (KeyError, TypeError, ValueError) as error:
        raise wrong(f"it lacks a cluster of workers or a task ({error})") from None
    if strangers := sorted({*roles, task} - {"worker"}):
        raise wrong(f"expected workers only, got a {strangers[0]}")
    if not isinstance(workers, list):
        raise wrong(f"expected a list of workers, got {workers!r}")
    for worker in workers:
        host, colon, port = str(worker).rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
            raise wrong(f"expected host:port, got the worker {worker!r}")
    if not workers or len(set(workers)) < len(workers):
        raise wrong(f"expected workers that differ, got {workers}")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(workers):
        raise wrong(f"expected a task index of 0 to {len(workers) - 1}, got {index!r}")
    return Cluster(tuple(workers), index)


def meet(cluster: Cluster, seconds: float) -> None:
    """Wait until every worker is there, at most so long; each then knows that all are.

    TensorFlow waits an hour for a worker, and nothing in Python can run or interrupt it meanwhile.
    So the workers meet before it starts, at the port of worker 0, which sends them who is missing.

    Raises:
        UsageError: some did not come; it names them.
    """
    deadline = time.monotonic() + seconds
    if cluster.index == 0:
        missing = _receive(cluster, deadline)
    else:
        missing = _report(cluster, deadline)
    if missing:
        who = ", ".join(f"worker {index} ({cluster.workers[index]})" for index in missing)
        raise UsageError(
            f"expected {len(cluster.workers)} workers within {seconds:g} s, but {who} did not "
            "arrive: start it, or wait longer with --start-timeout"
        )


def _receive(cluster: Cluster, deadline: float) -> list[int]:
    """Worker 0: let the others report, and send them who is missing."""
    everyone = set(range(1, len(cluster.workers)))
    arrived: dict[int, socket.socket] = {}
    with open_listener(cluster.port) as listener:
        while arrived.keys() != everyone and (left := deadline - time.monotonic()) > 0:
            listener.settimeout(min(left, _LONG_SECONDS))
            try:
                guest, _ = listener.accept()
                guest.settimeout(_LONG_SECONDS)
                name, index = guest.recv(64).decode(errors="replace").split()
            except TimeoutError:
                waited_for = ", ".join(map(str, sorted(everyone - arrived.keys())))
                print(f"waiting    for worker {waited_for}", flush=True)
                continue
            except (OSError, ValueError):
                continue  # a port scanner or a health check
            if name == _GREETING and index.isdecimal() and int(index) in everyone:
                arrived[int(index)] = guest
    missing = sorted(everyone - arrived.keys())
    for guest in arrived.values():
        with contextlib.suppress(OSError):
            guest.sendall(json.dumps(missing).encode())
            guest.shutdown(socket.SHUT_WR)
            guest.recv(1)  # the guest hangs up first, so that the port is free at once
        guest.close()
    return missing


def _report(cluster: Cluster, deadline: float) -> list[int]:
    """Any other worker: report to worker 0, and hear who is missing."""
    host, _, port = cluster.workers[0].rpartition(":")
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=2) as connection:
                connection.sendall(f"{_GREETING} {cluster.index}".encode())
                # Worker 0 may have begun to wait later than this one.
                connection.settimeout(max(1.0, deadline - time.monotonic()) + 2 * _LONG_SECONDS)
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
                return [int(index) for index in json.loads(answer)]
        except (OSError, ValueError):
            time.sleep(0.2)
    return [0]


def wait_for_departure(cluster: Cluster, seconds: float = 10.0) -> None:
    """Wait until no other worker listens any more, at most so long.

    Worker 0 serves the coordination of all; were it the first to leave, the others would complain.
    """
    deadline = time.monotonic() + seconds
    others = len(cluster.workers) - 1
    while len(silent_workers(cluster)) < others and time.monotonic() < deadline:
        time.sleep(0.05)


def silent_workers(cluster: Cluster) -> list[int]:
    """The other workers that do not listen."""
    return [
        index
        for index, address in enumerate(cluster.workers)
        if index != cluster.index and not _answers(address)
    ]


def _from_mpi() -> Cluster:
    if "tensorflow" in sys.modules:
        raise RuntimeError("the MPI world must be asked before TensorFlow is imported")
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False  # both are done below, at once
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"expected mpi4py, to learn who the workers are, got {error}: run `make install`, or "
            "set TF_CONFIG"
        ) from None
    if not MPI.Is_initialized():
        # mpi4py's own Init would hold the interpreter until the last rank has come.
        ctypes.CDLL(MPI.__file__).MPI_Init(None, None)
    world = MPI.COMM_WORLD
    rank, size = world.rank, world.size
    if size != launched_size():
        raise SharedUsageError(
            f"{launched_size()} workers were launched, but MPI sees {size}: launch with mpirun (or "
            "horovodrun over MPI) of this environment, or set TF_CONFIG"
        )
    held, port = _free_port()
    everyone = world.allgather((socket.gethostname(), addresses(), port))
    held.close()
    MPI.Finalize()
    local = len({host for host, _, _ in everyone}) == 1
    workers = []
    for _, theirs, their_port in everyone:
        address = "127.0.0.1" if local else reachable(theirs, everyone[0][1])
        if address is None:
            raise SharedUsageError(
                "expected a network between the hosts, got none on one of them; set TF_CONFIG"
            )
        workers.append(host_and_port(address, their_port))
    return Cluster(tuple(workers), rank)


def _free_port() -> tuple[socket.socket, int]:
    """A port that nobody uses, and the socket that holds it until it is closed."""
    held = open_listener(0)
    return held, held.getsockname()[1]


def _require_same_world(cluster: Cluster) -> None:
    size = launched_size()
    if under_launcher() and size > 1 and size != len(cluster.workers):
        raise SharedUsageError(
            f"TF_CONFIG names {len(cluster.workers)} workers, but {size} were launched: unset "
            "TF_CONFIG to take those, or launch as many"
        )


def _require_free_port(cluster: Cluster) -> None:
    address = cluster.workers[cluster.index]
    try:
        open_listener(cluster.port).close()
    except OSError as error:
        raise UsageError(
            f"TF_CONFIG: worker {cluster.index} is to listen at {address}, and cannot "
            f"({error.strerror}): choose another port, or end the program that holds it"
        ) from None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True
