"""The processes of a parameter server beside the coordinator: what a server and a worker do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from baselines.parameter_shard import ParameterShard
from baselines.parameter_worker import HandedOut, Push, Servers, Work
from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.data.store import array_sha256
from gnn_core.measure.machine import host_name
from gnn_core.network import host_and_port
from gnn_core.param_server import control_pb2 as messages
from gnn_core.param_server.coordinator import LONG_SECONDS
from gnn_core.param_server.rpc import (
    MOST_BYTES,
    SECRET_VARIABLE,
    Heartbeat,
    Peer,
    Service,
    end_with_parent,
    local_address,
    read_secret,
    require_port,
)
from gnn_core.training.preparation import open_graph
from gnn_core.training.state import RunProgress
from gnn_core.training.tasks import open_store, train_loader
from gnn_core.usage import Lost, UsageError
from horovod_gnn.learner import TorchLearner, set_up_torch
from horovod_gnn.models import build_model
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.update import build_optimizer

BEAT_SECONDS = 0.5
_PROTOCOL = 1  # of control.proto and what is meant by it
_RETRY_SECONDS = 0.2
_SLICE_SECONDS = 0.5  # of a wait; between two of them signals are handled


def version() -> str:
    """What must be alike in all processes, so that batches, steps and messages are."""
    return f"protocol {_PROTOCOL}, numpy {np.__version__}, torch {torch.__version__}"


def fingerprint_of(graph: Graph) -> str:
    """Of the graph and of the clusters that its targets are assigned by."""
    clusters = "" if graph.clusters is None else array_sha256(graph.clusters)
    return f"{graph.fingerprint}{clusters}"


class WorkerWorld(SingleProcess):
    """The world of a worker: it meets nobody, and computes one of several slices.

    Args:
        slices: of a global batch.
    """

    rank = 1  # not the one that speaks and writes

    def __init__(self, slices: int):
        super().__init__()
        self.rank_hosts = [host_name()] * 2
        self._slices = slices

    @property
    def num_replicas(self) -> int:
        """Into so many slices a batch is cut."""
        return self._slices

    @property
    def replica_hosts(self) -> list[str]:
        """This host: of the others it knows nothing."""
        return self.rank_hosts[:1]


class Membership:
    """This process as a member of the job, known to the coordinator by its heartbeat.

    Args:
        coordinator: of the job.
        role: `server` or `worker`.
        config: the run's, for how long to wait.
        address: of a server.
        lost: called, in a thread, when the coordinator has been silent for too long.

    Raises:
        UsageError: the coordinator does not answer in time, or refuses.
    """

    def __init__(
        self,
        coordinator: Peer,
        role: str,
        config: RunConfig,
        address: str = "",
        lost: Callable[[], None] = lambda: None,
    ):
        self.coordinator = coordinator
        self._role, self._config, self._address, self._lost = role, config, address, lost
        self._heart: Heartbeat | None = None
        self.join()

    def join(self) -> None:
        """Take part; once more, where the coordinator has taken this one for lost."""
        self.close()
        request = messages.JoinRequest(
            role=self._role,
            version=version(),
            host=host_name(),
            address=self._address,
            pid=os.getpid(),
        )
        answer = _first_answer(self.coordinator, request, self._config.start_timeout)
        self.number, self.slices = answer.member, answer.slices
        silence = self._config.collective_timeout
        self._heart = Heartbeat(
            self.coordinator, self._role, self.number, BEAT_SECONDS, silence, self._lost
        )

    def close(self) -> None:
        """Give no more signs of life."""
        if self._heart is not None:
            self._heart.close()

    def await_loaded(self, digest: str, fingerprint: str) -> Any:
        """Say that this worker is ready; messages.ReadyReply, once the servers are."""
        request = messages.ReadyRequest(worker=self.number, digest=digest, fingerprint=fingerprint)
        deadline = time.monotonic() + self._config.start_timeout
        while not (answer := self.coordinator.call("Ready", request)).term:
            if time.monotonic() > deadline:
                raise UsageError(
                    f"expected all servers and workers within {self._config.start_timeout:g} s, "
                    "and some have not joined: start all of them, or wait longer with "
                    "--start-timeout"
                )
            time.sleep(_RETRY_SECONDS)
        return answer


def run_server(config: RunConfig) -> int:
    """Hold a shard until the coordinator ends the run; the exit code. Raises UsageError or Lost."""
    coordinator, secret = _coordinator_of(config)
    member: Membership | None = None

    def reach(address: str) -> Peer:
        return Peer("Server", address, secret, "the standby", config.collective_timeout)

    def ask_alone() -> None:
        assert member is not None
        coordinator.call("Alone", messages.BeatRequest(role="server", member=member.number))

    shard = ParameterShard(reach, ask_alone)
    lost: list[bool] = []

    def lose() -> None:
        lost.append(True)
        shard.stopped.set()

    host, _ = require_port(coordinator.address, "--coordinator")
    service = Service("Server", shard, local_address(host), 0, secret, MOST_BYTES)
    member = Membership(coordinator, "server", config, service.address, lose)
    while not shard.stopped.wait(_SLICE_SECONDS):
        pass
    member.close()
    service.stop()
    if lost:
        raise Lost(f"the coordinator at {coordinator.address} answers no more")
    return 0


def run_worker(config: RunConfig) -> int:
    """Compute what the coordinator hands out; the exit code. Raises UsageError or Lost."""
    coordinator, secret = _coordinator_of(config)
    member = Membership(coordinator, "worker", config)
    world = WorkerWorld(member.slices)
    config, graph = open_graph(config, world, set_up_torch)
    work_on(config, graph, world, member, secret)
    return 0


def work_on(
    config: RunConfig, graph: Graph, world: WorkerWorld, member: Membership, secret: str
) -> None:
    """Compute what the coordinator hands out, until the run is over. Raises UsageError or Lost."""
    model = build_model(config, graph, world)
    store = open_store(config, graph, world)
    known = (config.digest(), fingerprint_of(graph))

    def rejoin() -> int:
        member.join()
        member.await_loaded(*known)
        return member.number

    def loader_of(slice_: int) -> Loader:
        return train_loader(config, graph, slice_, world.num_replicas, 0, store=store)

    def locate() -> Any:
        return member.await_loaded(*known)

    servers = Servers(model, config.compress, locate, secret, config.collective_timeout)
    work = Work(member.coordinator, member.number, rejoin)
    loader = HandedOut(loader_of, work, servers, config.prefetch > 0)
    update = Push(model, build_optimizer(config, model), work, servers)
    learner = TorchLearner(config, graph, world, loader, model, update, store)
    learner.warm_up()
    with servers.connected():
        learner.train_epoch(RunProgress(), lambda loss: None)  # all epochs, until it is over
    member.close()


def _coordinator_of(config: RunConfig) -> tuple[Peer, str]:
    """The coordinator that the settings name, and the secret of its job. Raises UsageError."""
    assert config.coordinator is not None
    host, port = require_port(config.coordinator, "--coordinator")
    secret = require_secret(config)
    if config.secret_file == "-":
        end_with_parent()
    address = host_and_port(host, port)
    return Peer(
        "Coordinator", address, secret, "the coordinator", config.collective_timeout
    ), secret


def require_secret(config: RunConfig) -> str:
    """The secret of the job. Raises UsageError where there is none."""
    secret = read_secret(config.secret_file)
    if secret is None:
        raise UsageError(
            f"--role {config.role}: expected the secret that all processes of the job share, got "
            f"none: set {SECRET_VARIABLE}, or name a file with --secret-file"
        )
    return secret


def _first_answer(coordinator: Peer, request: Any, seconds: float) -> Any:
    """What the coordinator says to the first call, as soon as it is there. Raises UsageError."""
    begun = time.monotonic()
    report_at = begun + LONG_SECONDS
    while True:
        try:
            return coordinator.call("Join", request)
        except Lost as error:
            now = time.monotonic()
            if now - begun > seconds:
                raise UsageError(
                    f"expected the coordinator at {coordinator.address} within {seconds:g} s, got "
                    f"no answer ({error}): start it, or wait longer with --start-timeout"
                ) from None
            if now > report_at:
                report_at = now + max(LONG_SECONDS, now - begun)
                print(f"waiting    for the coordinator at {coordinator.address}", flush=True)
            time.sleep(_RETRY_SECONDS)
