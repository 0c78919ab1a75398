"""Graphs and partitions for the tests of partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gnn_core.data.features import encode_features
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.partition.folder import Partition
from gnn_core.data.partition.hashed import hash_parts
from gnn_core.data.partition.order import degree_heat, places_of
from gnn_core.data.partition.write import write_parts
from tests.unit.made_graphs import with_train


def graph_on_disk(folder: Path, num_nodes: int = 60, dtype: str = "float32") -> Graph:
    """A graph folder with dense random features [num_nodes, 5]; a third of the nodes train."""
    made = with_train(num_nodes, -(-num_nodes // 3))
    values = np.random.default_rng(0).uniform(-1, 1, (num_nodes, 5)).astype(np.float32)
    features = encode_features(values, dtype)
    graph = Graph.from_arrays("made", made.indptr, made.indices, features, made.labels, made.splits)
    return write_graph(graph, folder)


def hash_partition(graph: Graph, num_parts: int, folder: Path, **options: Any) -> Partition:
    """The partition of a graph by hash, written to `folder` and opened."""
    seed = options.pop("seed", 0)
    parts = hash_parts(graph.num_nodes, num_parts, seed)
    place, offsets = places_of(parts, degree_heat(graph), num_parts)
    write_parts(graph, place, offsets, folder, {"method": "hash", "seed": seed}, **options)
    return Partition.open(folder, graph)
