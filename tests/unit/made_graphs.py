"""Graphs made by hand for the tests of the sampler, the loader and whole neighbourhoods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gnn_core.data.batch import Block
from gnn_core.data.graph import Graph

HUB_DEGREE = 1_000_000
HUB = 0
FIRST_ISOLATED = HUB_DEGREE + 1
FIRST_LOOP = FIRST_ISOLATED + 10


def from_rows(rows: Sequence[Sequence[int]], splits: npt.ArrayLike | None = None) -> Graph:
    """Make a graph from the list of each node's neighbours."""
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return Graph.from_arrays("by hand", indptr, [n for row in rows for n in row], splits=splits)


def fan(degree: int, num_targets: int) -> tuple[Graph, npt.NDArray[np.int64]]:
    """Make targets that all have the neighbours 0 .. degree - 1, which have none; and their ids."""
    indptr = np.concatenate([np.zeros(degree), np.arange(num_targets + 1) * degree])
    indices = np.tile(np.arange(degree), num_targets)
    graph = Graph.from_arrays("fan", indptr.astype(np.int64), indices)
    return graph, np.arange(degree, degree + num_targets)


def with_train(num_nodes: int, num_train: int, labels: bool = True) -> Graph:
    """Make a graph of degrees 0 .. 6, with so many training nodes strewn over it."""
    random = np.random.default_rng(5)
    rows = [
        np.sort(random.choice(num_nodes, min(node % 7, num_nodes), replace=False))
        for node in range(num_nodes)
    ]
    splits = np.full(num_nodes, 2)
    splits[random.permutation(num_nodes)[:num_train]] = 1
    return Graph.from_arrays(
        "trained",
        np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
        np.concatenate(rows),
        labels=np.arange(num_nodes) % 5 if labels else None,
        splits=splits,
    )


def oddities() -> Graph:
    """Make every oddity at once, 10**6 + 31 nodes; the odd ones among them are for training.

    Node 0 is a hub of 10**6 neighbours, each of which has the hub as a neighbour; the first 2000 of
    those have up to 39 more, 10 nodes have none, 10 have only themselves, 10 themselves and others.
    """
    num_nodes = FIRST_LOOP + 20
    degrees = np.ones(num_nodes, np.int64)
    degrees[HUB] = HUB_DEGREE
    degrees[1:2001] += np.arange(2000) % 40
    degrees[FIRST_ISOLATED:FIRST_LOOP] = 0
    degrees[FIRST_LOOP + 10 :] = np.arange(3, 13)
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    indices = np.zeros(indptr[-1], np.int64)
    indices[:HUB_DEGREE] = np.arange(1, HUB_DEGREE + 1)
    for node in range(1, 2001):  # the hub, then others 401 apart
        others = 1 + (node + 401 * np.arange(1, degrees[node])) % HUB_DEGREE
        indices[indptr[node] + 1 : indptr[node + 1]] = np.sort(others)
    for node in range(FIRST_LOOP, num_nodes):  # others, then the node itself
        indices[indptr[node] : indptr[node + 1] - 1] = np.arange(degrees[node] - 1)
        indices[indptr[node + 1] - 1] = node
    splits = np.full(num_nodes, 2)
    splits[:400] = splits[FIRST_ISOLATED:] = 1
    return Graph.from_arrays("odd", indptr, indices, splits=splits)


def edges_of(block: Block, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """List the edges of a block as int64 [num_edges, 2]: (node, neighbour), by global ids."""
    receivers = np.repeat(nodes[: block.num_dst], np.diff(block.offsets))
    return np.stack([receivers, nodes[block.columns]], axis=1)


def edge_set(block: Block, nodes: npt.NDArray[np.int64]) -> set[tuple[int, int]]:
    """Collect the edges of a block as (node, neighbour)."""
    return set(map(tuple, edges_of(block, nodes).tolist()))
