"""The feature store of a run on parts: which parts a rank holds, and how it reaches the others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gnn_core.config import RunConfig, UsageError
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.data.part_topology import PartTopology
from gnn_core.data.partition.folder import Partition, read_meta
from gnn_core.data.partitioned_store import PartitionedStore, owned_parts, rank_bounds
from gnn_core.training.world import World
from gnn_core.usage import SharedUsageError, read_size


def partitioned_store(config: RunConfig, graph: Graph, world: World) -> PartitionedStore:
    """The store of a run with `--partitions`. Collective; raises UsageError on every rank."""
    with world.errors_on_all_ranks():
        partition, held = open_parts(config, graph, world)
        topology = None
        if not graph.has_indices:
            bounds = rank_bounds(partition, world.world_size)
            topology = PartTopology(graph, partition, held, world.rank, bounds, config.fetch_window)
    everyone = world.gather([partition.meta["digest"], len(held)])
    if len({digest for digest, _ in everyone}) > 1:
        raise SharedUsageError(
            f"--partitions {config.partitions}: expected parts of one partition on all hosts, got "
            "parts of several; copy all of them from where one was written"
        )
    hold_all = all(count == partition.num_parts for _, count in everyone)
    transport = None if hold_all else world.row_transport()
    if topology is not None:
        topology.transport = transport
    return PartitionedStore(
        partition,
        held,
        transport,
        window=config.fetch_window,
        cache_bytes=read_size(config.fetch_cache),
        wait=world.wait_for_thread,
        topology=topology,
    )


def open_parts(config: RunConfig, graph: Graph, world: World) -> tuple[Partition, list[int]]:
    """The partition, and which of its parts this rank reads. Raises UsageError."""
    assert config.partitions is not None
    k = read_meta(Path(config.partitions))["num_parts"]
    here = world.rank_hosts[world.rank]
    ranks = [
        rank
        for rank, host in enumerate(world.rank_hosts)
        if rank == world.rank or (config.share_parts and host == here)
    ]
    held = [part for rank in ranks for part in owned_parts(rank, k, world.world_size)]
    return open_partition(config, graph, held), held


def open_partition(config: RunConfig, graph: Graph, held: Iterable[int] = ()) -> Partition:
    """The partition, checked with the parts that are `held` here. Raises UsageError."""
    assert config.partitions is not None
    if isinstance(graph.features, SparseFeatures):
        raise UsageError(
            f"--partitions: expected dense features, got the sparse ones of graph {graph.name}, "
            "which are small: leave --partitions out"
        )
    partition = Partition.open(config.partitions, graph, held, config.verify)
    if not partition.num_features:
        raise UsageError(
            f"--partitions {config.partitions}: expected parts with features, got none; partition "
            "the graph with its features"
        )
    if not (graph.has_indices or partition.has_topology):
        why = f"{graph.folder} has no indices.npy"
        if config.partition_topology:
            why = "--partition-topology reads them"
        raise UsageError(
            f"--partitions {config.partitions}: expected parts with adjacency rows, since {why}, "
            "got none; partition the graph with --topology"
        )
    return partition


def require_parts_suffice(config: RunConfig, graph: Graph) -> None:
    """Raise UsageError for a run that needs more of a graph than its parts have."""
    if config.partitions is not None and config.table_dtype != "stored":
        raise UsageError(
            f"--table-dtype {config.table_dtype}: parts are read as they are stored; partition a "
            "graph with such features, or leave one of the two out"
        )
    problem = None
    if config.task == "link":
        problem = "--task link draws from all edges of the graph on every host"
    elif config.model == "gcn":
        problem = "--model gcn counts the edges from each node to itself on every host"
    if problem is not None and not graph.has_indices:
        change = "leave out --partition-topology" if config.partition_topology else "put it there"
        raise UsageError(
            f"{problem}: expected indices.npy of graph {graph.name} there, got adjacency rows in "
            f"parts alone; {change}"
        )
    if config.task == "link" and graph.features is not None and not graph.has_features:
        raise UsageError(
            "--task link trains on a graph with fewer edges, which is written with its features: "
            f"expected features.npy of {graph.name} there, got them in parts alone; put it there"
        )
