"""What memory a run will take, and from it whether features stay on disk and how many are cached.

`preparation` asks before anything is allocated, and `describe` for --dry-run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gnn_core import models
from gnn_core.config import OPTIONS, RunConfig, UsageError
from gnn_core.data.checks import index_dtype
from gnn_core.data.disk_reads import MOST_RUN_BYTES, QUEUE_DEPTH
from gnn_core.data.disk_store import DiskStore
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.data.mapped import expect_random_reads
from gnn_core.data.pair_common import MOST_COMMON, reads_common
from gnn_core.data.pair_structure import structure_bytes, structure_width
from gnn_core.data.planned_cache import PlannedCache
from gnn_core.data.positions import scratch_bytes
from gnn_core.measure import machine
from gnn_core.models import ModelSettings
from gnn_core.number_text import size
from gnn_core.settings.rules import label
from gnn_core.training.evaluate import CHUNK_EDGES, CHUNK_NODES
from gnn_core.training.link_ranking import CHUNK_PAIRS
from gnn_core.training.tasks import most_targets, train_loader
from gnn_core.training.world import World
from gnn_core.usage import read_size

_BATCHES_DIFFER = 1.25  # how much larger than the first batch others are taken to be
_CACHE_BYTES = 1 << 30  # where nobody knows how much memory there is
_PROGRAM_BYTES = 450 << 20
_OF_TRAINING = ("weights, gradients and optimizer", "one training step", "batches drawn ahead")


@dataclass(frozen=True)
class MemoryPlan:
    """Where features are read from, and what a process takes then."""

    store: str  # memory | disk
    needs: dict[str, int]  # bytes of a process by use, its share of the mapped graph included
    cache_bytes: int = 0  # of features on disk
    adjacency_fits: bool = True  # the neighbours of all nodes have room in the page cache
    note: str | None = None

    def applied(self, config: RunConfig, graph: Graph) -> RunConfig:
        """The settings with what the plan decides; the graph's map is told how it will be read."""
        if not self.adjacency_fits:
            expect_random_reads(graph.indices)
        if self.store == "memory":
            asked = config.feature_store == "disk"
            return replace(config, feature_store="memory") if asked else config
        cache = config.disk_cache or f"{self.cache_bytes >> 20}MiB"
        origins = {"feature_store": "planned", "disk_cache": "planned", **config.origins}
        return replace(config, feature_store="disk", disk_cache=cache, origins=origins)


def plan_memory(config: RunConfig, graph: Graph, world: World, trains: bool = True) -> MemoryPlan:
    """Decide where features are read from, and how many of them are cached.

    Args:
        config: the run's, with the recipe of the graph filled in.
        graph: what it trains or predicts on.
        world: the other ranks, of which those of this host share its memory.
        trains: whether there are training steps, or evaluation alone.

    Raises:
        UsageError: --memory-limit is less than the run takes.
    """
    limit, wanted = _limit(config, world), config.feature_store
    # The parts of a partition are mapped, and each host has its own.
    is_mapped = isinstance(graph.features, np.memmap) and config.partitions is None
    note = None
    if wanted == "disk" and not is_mapped:
        kind = "sparse" if isinstance(graph.features, SparseFeatures) else "in no file"
        note = f"the features of {graph.name} are {kind}: --feature-store disk leaves them mapped"
    if wanted != "disk" or not is_mapped:
        needs = _needs_in_memory(config, graph, world, trains, None)
        if limit is None or sum(needs.values()) <= limit:
            return MemoryPlan("memory", needs, note=note)
    # Where the adjacency lies in parts, only all ranks together can draw a batch.
    nodes = _first_batch(config, graph, world) if trains and graph.has_indices else None
    needs = _needs_in_memory(config, graph, world, trains, nodes)
    fits = limit is None or sum(needs.values()) <= limit
    if wanted == "memory" or not is_mapped or (wanted == "auto" and fits):
        if config.memory_limit is not None and not fits:
            raise _too_low(config, needs, " or --feature-store disk" * is_mapped)
        return MemoryPlan("memory", needs, note=note)
    return _plan_disk(config, graph, world, trains, nodes)


