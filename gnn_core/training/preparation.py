"""What happens before the first step: cores, data and the certainty that all ranks agree."""

from __future__ import annotations

import os

from gnn_core.config import OPTIONS, RunConfig, UsageError
from gnn_core.data.graph import Graph
from gnn_core.launch import placement_problem
from gnn_core.measure import machine
from gnn_core.measure.console import Console
from gnn_core.measure.records import require_writable
from gnn_core.settings.rules import label
from gnn_core.training.describe import num_weights, size
from gnn_core.training.tasks import open_for, targets_per_epoch
from gnn_core.training.world import World
from gnn_core.usage import SharedUsageError

_MAY_DIFFER = ("data_root", "cache_dir")  # a host may keep its copy of the graph elsewhere


def pin_to_cores(world: World, threads: int) -> None:
    """Tie this rank to its own `threads` cores of those the process may use. Raises UsageError."""
    cores = sorted(os.sched_getaffinity(0))
    ranks = world.rank_hosts.count(world.rank_hosts[world.rank])
    if ranks * threads > len(cores):
        raise UsageError(
            f"--pin: expected a core for each of {ranks} ranks x {threads} threads, got "
            f"{len(cores)} cores; leave out --pin or start fewer ranks"
        )
    first = world.local_rank * threads
    os.sched_setaffinity(0, cores[first : first + threads])


def require_launched_hosts(world: World) -> None:
    """Raise UsageError where ranks run on other hosts than the launch asked for."""
    if problem := placement_problem(world.rank_hosts):
        raise UsageError(problem)


def open_graph(config: RunConfig, world: World, console: Console) -> Graph:
    """Open the data set, preparing it once if need be; raises UsageError on every rank alike."""
    with world.errors_on_all_ranks():
        graph = open_for(config, console.tell)
        if world.rank == 0 and not config.dry_run:
            for flag in ("records", "checkpoint_dir", "tensorboard"):
                if folder := getattr(config, flag):
                    require_writable(folder, flag)
    return graph


def require_same_job(config: RunConfig, graph: Graph, world: World) -> None:
    """Compare configuration, data and versions of all ranks; raises UsageError on every rank."""
    settings = {k: v for k, v in config.to_dict().items() if k not in _MAY_DIFFER}
    mine = {
        "configuration": settings,
        "graph": {"fingerprint": graph.fingerprint[:12], "nodes": graph.num_nodes},
        "versions": machine.versions(),
        "world size": {"ranks": world.world_size},
    }
    everyone = world.gather(mine)
    for rank, theirs in enumerate(everyone):
        for what, first in everyone[0].items():
            if theirs[what] == first:
                continue
            names = [name for name in first if first[name] != theirs[what].get(name)]
            told = ", ".join(f"{n} {first[n]!r} and {theirs[what].get(n)!r}" for n in names)
            raise SharedUsageError(
                f"expected the same {what} on every rank, but rank 0 ({world.rank_hosts[0]}) "
                f"and rank {rank} ({world.rank_hosts[rank]}) differ: {told}; start all ranks "
                "with the same command, data and installation"
            )


def require_memory(config: RunConfig, graph: Graph, world: World) -> None:
    """Raise UsageError for a model that this host cannot hold, before anything is allocated.

    Counted is what no run can do without: weights, their gradients and, of the targets of one
    step, the hidden states. What else a step takes depends on the batches; --dry-run bounds it.
    """
    have = machine.memory_bytes()
    replicas = world.replica_hosts.count(world.rank_hosts[world.rank])
    width = 8 if config.precision == "fp64" else 4
    targets = min(config.global_batch_size, targets_per_epoch(config, graph))
    states = -(-targets // world.num_replicas) * config.hidden * (config.layers > 1)
    need = replicas * width * (2 * num_weights(config, graph) + states)
    if have is not None and need > have:
        raise UsageError(
            f"{label(OPTIONS['hidden'], config.origins)} {config.hidden}: expected a model that "
            f"fits into the memory of this host, {size(have)}, got {size(need)} for weights, "
            f"gradients and states of {replicas} replica{'s' * (replicas > 1)}: lower --hidden, "
            "--layers or --global-batch-size"
        )
