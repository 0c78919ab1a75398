"""What `gnn_core.deploy.hosts` asks on each host: its facts, its clock, whom it reaches.

It is started there by ssh, with the same Python, in the same folder. The first line of its input is
the request, the others are questions; each answer is a JSON object on a line behind MARK. It ends
with its input, and by itself after some minutes.
"""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gnn_core.data.datasets import find_cache, prepared_folder
from gnn_core.data.graph import Graph
from gnn_core.deploy.manifest_files import REPOSITORY
from gnn_core.env.granted import available_cores, available_memory_bytes
from gnn_core.env.probes import MARK, PROBES, probe
from gnn_core.files import reason
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.network import interface_towards, open_listener
from gnn_core.usage import UsageError

_PACKAGES = ("baselines", "gnn_core", "horovod_gnn", "ringsage", "tf_mirrored")
_AT_ONCE, _CONNECT_SECONDS, _ROUND_TRIPS = 64, 3.0, 10


def main() -> int:
    """Answer until the input ends; the exit code."""
    request = json.loads(sys.stdin.readline())
    signal.alarm(30 + 3 * int(request["seconds"]))  # of facts, clock and peers
    listener = open_listener(0)
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    _say(facts(request) | {"port": listener.getsockname()[1]})
    for line in sys.stdin:
        peers = json.loads(line)
        _say({"time": time.time()} if peers is None else {"reached": reach(peers)})
    return 0


def _say(answer: Mapping[str, Any]) -> None:
    print(f"{MARK}{json.dumps(answer)}", flush=True)


def facts(request: Mapping[str, Any]) -> dict[str, Any]:
    """All that is compared between hosts, as JSON types.

    `address` is that of the given interface, empty where there is none; None where the host is
    reached by its name.

    Args:
        request: `peer`, the name of another host of the job, `interface` (None: the one towards
            the peer), `dataset`, `cache_dir`, each or None; `frameworks`, whether to import Horovod
            and read how it was built; `seconds` that it may take.
    """
    peer, given = request["peer"], request["interface"]
    interface = given or (interface_towards(peer) if peer else None)
    found = machine.versions()
    return {
        "versions": found | (_horovod(request["seconds"]) if request["frameworks"] else {}),
        "source": source_digest(),
        "commit": machine.commit()[0],
        "dataset": _dataset(request["dataset"], request["cache_dir"]),
        "interface": interface,
        "address": _address_of(given) if given else None,
        "cores": available_cores(),
        "memory_bytes": available_memory_bytes(),
    }


def source_digest() -> str:
    """64 hex digits of all Python files of the packages, by name and content."""
    summed = hashlib.sha256()
    for file in sorted(file for name in _PACKAGES for file in (REPOSITORY / name).rglob("*.py")):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        summed.update(f"{file.relative_to(REPOSITORY).as_posix()} {content}\n".encode())
    return summed.hexdigest()


def reach(peers: Mapping[str, Sequence[Any]]) -> dict[str, float | str]:
    """By name of each peer [address, port]: its shortest round trip in seconds, or why none."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(peers, pool.map(lambda at: _round_trip(*at), peers.values()), strict=True))


def _round_trip(address: str, port: int) -> float | str:
    try:
        with socket.create_connection((address, port), _CONNECT_SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            trips = []
            for _ in range(_ROUND_TRIPS):
                begun = time.perf_counter()
                connection.sendall(b".")
                if not connection.recv(1):
                    return f"port {port} of {address}: closed by the other side"
                trips.append(time.perf_counter() - begun)
            return min(trips)
    except OSError as error:
        return f"port {port} of {address}: {reason(error)}"


def _serve(listener: socket.socket) -> None:
    """Send back what comes, for each peer on a thread of its own."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        connection.settimeout(_CONNECT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := connection.recv(64):
                connection.sendall(data)
        except OSError:
            return


def _horovod(seconds: float) -> dict[str, str]:
    """How Horovod was built, as the doctor reads it."""
    found = probe(PROBES["horovod"], seconds / 2)
    if found.error:
        return {"horovod's build": "none" if found.absent else found.error}
    parts = ("mpi", "gloo", "nccl", "cuda", "wakes")
    built = [name for name in parts if found.facts[0].get(name)]
    return {"horovod's build": f"with {' '.join(built) or 'nothing'}"}


def _dataset(name: str | None, cache_dir: str | None) -> dict[str, str] | None:
    """`digest` of the prepared graph, or `problem`; None where none was asked for."""
    if name is None:
        return None
    try:
        folder = prepared_folder(name, cache_dir)
        if folder is None:
            return {"problem": f"{name} is not prepared in {find_cache(cache_dir)}"}
        return {"digest": Graph.open(folder).fingerprint}
    except UsageError as error:
        return {"problem": str(error)}


def _address_of(interface: str) -> str:
    import psutil  # here, as in gnn_core.network

    found = psutil.net_if_addrs().get(interface, ())
    return next((str(one.address) for one in found if one.family == socket.AF_INET), "")


if __name__ == "__main__":
    sys.exit(guarded(main))
