"""Edge list -> CSR with sorted, deduplicated rows, in bounded memory.

The nodes are cut into ranges whose rows fit the memory budget. For each range the edge list is read
once more, the range's rows are filled, sorted and deduplicated, and written out in sequence. Beside
the budget there is one int32 per node. Re-reading costs little (the list is usually in the page
cache) and needs no temporary file. Rows that are sorted as they are filled, as those of a list that
is sorted itself, are only copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.checks import index_dtype
from gnn_core.data.ordered_map import ordered_map
from gnn_core.data.progress import Progress, silent
from gnn_core.data.store import GraphWriter
from gnn_core.usage import UsageError

EdgeChunks = Callable[[], Iterator[npt.NDArray]]  # starts again at each call; pieces [k, 2]

DEFAULT_BUDGET_BYTES = 1 << 30
_CHUNK_EDGES = 1 << 20
_NODE_BYTES = 16  # of a node in a range: where its row starts, and where the next neighbour goes


class RowSink(Protocol):
    """Where rows of the finished array go."""

    def write(self, rows: npt.NDArray) -> None:
        """Append `rows`."""


def edges_of(edges: npt.NDArray, chunk_edges: int = _CHUNK_EDGES) -> EdgeChunks:
    """The chunks of an edge list in memory, [M, 2] (source, target)."""

    def chunks() -> Iterator[npt.NDArray]:
        for start in range(0, len(edges), chunk_edges):
            yield edges[start : start + chunk_edges]

    return chunks


def edges_in(path: Path, chunk_edges: int = _CHUNK_EDGES) -> EdgeChunks:
    """The chunks of an edge list in a .npy file, [M, 2] (source, target).

    They are read, not mapped: mapped pages would count as this process's memory until the end.
    """

    def chunks() -> Iterator[npt.NDArray]:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            for start in range(0, shape[0], chunk_edges):
                count = min(chunk_edges, shape[0] - start)
                yield np.fromfile(file, dtype, count * shape[1]).reshape(count, shape[1])

    return chunks


def write_csr(
    writer: GraphWriter,
    edges: EdgeChunks,
    num_nodes: int,
    symmetric: bool = True,
    self_loops: bool = False,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    progress: Progress = silent,
    threads: int = 1,
) -> int:
    """Write indptr.npy and indices.npy of a graph; returns the number of edges kept.

    `symmetric`: both ends of an edge receive from each other; otherwise the target receives from
    the source. `self_loops` keeps edges from a node to itself. UsageError for an edge list that
    holds anything but ids in [0, num_nodes): the loops over it write wherever an id points.
    Each of `threads` works on a range of its own, with the whole budget, and reads all edges.
    """
    with writer.stream("indices", index_dtype(num_nodes), (None,)) as sink:
        degrees = build_csr(
            edges, num_nodes, sink, symmetric, self_loops, budget_bytes, progress, threads
        )
    total = 0
    with writer.stream("indptr", np.int64, (num_nodes + 1,)) as sink:
        sink.write(np.zeros(1, np.int64))
        for start in range(0, num_nodes, _CHUNK_EDGES):
            ends = np.cumsum(degrees[start : start + _CHUNK_EDGES], dtype=np.int64) + total
            sink.write(ends)
            total = int(ends[-1])
    return total


def build_csr(
    edges: EdgeChunks,
    num_nodes: int,
    sink: RowSink,
    symmetric: bool = True,
    self_loops: bool = False,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    progress: Progress = silent,
    threads: int = 1,
) -> npt.NDArray[np.int32]:
    """Send the rows of the CSR to `sink` in order; returns their lengths, int32 [num_nodes].

    Arguments as for `write_csr`. A single row longer than the budget is still built whole.
    """
    degrees = np.zeros(num_nodes, np.int32)
    for chunk in edges():
        _require_ids(chunk, num_nodes)
        if _count(chunk, degrees, symmetric, self_loops):
            raise UsageError(
                f"edge list: expected at most {2**31 - 1:,} edges at a node, repeats included, got "
                "more; remove repeats"
            )
    dtype = index_dtype(num_nodes)
    bounds = _ranges(degrees, dtype.itemsize, budget_bytes)

    def rows_of(bound: tuple[int, int]) -> npt.NDArray:
        low, high = bound
        progress("adjacency", low, num_nodes)
        starts = np.zeros(high - low + 1, np.int64)
        np.cumsum(degrees[low:high], out=starts[1:])
        columns = np.empty(starts[-1], dtype)
        cursor = starts[:-1].copy()
        for chunk in edges():
            _fill(chunk, low, high, cursor, columns, symmetric, self_loops)
        return columns[: _sort_rows(starts, columns, degrees[low:high])]

    for rows in ordered_map(rows_of, itertools.pairwise(bounds), threads, ahead=0):
        sink.write(rows)
    progress("adjacency", num_nodes, num_nodes)
    return degrees


def _require_ids(edges: npt.NDArray, num_nodes: int) -> None:
    """Raise UsageError for edges that are not pairs of node ids."""
    if edges.dtype.kind not in "iu" or edges.ndim != 2 or edges.shape[1] != 2:
        raise UsageError(
            f"edge list: expected integers of shape [edges, 2], got {edges.dtype} of shape "
            f"{list(edges.shape)}; correct what made it"
        )
    if edges.size and (edges.min() < 0 or edges.max() >= num_nodes):
        raise UsageError(
            f"edge list: expected node ids from 0 to {num_nodes - 1}, got {edges.min()} to "
            f"{edges.max()}; correct what made it"
        )


def _ranges(degrees: npt.NDArray[np.int32], id_bytes: int, budget_bytes: int) -> list[int]:
    """Cut points of the nodes so that building the rows of a range takes the budget at most."""
    bounds = [0]
    held = 0
    for start in range(0, len(degrees), _CHUNK_EDGES):
        piece = degrees[start : start + _CHUNK_EDGES]
        cuts, held = _cut(piece, start, bounds[-1], held, id_bytes, budget_bytes)
        bounds.extend(int(cut) for cut in cuts)
    return [*bounds, len(degrees)]


@njit(cache=True, nogil=True)
def _cut(degrees, first, begun, held, id_bytes, budget):  # type: ignore[no-untyped-def]
    cuts = []
    for i in range(len(degrees)):
        node = first + i
        size = np.int64(degrees[i]) * id_bytes + _NODE_BYTES
        if node > begun and held + size > budget:
            cuts.append(node)
            begun = node
            held = 0
        held += size
    return np.array(cuts, dtype=np.int64), held


@njit(cache=True, nogil=True)
def _count(edges, degrees, symmetric, self_loops):  # type: ignore[no-untyped-def]
    """Add the edges to the degrees; whether one of those no longer fits."""
    signs = np.int32(0)
    for i in range(len(edges)):
        source, target = edges[i, 0], edges[i, 1]
        if source == target:
            degrees[target] += 1 if self_loops else 0
            signs |= degrees[target]
            continue
        degrees[target] += 1
        signs |= degrees[target]
        if symmetric:
            degrees[source] += 1
            signs |= degrees[source]
    return signs < 0


@njit(cache=True, nogil=True)
def _fill(edges, low, high, cursor, columns, symmetric, self_loops):  # type: ignore[no-untyped-def]
    for i in range(len(edges)):
        source, target = edges[i, 0], edges[i, 1]
        if source == target and not self_loops:
            continue
        if low <= target < high:
            columns[cursor[target - low]] = source
            cursor[target - low] += 1
        if symmetric and source != target and low <= source < high:
            columns[cursor[source - low]] = target
            cursor[source - low] += 1


@njit(cache=True, nogil=True)
def _sort_rows(starts, columns, degrees):  # type: ignore[no-untyped-def]
    """Sort each row, drop repeats, close the gaps; new lengths into `degrees`; edges kept."""
    kept = 0
    for node in range(len(starts) - 1):
        row = columns[starts[node] : starts[node + 1]]
        is_sorted = True
        for i in range(1, len(row)):
            is_sorted &= row[i - 1] < row[i]
        if not is_sorted:
            row.sort()
        begin = kept
        for i in range(len(row)):
            if i == 0 or row[i] != columns[kept - 1]:
                columns[kept] = row[i]
                kept += 1
        degrees[node] = kept - begin
    return kept
