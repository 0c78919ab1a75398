"""Common neighbours of a pair of papers, for a predictor that reads their embeddings.

Wang, Yang, Zhang, "Neural Common Neighbor with Completion for Link Prediction", ICLR 2024. As in
`pair_structure` the edges are those of training, without that of the pair itself, and a paper that
is newer than the citing one is none of its neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gnn_core.compiled import njit
from gnn_core.data.batch import Common
from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import damage_reported, reach, require_node, require_row

IntArray = npt.NDArray[np.int64]
MOST_COMMON = 16  # of a pair: those with the fewest links, which tell the most


class CommonNeighbours:
    """Finds the common neighbours of pairs, a pure function of a graph and the pair.

    Args:
        graph: whose edges are looked at; years may be unknown.
    """

    def __init__(self, graph: Graph):
        self._graph = graph
        years = graph.years
        self._years = np.zeros(graph.num_nodes, np.int32) if years is None else np.asarray(years)

    def of(self, sources: IntArray, others: IntArray, hidden: IntArray | None = None) -> Common:
        """Those of each source `[n]` and each of its others `[n, k]`, at most `MOST_COMMON` each.

        The edge to `hidden` `[n]` is not there for any pair of a source, as that of a missing
        citation is not.
        """
        graph = self._graph
        hidden = np.full(len(sources), -1) if hidden is None else hidden
        pairs = [np.ascontiguousarray(part) for part in (sources, others, hidden)]
        counts = np.empty(others.shape, np.int64)
        nodes = np.empty(others.size * MOST_COMMON, np.int64)
        with damage_reported(graph):
            total = _find(
                *(graph.indptr, graph.indices, self._years, *pairs),
                *(np.zeros(graph.num_nodes, np.bool_), nodes, counts),
            )
        nodes = nodes[:total].copy()
        some = np.flatnonzero(counts)
        links = graph.indptr[nodes + 1] - graph.indptr[nodes]
        return Common(
            pairs=some,
            segments=np.repeat(np.arange(len(some)), counts.ravel()[some]),
            nodes=nodes,
            weights=(1 / np.log(np.maximum(links, 2))).astype(np.float32),
        )

    def around(self, papers: IntArray) -> IntArray:
        """These papers and all that may be common neighbours of pairs of them, ascending ids."""
        return reach(self._graph, papers, 1)[0]


def sums_of(common: Common, states: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weighted sums `[R, width]` of the states `[N, width]` of the neighbours of each pair."""
    entries = (common.weights.astype(states.dtype), (common.segments, common.nodes))
    found: npt.NDArray[Any] = sparse.csr_array(entries, (len(common.pairs), len(states))) @ states
    return found


def reads_common(config: Any) -> bool:
    """Whether the predictor of a run reads embeddings of common neighbours, by its `RunConfig`."""
    return bool(config.predictor == "ncn")


@njit(cache=True, nogil=True)
def _find(indptr, indices, years, sources, others, hidden, is_near, nodes, counts):  # type: ignore[no-untyped-def]
    """Fill `counts`, and `nodes` pair after pair; the number of nodes. `is_near` is all False."""
    num_nodes, num_edges = len(indptr) - 1, len(indices)
    total = 0
    for i in range(len(sources)):
        source = sources[i]
        require_node(source, num_nodes)
        begin, end = indptr[source], indptr[source + 1]
        require_row(begin, end, num_edges)
        for place in range(begin, end):
            middle = indices[place]
            require_node(middle, num_nodes)
            is_old = years[middle] <= years[source]
            is_near[middle] = is_old and middle != source and middle != hidden[i]
        for j in range(others.shape[1]):
            other = others[i, j]
            require_node(other, num_nodes)
            first, last = indptr[other], indptr[other + 1]
            require_row(first, last, num_edges)
            count = 0
            for place in range(first, last):
                middle = indices[place]
                require_node(middle, num_nodes)
                if is_near[middle] and middle != other:
                    count = _insert(indptr, middle, nodes, total, count)
            counts[i, j] = count
            total += count
        for place in range(begin, end):
            is_near[indices[place]] = False
    return total


@njit(cache=True, nogil=True)
def _insert(indptr, node, nodes, first, count):  # type: ignore[no-untyped-def]
    """Put the node among the `count` from `first` on, fewest links first; the new count."""
    links = indptr[node + 1] - indptr[node]
    place = count
    while place > 0:
        before = nodes[first + place - 1]
        if indptr[before + 1] - indptr[before] <= links:
            break
        place -= 1
    if place == MOST_COMMON:
        return count
    for later in range(min(count, MOST_COMMON - 1), place, -1):
        nodes[first + later] = nodes[first + later - 1]
    nodes[first + place] = node
    return min(count + 1, MOST_COMMON)
