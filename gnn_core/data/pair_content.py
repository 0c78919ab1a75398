"""Content of a pair of papers: how alike their features are, such as their words.

The cosine of the features of the two papers, and how alike each is on average to the neighbours of
the other; each column is divided by its root mean square, so that rare words count most. As in
`pair_structure`, the pair's own edge does not count, nor does a paper newer than the citing one.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.features import SparseFeatures, decode_features
from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import damage_reported, require_node, require_row
from gnn_core.data.room import require_room

IntArray = npt.NDArray[np.int64]
CONTENT = (
    "features of both",
    "features of the citing paper, of the other's neighbours",
    "features of the citing paper's neighbours, of the other",
)


class PairContent:
    """Content of pairs of papers, a pure function of a graph and the pair.

    Args:
        graph: with features, which are held in memory as sparse rows.
    """

    def __init__(self, graph: Graph):
        self._graph = graph
        years = graph.years
        self._years = np.zeros(graph.num_nodes, np.int32) if years is None else np.asarray(years)
        self._rows = _rows_of(graph)

    def of(
        self, sources: IntArray, others: IntArray, hides_first: bool = False
    ) -> npt.NDArray[np.float32]:
        """Content of each source `[n]` and each of its others `[n, k]`: `[n, k, len(CONTENT)]`.

        `hides_first` as in `PairStructure.of`.
        """
        found = np.empty((*others.shape, len(CONTENT)), np.float32)
        graph, rows = self._graph, self._rows
        with damage_reported(graph):
            _compare(
                *(graph.indptr, graph.indices, self._years),
                *(rows.indptr, rows.columns, rows.values, rows.num_columns),
                *(sources, others, hides_first, found),
            )
        return found


@lru_cache(maxsize=1)
def _rows_of(graph: Graph) -> SparseFeatures:
    """The features of unit length, each column divided by its root mean square before."""
    features = graph.features
    assert features is not None
    if not isinstance(features, SparseFeatures):
        require_room("--predictor content", memory_bytes=16 * features.size)
        features = SparseFeatures.of(np.ascontiguousarray(decode_features(np.asarray(features))))
    columns, count = features.columns, len(features)
    squares = features.values.astype(np.float64) ** 2
    means = np.bincount(columns, squares, features.num_columns) / max(count, 1)
    values = features.values / np.sqrt(means)[columns]
    rows = np.repeat(np.arange(count), np.diff(features.indptr))
    lengths = np.sqrt(np.bincount(rows, values**2, count))
    unit = (values / np.maximum(lengths, 1e-12)[rows]).astype(np.float32)
    return SparseFeatures(np.asarray(features.indptr), columns, unit, features.num_columns)


@njit(cache=True, nogil=True)
def _dot(table, row, row_starts, columns, values):  # type: ignore[no-untyped-def]
    total = 0.0
    for place in range(row_starts[row], row_starts[row + 1]):
        total += table[columns[place]] * values[place]
    return total


@njit(cache=True, nogil=True)
def _add(table, row, row_starts, columns, values):  # type: ignore[no-untyped-def]
    for place in range(row_starts[row], row_starts[row + 1]):
        table[columns[place]] += values[place]


@njit(cache=True, nogil=True)
def _compare(  # type: ignore[no-untyped-def]
    indptr, indices, years, row_starts, columns, values, width, sources, others, hides_first, found
):
    num_nodes, num_edges = len(indptr) - 1, len(indices)
    for i in range(len(sources)):
        source = sources[i]
        require_node(source, num_nodes)
        own, around = np.zeros(width), np.zeros(width)
        _add(own, source, row_starts, columns, values)
        begin, end = indptr[source], indptr[source + 1]
        require_row(begin, end, num_edges)
        hidden = others[i, 0] if hides_first else -1
        degree = 0
        for place in range(begin, end):
            near = indices[place]
            require_node(near, num_nodes)
            if years[near] <= years[source] and near != source and near != hidden:
                degree += 1
                _add(around, near, row_starts, columns, values)
        for j in range(others.shape[1]):
            other = others[i, j]
            require_node(other, num_nodes)
            first, last = indptr[other], indptr[other + 1]
            require_row(first, last, num_edges)
            alike, links, is_linked = 0.0, 0, False
            for place in range(first, last):
                near = indices[place]
                require_node(near, num_nodes)
                if near == source:
                    is_linked = years[other] <= years[source] and other != hidden
                elif near != other and years[near] <= years[source]:
                    links += 1
                    alike += _dot(own, near, row_starts, columns, values)
            back = _dot(around, other, row_starts, columns, values)
            if is_linked:  # the other is among the neighbours, and as alike as can be
                for place in range(row_starts[other], row_starts[other + 1]):
                    back -= values[place] * values[place]
            found[i, j, 0] = _dot(own, other, row_starts, columns, values)
            found[i, j, 1] = alike / max(links, 1)
            found[i, j, 2] = back / max(degree - is_linked, 1)
