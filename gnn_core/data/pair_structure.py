"""Structure of a pair of papers: what their neighbourhoods tell of a citation between them.

Common neighbours and walks of three steps, counted exactly over the training edges. The edge of the
pair itself is never counted, nor is a paper newer than the citing one: a training citation is then
seen as it was when it was made, as a missing one is.

Sources: Liben-Nowell, Kleinberg, "The Link Prediction Problem for Social Networks", CIKM 2003
(common neighbours, Jaccard); Adamic, Adar, "Friends and Neighbors on the Web", Social Networks
2003; Zhou, Lü, Zhang, "Predicting Missing Links via Local Information", EPJ B 2009 (each common
neighbour divided by its degree); Liu, Lü, "Link Prediction Based on Local Random Walk", EPL 2010;
Kovács et al., "Network-based Prediction of Protein Interactions", Nature Communications 2019 (paths
of three links, divided by the roots of the degrees on the way).
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import damage_reported, require_node, require_row

IntArray = npt.NDArray[np.int64]

STRUCTURE = (
    "common neighbours",  # log(1 + n), as all that are counts
    "Adamic-Adar",
    "cited by a reference of the citing paper",  # common neighbours by who cites whom
    "cites a reference of the citing paper",
    "cited by a paper that cites the citing paper",
    "cites a paper that cites the citing paper",
    "Jaccard",
    "links of the citing paper",
    "links of the other",
    "citations of the other, of this year or the last",
    "walks of two steps",  # log(1 + how much likelier such a walk leads there than to any paper)
    "walks of three steps",
    "paths of three links",
    "years apart",
    "of one year",
    "coupling of the citing paper with those that cite the other",
    "the same, of this year or the last",
    "the strongest of them",
)
WIDTH = len(STRUCTURE)
_CITES, _CITED = 1, 2  # of an entry of `indices`: its row cites it, or is cited by it
_NEAR = 4  # of a marked paper: a neighbour of the citing one
_YEAR, _LOG, _SHARE, _ROOT = range(4)  # columns of `known`


class PairStructure:
    """Structural features of pairs of papers, a pure function of a graph and the pair.

    Threads may share one: they take turns.

    Args:
        graph: whose edges are all that is looked at. Who cites whom is known of its training
            edges or, where it has none, of its citations; years may be unknown.
    """

    def __init__(self, graph: Graph):
        self._graph = graph
        self._ways, self._known = _ways_of(graph), _known_of(graph)
        self._mark = np.zeros(graph.num_nodes, np.uint8)
        self._reach = np.zeros((graph.num_nodes, 3))
        self._one_at_a_time = threading.Lock()

    def of(self, sources: IntArray, others: IntArray) -> npt.NDArray[np.float32]:
        """Features of each source and each of its others.

        Args:
            sources: int64 `[n]`, the citing papers.
            others: int64 `[n, k]`.

        Returns:
            float32 `[n, k, WIDTH]`, in the order of `STRUCTURE`.
        """
        found = np.empty((*others.shape, WIDTH), np.float32)
        graph = self._graph
        with self._one_at_a_time, damage_reported(graph):
            _measure(
                graph.indptr,
                graph.indices,
                self._ways,
                self._known,
                sources,
                others,
                self._mark,
                self._reach,
                found,
            )
        return found


def structure_width(config: Any) -> int:
    """Number of structural features that the predictor of a run reads, by its `RunConfig`."""
    return WIDTH if config.predictor == "structure" else 0


def structure_bytes(graph: Graph) -> int:
    """Memory of the two that a rank has of the graph: its loader's and its evaluator's."""
    return graph.num_edges + (32 + 2 * 25) * graph.num_nodes


def pair_structure(config: Any, graph: Graph) -> PairStructure | None:
    """What the predictor of a run reads of pairs, by its `RunConfig`; None: embeddings alone."""
    return PairStructure(graph) if structure_width(config) else None


@lru_cache(maxsize=1)
def _ways_of(graph: Graph) -> npt.NDArray[np.uint8]:
    """Who cites whom, see `_ways`; made once for the loaders and the evaluator of a run."""
    edges = graph.citations if graph.train_edges is None else graph.train_edges
    directed = np.empty((0, 2), np.int64) if edges is None else np.asarray(edges)
    with damage_reported(graph):
        ways: npt.NDArray[np.uint8] = _ways(graph.indptr, graph.indices, directed)
    return ways


@lru_cache(maxsize=1)
def _known_of(graph: Graph) -> npt.NDArray[np.float64]:
    """Year of each paper, and of its degree 1 / log, the inverse and the inverse root, `[N, 4]`."""
    known = np.zeros((graph.num_nodes, 4))
    if graph.years is not None:
        known[:, _YEAR] = graph.years
    degrees = np.maximum(np.diff(graph.indptr), 1)
    known[:, _LOG] = 1 / np.log(np.maximum(degrees, 2))
    known[:, _SHARE] = 1 / degrees
    known[:, _ROOT] = 1 / np.sqrt(degrees)
    return known


@njit(cache=True, nogil=True)
def _ways(indptr, indices, edges):  # type: ignore[no-untyped-def]
    """Who cites whom, uint8 beside `indices`: _CITES, _CITED or both."""
    num_nodes = len(indptr) - 1
    ways = np.zeros(len(indices), np.uint8)
    for i in range(len(edges)):
        for way in range(2):
            row, column = edges[i, way], edges[i, 1 - way]
            require_node(row, num_nodes)
            begin, end = indptr[row], indptr[row + 1]
            require_row(begin, end, len(indices))
            place = begin + np.searchsorted(indices[begin:end], column)
            if place < end and indices[place] == column:
                ways[place] |= _CITED if way else _CITES
    return ways


@njit(cache=True, nogil=True)
def _measure(indptr, indices, ways, known, sources, others, mark, reach, found):  # type: ignore[no-untyped-def]
    """Fill `found`; `mark` and `reach` are zero before and after."""
    num_nodes, num_edges = len(indptr) - 1, len(indices)
    for i in range(len(sources)):
        source = sources[i]
        require_node(source, num_nodes)
        begin, end = indptr[source], indptr[source + 1]
        require_row(begin, end, num_edges)
        year = known[source, _YEAR]
        degree = 0
        for place in range(begin, end):
            middle = indices[place]
            require_node(middle, num_nodes)
            if known[middle, _YEAR] > year or middle == source:
                continue
            degree += 1
            mark[middle] = ways[place] | _NEAR
            first, last = indptr[middle], indptr[middle + 1]
            require_row(first, last, num_edges)
            one, root = known[middle, _SHARE], known[middle, _ROOT]
            is_cited = root if ways[place] & _CITES else 0.0
            for other in range(first, last):
                then = indices[other]
                require_node(then, num_nodes)
                reach[then, 0] += one
                reach[then, 1] += root
                if ways[other] & _CITED:
                    reach[then, 2] += is_cited
        reach[source] = 0
        for j in range(others.shape[1]):
            require_node(others[i, j], num_nodes)
            _measure_pair(
                indptr, indices, ways, known, source, others[i, j], degree, mark, reach, found[i, j]
            )
        for place in range(begin, end):
            middle = indices[place]
            if mark[middle] == 0:
                continue
            mark[middle] = 0
            for other in range(indptr[middle], indptr[middle + 1]):
                reach[indices[other]] = 0


@njit(cache=True, nogil=True)
def _measure_pair(indptr, indices, ways, known, source, other, degree, mark, reach, found):  # type: ignore[no-untyped-def]
    begin, end = indptr[other], indptr[other + 1]
    require_row(begin, end, len(indices))
    year = known[source, _YEAR]
    # The pair's own edge, if there is one, leads from the source to `other` and back.
    is_linked = mark[other] != 0
    own_share = known[other, _SHARE] if is_linked else 0.0
    own_root = known[other, _ROOT] if is_linked else 0.0
    own_cited = own_root if mark[other] & _CITES else 0.0
    degree -= is_linked
    common, adamic_adar, allocated, walks, paths = 0, 0.0, 0.0, 0.0, 0.0
    coupled, recently, closest = 0.0, 0.0, 0.0
    of_0, of_1, of_2, of_3 = 0, 0, 0, 0
    links, recent = 0, 0
    for place in range(begin, end):
        middle = indices[place]
        require_node(middle, len(mark))
        if middle == source or middle == other or known[middle, _YEAR] > year:
            continue
        links += 1
        way = ways[place]
        share, root = known[middle, _SHARE], known[middle, _ROOT]
        walks += (reach[middle, 0] - own_share) * share
        paths += (reach[middle, 1] - own_root) * root
        if way & _CITED:
            strength = (reach[middle, 2] - own_cited) * root
            coupled += strength
            closest = max(closest, strength)
            if known[middle, _YEAR] >= year - 1:
                recent += 1
                recently += strength
        near = mark[middle]
        if near == 0:
            continue
        common += 1
        adamic_adar += known[middle, _LOG]
        allocated += share
        of_0 += (near & _CITES != 0) and (way & _CITED != 0)
        of_1 += (near & _CITES != 0) and (way & _CITES != 0)
        of_2 += (near & _CITED != 0) and (way & _CITED != 0)
        of_3 += (near & _CITED != 0) and (way & _CITES != 0)
    total = len(indices) / (max(degree, 1) * max(links, 1))
    found[0] = np.log1p(common)
    found[1] = np.log1p(adamic_adar)
    found[2] = np.log1p(of_0)
    found[3] = np.log1p(of_1)
    found[4] = np.log1p(of_2)
    found[5] = np.log1p(of_3)
    found[6] = common / max(degree + links - common, 1)
    found[7] = np.log1p(degree)
    found[8] = np.log1p(links)
    found[9] = np.log1p(recent)
    found[10] = np.log1p(allocated * total)
    found[11] = np.log1p(max(walks, 0.0) * total)
    found[12] = np.log1p(max(paths, 0.0))
    found[13] = np.log1p(abs(year - known[other, _YEAR]))
    found[14] = year == known[other, _YEAR]
    found[15] = np.log1p(max(coupled, 0.0))
    found[16] = np.log1p(max(recently, 0.0))
    found[17] = np.log1p(max(closest, 0.0))
