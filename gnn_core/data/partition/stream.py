"""A graph's rows read in pieces, from its first node to its last or back, in bounded memory.

Files are read, not mapped: mapped pages would count as this process's memory until the end. The
next piece is read in a thread while the caller works on one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gnn_core.data.checks import Subject
from gnn_core.data.graph import Graph
from gnn_core.data.ordered_map import ordered_map

PIECE_BYTES = 32 << 20


class Piece(NamedTuple):
    """Consecutive rows of different lengths."""

    first: int  # the node of the first row
    starts: npt.NDArray[np.int64]  # [m + 1], from 0
    values: npt.NDArray  # [starts[-1]]


def adjacency_pieces(
    graph: Graph, backwards: bool = False, piece_bytes: int = PIECE_BYTES
) -> Iterator[Piece]:
    """The adjacency rows of all nodes, some MB at a time; ids checked. Raises UsageError.

    A row is never cut: a piece is longer than `piece_bytes` where one row is.
    """

    def read(bounds: tuple[int, int]) -> Piece:
        low, high = bounds
        starts = read_rows(graph.indptr, low, high + 1)
        rising = starts[0] >= 0 and starts[-1] <= graph.num_edges and (np.diff(starts) >= 0).all()
        columns = read_rows(graph.indices, int(starts[0]), int(starts[-1])) if rising else None
        if columns is None or (
            len(columns) and not 0 <= columns.min() <= columns.max() < num_nodes
        ):
            raise Subject(graph.name, graph.folder).error(
                "indices", f"rows of node ids from 0 to {num_nodes - 1}", "others"
            )
        return Piece(low, starts - starts[0], columns)

    num_nodes = graph.num_nodes
    bounds = _bounds(graph, piece_bytes)
    yield from ordered_map(read, reversed(bounds) if backwards else bounds, threads=1)


def feature_pieces(graph: Graph, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """The feature rows of all nodes, flat, some MB at a time. The graph has dense features."""
    table: Any = graph.features
    width = graph.num_features

    def read(low: int) -> Piece:
        rows = read_rows(table, low, min(low + step, graph.num_nodes))
        return Piece(low, np.arange(len(rows) + 1, dtype=np.int64) * width, rows.reshape(-1))

    step = max(1, piece_bytes // (width * table.itemsize))
    yield from ordered_map(read, range(0, graph.num_nodes, step), threads=1)


def read_rows(array: npt.NDArray, start: int, stop: int) -> npt.NDArray:
    """`array[start:stop]`, of a mapped array read from its file."""
    if not isinstance(array, np.memmap) or array.filename is None:
        return array[start:stop]
    width = int(np.prod(array.shape[1:], dtype=np.int64))
    offset = array.offset + start * width * array.itemsize
    count = (stop - start) * width
    values = np.fromfile(array.filename, array.dtype, count, offset=offset)
    if len(values) != count:
        raise EOFError(f"{array.filename}: expected {count} more values, got {len(values)}")
    return values.reshape(stop - start, *array.shape[1:])


def _bounds(graph: Graph, piece_bytes: int) -> list[tuple[int, int]]:
    """Node ranges whose rows, with their offsets, take so many bytes or are one row."""
    cost = 8 + graph.indices.itemsize
    step = max(1, piece_bytes // cost)
    bounds, low = [], 0
    while low < graph.num_nodes:
        window = read_rows(graph.indptr, low, min(low + step, graph.num_nodes) + 1)
        most = window[0] + step
        high = low + max(1, int(np.searchsorted(window, most, "right")) - 1)
        bounds.append((low, min(high, graph.num_nodes)))
        low = bounds[-1][1]
    return bounds