def _plan_disk(
    config: RunConfig, graph: Graph, world: World, trains: bool, nodes: list[float] | None
) -> MemoryPlan:
    """Share what is left of the limit between neighbours and the cache of features."""
    row_bytes = graph.feature_bytes // max(1, graph.num_nodes)
    asked = None if config.disk_cache is None else read_size(config.disk_cache)
    of_batches = int(nodes[-1]) * (config.prefetch + 1) * row_bytes if nodes else 0
    # Steps that read rows in the cache need no others, if it has room for them.
    in_cache = of_batches if world.reads_in_place and asked is None else 0
    needs = _needs_on_disk(config, graph, world, trains, nodes, of_batches - in_cache)
    limit = _limit(config, world)
    if limit is None:
        limit = sum(needs.values()) + in_cache + _CACHE_BYTES
    else:
        needs = {**needs, "left free": limit // 20}
    whole = PlannedCache.bytes_of(graph.num_nodes, row_bytes, graph.num_nodes)
    least = in_cache if asked is None else asked
    left = limit - sum(needs.values()) - least - DiskStore.batch_bytes(least)
    if left < 0 and config.memory_limit is not None:
        raise _too_low(config, {**needs, "cache of features": least}, "")
    left = max(0, left)
    neighbours = graph.indices.nbytes // world.processes_here
    room = min(neighbours, left // (2 if asked is None else 1))
    cache = asked
    if cache is None:
        more = left - room
        cache = min(least + more - DiskStore.batch_bytes(more), whole)
    needs |= {
        "neighbours, in the page cache": room,
        "cache of features": cache,
        "batches drawn to plan the cache": DiskStore.batch_bytes(cache),
    }
    return MemoryPlan("disk", needs, cache, adjacency_fits=room == neighbours)


def _limit(config: RunConfig, world: World) -> int | None:
    """What a process may take: what was given, or its share of what this host has."""
    if config.memory_limit is not None:
        return read_size(config.memory_limit)
    have = machine.memory_bytes()
    return None if have is None else have // world.processes_here


def _too_low(config: RunConfig, needs: dict[str, int], more: str) -> UsageError:
    rows = ", ".join(f"{name} {size(count)}" for name, count in needs.items() if count >= 1 << 20)
    return UsageError(
        f"{label(OPTIONS['memory_limit'], config.origins)} {config.memory_limit}: expected at "
        f"least {size(sum(needs.values()))} ({rows}); raise it, or lower --global-batch-size, "
        f"--fanouts or --prefetch{more}"
    )


def _first_batch(config: RunConfig, graph: Graph, world: World) -> list[float]:
    """Nodes of each hop of a batch, the targets first: of a real one, with some more."""
    blocks = train_loader(config, graph, 0, world.num_replicas, prefetch=0).batch(0, 0).blocks
    nodes = [blocks[-1].num_dst, *(block.num_src for block in reversed(blocks))]
    return [min(float(graph.num_nodes), _BATCHES_DIFFER * count) for count in nodes]


def _needs(
    config: RunConfig, graph: Graph, world: World, trains: bool, nodes: list[float] | None
) -> dict[str, int]:
    """Bytes of one process by use, without the graph."""
    replicas = world.num_replicas // world.world_size
    found = rank_bytes(config, graph, world.num_replicas, nodes)
    if not trains:
        found = {name: count for name, count in found.items() if name not in _OF_TRAINING}
    elif config.eval == "sampled" and config.task == "node":
        del found["evaluation"]  # takes less than the step, which is over then
    once = found.pop("program and libraries")
    needs = {name: count * replicas for name, count in found.items()}
    return {"program and libraries": once, **needs}


def _needs_in_memory(
    config: RunConfig, graph: Graph, world: World, trains: bool, nodes: list[float] | None
) -> dict[str, int]:
    needs = _needs(config, graph, world, trains, nodes)
    here = sum(mapped_bytes(config, graph, world.processes_here, world.world_size).values())
    return {"graph": here // world.processes_here, **needs}


def _needs_on_disk(
    config: RunConfig,
    graph: Graph,
    world: World,
    trains: bool,
    nodes: list[float] | None,
    of_batches: int,
) -> dict[str, int]:
    replicas = world.num_replicas // world.world_size
    rows = of_batches
    if config.eval == "exact" or not trains:
        chunk = min(CHUNK_NODES + CHUNK_EDGES, graph.num_nodes + graph.num_edges)
        rows = max(rows, chunk * graph.feature_bytes // max(1, graph.num_nodes))
    mapped = graph_bytes(graph) - graph.feature_bytes - graph.indices.nbytes
    return {
        "graph, without features and neighbours": mapped // world.processes_here,
        **_needs(config, graph, world, trains, nodes),
        "rows of batches and of evaluation": rows * replicas,
        "nodes that evaluation reaches": 8 * graph.num_nodes * (config.eval == "exact"),
        "buffers of reads": QUEUE_DEPTH * MOST_RUN_BYTES,
    }


def graph_bytes(graph: Graph) -> int:
    """Bytes of the arrays that training reads, features included."""
    arrays = (graph.indptr, graph.indices, graph.features, graph.labels, graph.splits)
    return sum(array.nbytes for array in arrays if array is not None)


def mapped_bytes(config: RunConfig, graph: Graph, ranks: int, world_size: int) -> dict[str, int]:
    """Bytes that a host maps of a graph, by use; `ranks` of all ranks are there."""
    if config.partitions is None:
        return {"graph": graph_bytes(graph)}
    nodes = graph_bytes(graph) - graph.indices.nbytes - graph.feature_bytes
    nodes += graph.num_nodes * index_dtype(graph.num_nodes).itemsize
    adjacency = {"adjacency of all nodes": graph.indices.nbytes}
    if not graph.has_indices:
        rows = 8 * graph.num_nodes + graph.indices.nbytes
        adjacency = {"adjacency of its parts": rows * ranks // world_size}
    features = graph.feature_bytes * ranks // world_size
    return {
        "labels, splits, offsets, places": nodes,
        **adjacency,
        "features of its parts": features,
    }


def rank_bytes(
    config: RunConfig, graph: Graph, world_size: int, nodes: list[float] | None = None
) -> dict[str, int]:
    """What one rank holds besides the graph, in bytes by use.

    Args:
        config: the run's.
        graph: what it trains on.
        world_size: ranks, or replicas.
        nodes: of each hop of a batch, the targets first. None: upper bounds, for which every draw
            is taken for a new node.
    """
    is_link = config.task == "link"
    width = 8 if config.precision == "fp64" else 4
    out = config.hidden if is_link else graph.num_classes
    settings = models.ModelSettings.of(config, graph.num_features, out)
    widest = max(map(max, settings.layer_widths))
    mean_degree = graph.num_edges / max(1, graph.num_nodes)
    targets = most_targets(config, graph, world_size)
    pairs = targets * (1 + (config.negatives or 1)) if is_link else 0
    if nodes is None:
        others = config.negatives_pool or pairs - targets
        others += MOST_COMMON * targets if reads_common(config) else 0  # negatives have few
        nodes = [float(min(graph.num_nodes, 2 * targets + others) if is_link else targets)]
        for fanout in config.fanouts:
            drawn = mean_degree if fanout < 0 else min(fanout, mean_degree)
            nodes.append(min(float(graph.num_nodes), nodes[-1] * (1 + drawn)))
    states = _numbers_of_layers(config.model, settings, nodes)
    states += pairs * config.hidden * (2 + 2 * config.predictor_layers)
    scratch = (CHUNK_NODES + CHUNK_EDGES) * 8 + CHUNK_NODES * 2 * widest * width
    if not models.is_fused(config.model, settings):
        rows = min(CHUNK_NODES + CHUNK_EDGES, graph.num_nodes + graph.num_edges)
        scratch += 2 * rows * widest * width
    if is_link:
        scratch += CHUNK_PAIRS * config.hidden * 5 * width
    has_degrees = config.model in ("gcn", "gin")
    return {
        "program and libraries": max(_PROGRAM_BYTES, machine.own_memory_bytes()),
        "weights, gradients and optimizer": num_weights(config, graph) * width * 4,
        "one training step": int(states * width * 1.5),
        "batches drawn ahead": int(sum(nodes) * 12 * (config.prefetch + 1)),
        **(_fetched_bytes(config, graph, nodes) if config.partitions and world_size > 1 else {}),
        "sampler": scratch_bytes(graph.num_nodes, nodes[-1]),
        **({"structure of pairs": structure_bytes(graph)} if structure_width(config) else {}),
        **({"degrees": graph.num_nodes * 4} if has_degrees else {}),
        "evaluation": scratch,
    }


def _fetched_bytes(config: RunConfig, graph: Graph, nodes: list[float]) -> dict[str, int]:
    """Bytes of what comes from other ranks; `nodes` of each hop of a batch, the targets first."""
    row = graph.feature_bytes / max(1, graph.num_nodes)
    remote = min(float(graph.num_nodes), config.fetch_window * nodes[-1])
    found = {
        "rows of other ranks' parts": int(
            2 * config.fetch_window * sum(nodes) * 12  # batches of a window and of the next
            + 3 * remote * row
            + min(read_size(config.fetch_cache), graph.feature_bytes)
        )
    }
    if not graph.has_indices:  # ids, counts, places and owners; ids as sent, received and kept
        found["neighbours drawn in a window"] = int(
            config.fetch_window * (nodes[-2] * 80 + nodes[-1] * 24)
        )
    return found


def _numbers_of_layers(model: str, settings: ModelSettings, nodes: list[float]) -> float:
    """Numbers that the layers keep in a step for the backward pass.

    `nodes` are those of each hop, the targets first.
    """
    found = 0.0
    for depth, (before, after) in enumerate(settings.layer_widths):
        destinations, sources = nodes[-2 - depth], nodes[-1 - depth]
        found += destinations * (2 * before + after)
        if not models.is_fused(model, settings):
            found += sources * 2 * before + destinations * 3 * after
        if model == "gat":
            averages = depth == settings.num_hidden
            found += sources * after * (settings.heads if averages else 1)
    return found


def num_weights(config: RunConfig, graph: Graph) -> int:
    """Numbers in the model that this configuration asks for."""
    is_link = config.task == "link"
    out = config.hidden if is_link else graph.num_classes
    settings = models.ModelSettings.of(config, graph.num_features, out)
    found = models.num_weights(config.model, settings)
    if not is_link:
        return found
    predictor = ((config.predictor_layers - 1) * config.hidden + 1) * (config.hidden + 1)
    first = config.hidden if config.predictor_layers > 1 else 1
    beside = structure_width(config) + config.hidden * reads_common(config)
    return found + predictor + first * beside
