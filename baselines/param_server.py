"""Train GraphSAGE with a parameter server: servers hold the weights, workers compute gradients.

    python baselines/param_server.py --workers 4 --servers 2 --dataset cora
    python baselines/param_server.py --workers 4 --staleness 3      # up to three steps ahead
    python baselines/param_server.py --workers 4 --staleness inf    # asynchronous

The roles start alone, too, on one host or on several; all of them know a secret:

    export RINGSAGE_JOB_SECRET=$(openssl rand -hex 16)
    python baselines/param_server.py --role coordinator --coordinator 10.0.0.7:7000 --workers 2
    python baselines/param_server.py --role server --coordinator 10.0.0.7:7000
    python baselines/param_server.py --role worker --coordinator 10.0.0.7:7000

With --staleness 0 (the default) the loss curve is that of one process, whatever the number of
workers and servers. The same model, loader and records as `horovod_gnn/train.py`.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    gc.disable()  # until all is imported: collecting garbage meanwhile takes half a second

from gnn_core.launch import by_srun, guarded, launched_size, require_packages

if __name__ == "__main__":
    require_packages("torch", "grpc")

from baselines.replay import LocalServer, ReplayLearner
from baselines.served_learner import ServedLearner, ServedParameters
from baselines.server_roles import fingerprint_of, run_server, run_worker, version
from baselines.server_world import ServerWorld
from gnn_core.config import RunConfig, UsageError, parse_config
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.param_server.journal import Journal, read_journal
from gnn_core.strategies import STRATEGIES
from gnn_core.training.job import run_job
from gnn_core.training.preparation import open_graph
from gnn_core.training.tasks import open_store, train_loader
from gnn_core.training.trainer import Trainer
from gnn_core.usage import SharedUsageError
from horovod_gnn.learner import set_up_torch
from horovod_gnn.models import build_model

NAME = "param-server"


def build(config: RunConfig, world: ServerWorld) -> Trainer:
    """All that a run consists of, in the order in which data flows through it."""
    if config.norm == "batch":
        raise UsageError(
            "--norm batch: expected a norm that no other worker is asked for, got that of all "
            "targets of a step; use layer or none"
        )
    config, graph = open_graph(config, world, set_up_torch)  # memory-mapped: one copy a host
    if config.replay is not None:
        return build_replay(config, graph, world)
    store = open_store(config, graph, world)
    loader = train_loader(config, graph, 0, world.num_replicas, 0, store=store)
    model = build_model(config, graph, world)  # the weights that the servers begin with
    coordinator = world.open(config, graph)
    parameters = ServedParameters(
        coordinator, world.peers, config, model, world.spares, world.recover
    )
    parameters.load()
    coordinator.loaded()
    world.await_workers()
    journal = None
    if config.journal is not None:
        chunks = [list(shard.chunks) for shard in coordinator.shards]
        known = (config.digest(), fingerprint_of(graph), version())
        journal = Journal(*known, slices=world.num_replicas, chunks=chunks)
    learner = ServedLearner(
        config, graph, world, loader, model, parameters, coordinator, world.check, store, journal
    )
    return Trainer(NAME, config, graph, world, learner)


def build_replay(config: RunConfig, graph: Graph, world: ServerWorld) -> Trainer:
    """The run of a journal, made once more by this process."""
    journal = read_journal(Path(config.replay or ""))
    for what, expected, got in (
        ("settings", journal.digest, config.digest()),
        ("graph", journal.fingerprint, fingerprint_of(graph)),
        ("program", journal.version, version()),
        ("--workers", str(journal.slices), str(world.num_replicas)),
    ):
        if got != expected:
            raise UsageError(
                f"--replay {config.replay}: expected the {what} of its run ({expected[:60]}), got "
                f"{got[:60]}: give the same flags, data and installation"
            )
    store = open_store(config, graph, world)

    def loader_of(slice_: int) -> Loader:
        return train_loader(config, graph, slice_, world.num_replicas, 0, store=store)

    model = build_model(config, graph, world)
    coordinator = world.replay(config, journal)
    servers = [LocalServer() for _ in journal.chunks]
    parameters = ServedParameters(coordinator, servers, config, model)
    parameters.load()
    loader = loader_of(0)
    learner = ReplayLearner(
        config, graph, world, loader, model, parameters, coordinator, lambda: None, store
    )
    learner.follow(journal, servers, loader_of)
    return Trainer(NAME, config, graph, world, learner)


def main() -> int:
    """Read the command line and be what --role says; the exit code."""
    config = parse_config(None, NAME, STRATEGIES[NAME].refuses)
    if launched_size() > 1 and not (by_srun() and config.role in ("server", "worker")):
        raise SharedUsageError(
            f"expected one process, got {launched_size()} copies of it: it starts its workers by "
            "itself; start it with `python baselines/param_server.py --workers 4`"
        )
    if config.role == "server":
        return run_server(config)
    if config.role == "worker":
        return run_worker(config)
    world = ServerWorld(config)
    try:
        return run_job(lambda: config, lambda agreed: world, build)
    finally:
        world.close()


if __name__ == "__main__":
    sys.exit(guarded(main))
