"""The world of a coordinator: it meets no ranks, and starts servers and workers if it is to."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import time
from pathlib import Path

from baselines.server_roles import fingerprint_of, require_secret, version
from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.measure.machine import host_name
from gnn_core.param_server import control_pb2 as messages
from gnn_core.param_server.coordinator import Coordinator, Job
from gnn_core.param_server.journal import Journal
from gnn_core.param_server.rpc import MOST_BYTES, Peer, Service, require_port
from gnn_core.training.world import Stopped
from gnn_core.usage import Lost, UsageError
from horovod_gnn.parallel import SingleProcess

PROGRAM = "baselines/param_server.py"
_ROOT = Path(__file__).resolve().parents[1]
_LOOK_SECONDS = 0.05
_END_SECONDS = 10.0  # in which processes end by themselves, and again after SIGTERM


class ServerWorld(SingleProcess):
    """The world of a coordinator.

    Args:
        config: the run's.
    """

    def __init__(self, config: RunConfig):
        super().__init__()
        self._config = config
        self._worker_hosts = [host_name()] * config.workers
        self._children: list[tuple[str, subprocess.Popen[str]]] = []
        self.peers: list[Peer] = []  # the server of each shard
        self.spares: dict[int, Peer] = {}  # shard -> its standby
        self._service: Service | None = None
        self.coordinator: Coordinator | None = None

    @property
    def num_replicas(self) -> int:
        """Into so many slices a batch is cut."""
        return len(self._worker_hosts)

    @property
    def replica_hosts(self) -> list[str]:
        """The host of each worker; until they have joined, this one."""
        return self._worker_hosts

    def open(self, config: RunConfig, graph: Graph) -> Coordinator:
        """Listen, start what is to be started, and wait for the servers.

        Raises UsageError where they do not come, Stopped by a signal.
        """
        starts_all = config.role == "all"
        secret = secrets.token_hex(16) if starts_all else require_secret(config)
        host, port = "127.0.0.1", 0
        if config.coordinator is not None:
            host, port = require_port(config.coordinator, "--coordinator")
        job = Job(version(), config.digest(), fingerprint_of(graph))
        self.coordinator = Coordinator(
            job,
            config.workers,
            config.servers,
            float(config.staleness),
            config.collective_timeout,
            config.standby,
        )
        self._service = Service("Coordinator", self.coordinator, host, port, secret, MOST_BYTES)
        if starts_all:
            num_servers = config.servers * (2 if config.standby else 1)
            for role, count in (("server", num_servers), ("worker", config.workers)):
                for number in range(count):
                    self._start(role, number, self._service.address, secret)
        elif not config.quiet:
            print(f"coordinator at {self._service.address}", flush=True)
        found = self.coordinator.await_servers(config.start_timeout, self.check_starting)
        self.peers, spares = (
            [
                Peer("Server", one, secret, name, config.collective_timeout, MOST_BYTES)
                for one in addresses
            ]
            for name, addresses in zip(("a server", "a standby"), found, strict=True)
        )
        self.spares = dict(enumerate(spares))
        return self.coordinator

    def replay(self, config: RunConfig, journal: Journal) -> Coordinator:
        """A coordinator of nobody, of whom only the placement of the journal is asked."""
        job = Job(journal.version, config.digest(), journal.fingerprint)
        coordinator = Coordinator(job, journal.slices, len(journal.chunks), 0, 1)
        coordinator.shards = [messages.Shard(chunks=some) for some in journal.chunks]
        return coordinator

    def await_workers(self) -> None:
        """Wait until all workers are ready. Raises as `open` does."""
        assert self.coordinator is not None
        self._worker_hosts = self.coordinator.await_workers(
            self._config.start_timeout, self.check_starting
        )

    def check_starting(self) -> None:
        """Raise UsageError where a process has ended before the run began, Stopped by a signal."""
        if self.stop_signal is not None:
            raise Stopped
        for name, child in self._children:
            if (code := child.poll()) is not None:
                raise UsageError(
                    f"expected {name} to join, got its end with exit code {code}: what it said is "
                    "above"
                )

    def check(self) -> None:
        """Tell the coordinator whose process has ended; let standbys take over.

        Raises Lost where a server has none, or no worker is left.
        """
        assert self.coordinator is not None
        for name, child in list(self._children):
            code = child.poll()
            if code is None:
                continue
            self._children.remove((name, child))
            self.coordinator.lose(host_name(), child.pid)
            if name.startswith("worker") and not any(
                other.startswith("worker") for other, _ in self._children
            ):
                raise Lost(
                    f"all workers have ended, the last with exit code {code}; start all again, "
                    "with --resume to go on from the last checkpoint"
                )
        while (shard := self.coordinator.lost_shard()) is not None:
            self.spares[shard].call("Promote", messages.Empty())
            self.peers[shard].close()
            self.peers[shard] = self.spares.pop(shard)
            self.coordinator.promoted(shard)

    def recover(self) -> None:
        """Wait until a standby has taken the place of a server that does not answer.

        Raises Lost where none does.
        """
        assert self.coordinator is not None
        before = self.coordinator.table
        deadline = time.monotonic() + self._config.collective_timeout + _END_SECONDS
        while self.coordinator.table == before:
            self.check()
            if time.monotonic() > deadline:
                raise Lost("a server answers no more; start all again, with --resume")
            time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """End the run: of servers and workers that were started here nothing is left."""
        if self.coordinator is not None:
            self.coordinator.finish(_END_SECONDS)
        for peer in [*self.peers, *self.spares.values()]:
            peer.seconds = _END_SECONDS
            with contextlib.suppress(Lost, UsageError):
                peer.call("Stop", messages.Empty())
            peer.close()
        self.peers, self.spares = [], {}
        for child in self._children:
            _end(child[1])
        if self._service is not None:
            self._service.stop()
            self._service = None
        self._children = []

    def leave(self) -> None:
        """Part at the end of a run that went well."""
        self.close()

    def _start(self, role: str, number: int, address: str, secret: str) -> None:
        """Start a server or a worker with the flags of this process."""
        words = [sys.executable, str(_ROOT / PROGRAM), *sys.argv[1:]]
        words += ["--role", role, "--coordinator", address, "--secret-file=-"]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, text=True, start_new_session=True)
        self._children.append((f"{role} {number}", child))
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended at once, which is noticed soon
            child.stdin.write(secret + "\n")
            child.stdin.flush()


def _end(child: subprocess.Popen[str]) -> None:
    """Wait for a process to end, and make it."""
    for act in (lambda: None, child.terminate, child.kill):
        act()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_END_SECONDS)
            break
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()
