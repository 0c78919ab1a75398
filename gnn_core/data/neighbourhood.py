"""Whole neighbourhoods, for exact evaluation: every neighbour once, nothing drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.batch import Block
from gnn_core.data.checks import Subject
from gnn_core.data.graph import Graph

IntArray = npt.NDArray[np.int64]
_MOST_NODES = 2**31 - 1  # offsets and columns are int32


def all_neighbours(graph: Graph, ids: IntArray) -> tuple[Block, IntArray]:
    """One block with all neighbours of `ids`, at most 2**31 - 1 edges, and the id of each source.

    Sources are `ids`, then the neighbours edge by edge: a node met twice is there twice, since
    finding that out would cost more than reading its row again. UsageError for a damaged file,
    OverflowError for more edges: see `chunks`.
    """
    with damage_reported(graph):
        offsets, nodes = _gather_neighbours(graph.indptr, graph.indices, ids)
    columns = np.arange(len(ids), len(nodes), dtype=np.int32)
    return Block(offsets, columns, len(nodes)), nodes


def reach(graph: Graph, ids: IntArray, hops: int) -> list[IntArray]:
    """Sorted ids whose states are needed, per layer from the input side on; the last is `ids`.

    `reach(...)[d]` are the nodes whose layer-d output somebody in `reach(...)[d + 1]` reads.
    """
    mask = np.zeros(graph.num_nodes, dtype=np.bool_)
    needed = [np.sort(ids)]
    for _ in range(hops):
        with damage_reported(graph):
            _mark(graph.indptr, graph.indices, needed[0], mask)
        needed.insert(0, np.flatnonzero(mask))
    return needed


def shares(graph: Graph, ids: IntArray, world_size: int) -> IntArray:
    """Bounds int64 `[world_size + 1]` that cut `ids` into parts of about equal work.

    Work is counted in rows read: one per node and one per neighbour.
    """
    work = np.cumsum(graph.indptr[ids + 1] - graph.indptr[ids] + 1)
    total = work[-1] if len(work) else 0
    goals = total * np.arange(1, world_size) / world_size
    return np.concatenate([[0], np.searchsorted(work, goals), [len(ids)]]).astype(np.int64)


def chunks(graph: Graph, ids: IntArray, most_nodes: int, most_edges: int) -> list[IntArray]:
    """Cut `ids` into consecutive parts of bounded size; one node may exceed `most_edges` alone."""
    work = np.concatenate([[0], np.cumsum(graph.indptr[ids + 1] - graph.indptr[ids])])
    parts = []
    first = 0
    while first < len(ids):
        last = int(np.searchsorted(work, work[first] + most_edges, side="right")) - 1
        last = min(max(last, first + 1), first + most_nodes)
        parts.append(ids[first:last])
        first = last
    return parts


def count_loops(graph: Graph) -> IntArray:
    """How many edges each node has to itself, int64 `[num_nodes]`."""
    with damage_reported(graph):
        counts: IntArray = _count_loops(graph.indptr, graph.indices)
    return counts


@contextmanager
def damage_reported(graph: Graph) -> Iterator[None]:
    """Turn the IndexError of a loop over the rows of a graph into a UsageError.

    A graph of many GB is checked in samples when it is opened, and its file may change later.
    """
    try:
        yield
    except IndexError:
        raise Subject(graph.name, graph.folder).error(
            "indices", f"rows of node ids from 0 to {graph.num_nodes - 1}", "others"
        ) from None


@njit(cache=True, nogil=True, inline="always")
def require_row(begin, end, length):  # type: ignore[no-untyped-def]
    """Raise IndexError for a row that is not within the `length` neighbours there are."""
    if begin < 0 or end < begin or end > length:
        raise IndexError("row")


@njit(cache=True, nogil=True, inline="always")
def require_node(node, num_nodes):  # type: ignore[no-untyped-def]
    """Raise IndexError for an id that no node has."""
    if node < 0 or node >= num_nodes:
        raise IndexError("node")


@njit(cache=True, nogil=True)
def _gather_neighbours(indptr, indices, ids):  # type: ignore[no-untyped-def]
    offsets = np.zeros(len(ids) + 1, dtype=np.int32)
    total = np.int64(0)
    for i in range(len(ids)):
        require_row(indptr[ids[i]], indptr[ids[i] + 1], len(indices))
        total += indptr[ids[i] + 1] - indptr[ids[i]]
        offsets[i + 1] = total
    if len(ids) + total > _MOST_NODES:
        raise OverflowError("nodes of a block")
    nodes = np.empty(len(ids) + total, dtype=np.int64)
    nodes[: len(ids)] = ids
    fill = len(ids)
    for node in ids:
        for position in range(indptr[node], indptr[node + 1]):
            require_node(indices[position], len(indptr) - 1)
            nodes[fill] = indices[position]
            fill += 1
    return offsets, nodes


@njit(cache=True, nogil=True)
def _mark(indptr, indices, ids, mask):  # type: ignore[no-untyped-def]
    for node in ids:
        mask[node] = True
        require_row(indptr[node], indptr[node + 1], len(indices))
        for position in range(indptr[node], indptr[node + 1]):
            require_node(indices[position], len(mask))
            mask[indices[position]] = True


@njit(cache=True, nogil=True)
def _count_loops(indptr, indices):  # type: ignore[no-untyped-def]
    counts = np.zeros(len(indptr) - 1, dtype=np.int64)
    for node in range(len(counts)):
        require_row(indptr[node], indptr[node + 1], len(indices))
        for position in range(indptr[node], indptr[node + 1]):
            require_node(indices[position], len(counts))
            counts[node] += indices[position] == node
    return counts
