"""Runs of a parameter server whose processes are threads of this one, over real connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from baselines.param_server import build
from baselines.server_roles import run_server, run_worker
from baselines.server_world import ServerWorld
from gnn_core.config import RunConfig
from gnn_core.measure.resources.resource_sampler import ResourceSampler
from gnn_core.measure.run_record import RunRecord
from gnn_core.training.elastic_state import ElasticState
from gnn_core.training.trainer import Trainer
from tests.patience import patient

SECRET = "a secret of sixteen or more"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


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
    config = replace(
        config, role="coordinator", coordinator=address, collective_timeout=patient(10), quiet=True
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
