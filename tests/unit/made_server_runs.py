"""Runs of a parameter server whose processes are threads of this one, over real connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from baselines.param_server import build
from baselines.server_roles import run_server, run_worker, version
from baselines.server_world import ServerWorld
from gnn_core.config import RunConfig
from gnn_core.measure.resources.resource_sampler import ResourceSampler
from gnn_core.measure.run_record import RunRecord
from gnn_core.param_server import control_pb2 as messages
from gnn_core.param_server.rpc import Peer
from gnn_core.training.elastic_state import ElasticState
from gnn_core.training.trainer import Trainer
from gnn_core.usage import Lost
from tests.patience import patient

SECRET = "a secret of sixteen or more"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def coordinator_of(config: RunConfig, secret: str = SECRET) -> Peer:
    """The coordinator of a run, as another process would call it."""
    assert config.coordinator is not None
    return Peer("Coordinator", config.coordinator, secret, "the coordinator", patient(10))


def take_a_part_and_go(config: RunConfig) -> None:
    """Be a worker that is given something to do, and is never heard of again."""
    peer = coordinator_of(config)
    joined = messages.JoinRequest(role="worker", version=version(), host="gone", pid=1)
    number = until_there(lambda: peer.call("Join", joined)).member
    asked = messages.NextRequest(worker=number)
    deadline = time.monotonic() + patient(30)
    while not peer.call("Next", asked).HasField("part"):
        assert time.monotonic() < deadline


def until_there(call: Callable[[], Any]) -> Any:
    """What `call` returns as soon as the other side answers."""
    deadline = time.monotonic() + patient(30)
    while True:
        try:
            return call()
        except Lost:
            assert time.monotonic() < deadline
            time.sleep(0.1)


class Threads:
    """Servers and workers as threads; what they raise, `join` raises."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def start(self, work: Callable[[], Any]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                self.errors.append(error)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(patient(30))
            assert not thread.is_alive()
        for error in self.errors:
            raise error


def trained(
    config: RunConfig,
    more: Callable[[Threads, RunConfig], None] = lambda threads, config: None,
    look: Callable[[Trainer], None] = lambda trainer: None,
) -> RunRecord:
    """The record of a run of `config.workers` workers and `config.servers` servers.

    Args:
        config: of the run.
        more: may start more threads.
        look: is shown the trainer after the run.
    """
    address = f"127.0.0.1:{free_port()}"
    silence = patient(10) if config.collective_timeout == 60 else config.collective_timeout
    config = replace(
        config, role="coordinator", coordinator=address, collective_timeout=silence, quiet=True
    )
    threads = Threads()
    for role, run, count in (
        ("server", run_server, config.servers),
        ("worker", run_worker, config.workers),
    ):
        for _ in range(count):
            threads.start(lambda role=role, run=run: run(replace(config, role=role)))
    more(threads, config)
    world = ServerWorld(config)
    try:
        trainer = build(config, world)
        record = trainer.run(ElasticState(ResourceSampler(0)))
        look(trainer)
    finally:
        world.close()
    threads.join()
    return record


def replayed(config: RunConfig) -> RunRecord:
    """The record of a run that follows a journal."""
    config = replace(config, quiet=True)
    return build(config, ServerWorld(config)).run(ElasticState(ResourceSampler(0)))
