"""What happens before the first step: data, cores and the certainty that all ranks agree."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from gnn_core.config import OPTIONS, RunConfig, UsageError
from gnn_core.data.graph import Graph
from gnn_core.data.store import array_sha256
from gnn_core.launch import placement_problem
from gnn_core.measure import machine
from gnn_core.measure.console import Console
from gnn_core.measure.records import require_writable
from gnn_core.number_text import size
from gnn_core.settings.rules import label
from gnn_core.training import describe
from gnn_core.training.memory_plan import num_weights, plan_memory
from gnn_core.training.parts import open_partition
from gnn_core.training.tasks import facts_of, open_clusters, open_for, targets_per_epoch
from gnn_core.training.world import World
from gnn_core.usage import SharedUsageError

# A host may keep its copies elsewhere.
_MAY_DIFFER = ("data_root", "cache_dir", "partitions")
_W = TypeVar("_W", bound=World)


class DryRun(Exception):
    """What would run has been printed: there is nothing more to do."""


def open_graph(
    config: RunConfig, world: _W, set_up: Callable[[RunConfig, _W], None]
) -> tuple[RunConfig, Graph]:
    """The settings with the recipe of the graph filled in, and the graph.

    All that can be refused before a model is made is refused here, on every rank alike: settings
    that do not fit the ranks or the machine, data that are missing or differ, too little memory.

    Args:
        config: as the user gave it.
        world: the other ranks.
        set_up: checks what the framework needs of the machine, and sets it; may be called twice.

    Raises:
        UsageError: see above; on every rank.
        DryRun: after `--dry-run` has printed what would run.
    """
    console = Console.of(config, world.rank)
    with world.errors_on_all_ranks():
        require_launched_hosts(world)
        config = config.with_model_sha256()
        _set_up(config, world, set_up)
    with world.errors_on_all_ranks():
        graph = open_for(config, console.progress)
        if world.rank == 0 and not config.dry_run:
            for flag in ("records", "checkpoint_dir", "tensorboard"):
                if folder := getattr(config, flag):
                    require_writable(folder, flag)
    with world.errors_on_all_ranks():
        config = config.for_graph(facts_of(config, graph))
        _set_up(config, world, set_up)
        if config.dry_run and config.partitions is not None:
            open_partition(config, graph)  # other runs open it later, with the parts of each rank
        if not config.dry_run:
            require_memory(config, graph, world)
            graph = open_clusters(config, graph, world.num_replicas, console.progress)
    require_same_job(config, graph, world)
    with world.errors_on_all_ranks():
        plan = plan_memory(config, graph, world)
        config = plan.applied(config, graph)
    if plan.note is not None:
        console.progress(f"note       {plan.note}")
    if config.dry_run:
        console.say(describe.dry_run(config, graph, world, plan))
        raise DryRun
    if config.pin:
        with world.errors_on_all_ranks():
            pin_to_cores(world, config.threads)
    return config, graph


def _set_up(config: RunConfig, world: _W, set_up: Callable[[RunConfig, _W], None]) -> None:
    """Check the settings against the ranks and the machine, and set that up. UsageError."""
    config.validate_world(world.num_replicas)
    if world.elastic:
        config.validate_elastic()
    set_up(config, world)


def pin_to_cores(world: World, threads: int) -> None:
    """Tie this rank to its own `threads` cores of those the process may use. Raises UsageError."""
    cores = sorted(os.sched_getaffinity(0))
    if world.elastic and len(cores) == threads:  # tied to them in an earlier world
        return
    ranks = world.processes_here
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


def require_same_job(config: RunConfig, graph: Graph, world: World) -> None:
    """Compare configuration, data and versions of all ranks; raises UsageError on every rank."""
    settings = {k: v for k, v in config.to_dict().items() if k not in _MAY_DIFFER}
    clusters = None if graph.clusters is None else array_sha256(graph.clusters)[:12]
    facts = {
        "fingerprint": graph.fingerprint[:12],
        "nodes": graph.num_nodes,
        "clusters": clusters,
        "adjacency": "whole" if graph.has_indices else "in parts",
    }
    mine = {
        "configuration": settings,
        "graph": facts,
        "versions": machine.versions(),
        "world size": {"ranks": world.world_size},
    }
    everyone = world.gather(mine)
    for rank, theirs in enumerate(everyone):
        for what, first in everyone[0].items():
            if theirs[what] == first:
                continue
            names = [name for name in first if first[name] != theirs[what].get(name)]
            both = ", ".join(f"{n} {first[n]!r} and {theirs[what].get(n)!r}" for n in names)
            raise SharedUsageError(
                f"expected the same {what} on every rank, but rank 0 ({world.rank_hosts[0]}) "
                f"and rank {rank} ({world.rank_hosts[rank]}) differ: {both}; start all ranks "
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
        has, takes = size(have), size(need)
        raise UsageError(
            f"{label(OPTIONS['hidden'], config.origins)} {config.hidden}: expected a model that "
            f"fits into the memory of this host, {has}, got {takes} for weights, gradients and "
            f"states of {replicas} replica{'s' * (replicas > 1)}: lower --hidden, --layers or "
            "--global-batch-size"
        )
