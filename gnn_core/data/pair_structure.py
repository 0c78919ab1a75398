"""Structure of a pair of papers: what their neighbourhoods tell of a citation between them.

Common neighbours and walks of three steps, counted exactly over the training edges. The edge of the
pair itself is never counted, nor is a paper newer than the citing one: a training citation is then
seen as it was when it was made, as a missing one is.

Sources: Liben-Nowell, Kleinberg, "The Link Prediction Problem for Social Networks", CIKM 2003
(common neighbours, Jaccard); Adamic, Adar, "Friends and Neighbors on the Web", Social Networks
2003; Zhou, Lü, Zhang, "Predicting Missing Links via Local Information", EPJ B 2009 (each common
neighbour divided by its degree); Liu, Lü, "Link Prediction Based on Local Random Walk", EPL 2010;
Kovács et al., "Network-based Prediction of Protein Interactions", Nature Communications 2019 (paths
of three links, divided by the roots of the degrees on the way); Kessler, "Bibliographic Coupling
Between Scientific Papers", American Documentation 1963 (papers that cite the same ones are alike).
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
from gnn_core.data.pair_common import CommonNeighbours, reads_common
from gnn_core.data.pair_content import CONTENT, PairContent

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
    "citations of the other",
    "years since the other was cited",  # or, if it never was, since it was published
    "cited by references of the citing paper, each divided by its degree",
    "coupling of both by roots",
    "coupling of both by degrees",
    # Of the citing paper with those that cite the other: see `_COUPLINGS`.
    *(
        f"{which}, {shared} of what is shared by {own} of the paper"
        for shared in ("roots", "degrees")
        for own in ("root", "degree")
        for which in ("couplings", "of this year or the last", "strongest", "three strongest")
    ),
)
WIDTH = len(STRUCTURE)
_CITES, _CITED = 1, 2  # of an entry of `indices`: its row cites it, or is cited by it
_NEAR = 4  # of a neighbour of the citing paper, beside how the two are linked
# Columns of `weights`; the last two are relative to those of a paper of mean degree.
_LOG, _SHARE, _ROOT, _NEAR_ROOT, _NEAR_SHARE = range(5)
# Columns of `reach`: of walks of two steps that lead to a paper, the shares and the roots on their
# way; sums of the last two weights over the papers that it and the first cite; and its link to it.
_WALKS, _PATHS, _BY_ROOT, _BY_SHARE, _LINK = range(5)
# The coupling of two papers is one of two sums over what both cite, times a weight of the second.
_COUPLINGS = (
    (_BY_ROOT, _NEAR_ROOT),
    (_BY_ROOT, _NEAR_SHARE),
    (_BY_SHARE, _NEAR_ROOT),
    (_BY_SHARE, _NEAR_SHARE),
)
_FIRST = 20  # of the features of couplings: four of each


class PairStructure:
    """Structural features of pairs of papers, a pure function of a graph and the pair.

    Threads may share one: they take turns.

    Args:
        graph: whose edges are all that is looked at. Who cites whom is known of its training
            edges or, where it has none, of its citations; years may be unknown.
        content: of the same graph, whose features follow those of the structure; None: no such.
        common: of the same graph, for a predictor that reads embeddings of common neighbours.
    """

    def __init__(
        self,
        graph: Graph,
        content: PairContent | None = None,
        common: CommonNeighbours | None = None,
    ):
        self._graph = graph
        self.common = common
        self._content = content
        years = graph.years
        self._years = np.zeros(graph.num_nodes, np.int32) if years is None else np.asarray(years)
        self._ways, self._weights = _ways_of(graph), _weights_of(graph)
        self._reach = np.zeros((graph.num_nodes, 5))
        self._one_at_a_time = threading.Lock()

    def of(
        self, sources: IntArray, others: IntArray, hides_first: bool = False
    ) -> npt.NDArray[np.float32]:
        """Features of each source and each of its others.

        Args:
            sources: int64 `[n]`, the citing papers.
            others: int64 `[n, k]`.
            hides_first: the edge to the first of the others is not there for any of them, as that
                of a missing citation is not; otherwise each pair's own edge alone.

        Returns:
            float32 `[n, k, WIDTH]`, in the order of `STRUCTURE`; then those of the content.
        """
        found = np.empty((*others.shape, WIDTH), np.float32)
        graph = self._graph
        with self._one_at_a_time, damage_reported(graph):
            _measure(
                graph.indptr,
                graph.indices,
                self._ways,
                self._years,
                self._weights,
                sources,
                others,
                hides_first,
                self._reach,
                found,
            )
        if self._content is None:
            return found
        return np.concatenate([found, self._content.of(sources, others, hides_first)], axis=2)


def structure_width(config: Any) -> int:
    """Number of structural features that the predictor of a run reads, by its `RunConfig`."""
    widths = {"structure": WIDTH, "ncn": WIDTH, "content": WIDTH + len(CONTENT)}
    return widths.get(config.predictor, 0)


def structure_bytes(graph: Graph) -> int:
    """Memory of the two that a rank has of the graph: its loader's and its evaluator's."""
    return graph.num_edges + (40 + 2 * 44) * graph.num_nodes


def pair_structure(config: Any, graph: Graph) -> PairStructure | None:
    """What the predictor of a run reads of pairs, by its `RunConfig`; None: embeddings alone."""
    if not structure_width(config):
        return None
    return PairStructure(
        graph,
        PairContent(graph) if config.predictor == "content" else None,
        CommonNeighbours(graph) if reads_common(config) else None,
    )


@lru_cache(maxsize=1)
def _ways_of(graph: Graph) -> npt.NDArray[np.uint8]:
    """Who cites whom, see `_ways`; made once for the loaders and the evaluator of a run."""
    edges = graph.citations if graph.train_edges is None else graph.train_edges
    directed = np.empty((0, 2), np.int64) if edges is None else np.asarray(edges)
    with damage_reported(graph):
        ways: npt.NDArray[np.uint8] = _ways(graph.indptr, graph.indices, directed)
    return ways


@lru_cache(maxsize=1)
def _weights_of(graph: Graph) -> npt.NDArray[np.float64]:
    """1 / logarithm, 1 / itself and 1 / root of the degree of each paper and so on, `[N, 5]`."""
    degrees = np.maximum(np.diff(graph.indptr), 1)
    near = graph.num_edges / graph.num_nodes / degrees
    own = [1 / np.log(np.maximum(degrees, 2)), 1 / degrees, 1 / np.sqrt(degrees)]
    return np.stack([*own, np.sqrt(near), near], axis=1)


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
def _measure(  # type: ignore[no-untyped-def]
    indptr, indices, ways, years, weights, sources, others, hides_first, reach, found
):
    """Fill `found`; `reach` is zero before and after."""
    num_nodes, num_edges = len(indptr) - 1, len(indices)
    strongest = np.empty((len(_COUPLINGS), 3))
    for i in range(len(sources)):
        source = sources[i]
        require_node(source, num_nodes)
        begin, end = indptr[source], indptr[source + 1]
        require_row(begin, end, num_edges)
        year = years[source]
        hidden = others[i, 0] if hides_first else -1
        degree = 0
        for place in range(begin, end):
            middle = indices[place]
            require_node(middle, num_nodes)
            if years[middle] > year or middle == source or middle == hidden:
                continue
            degree += 1
            reach[middle, _LINK] = ways[place] | _NEAR
            first, last = indptr[middle], indptr[middle + 1]
            require_row(first, last, num_edges)
            share, root = weights[middle, _SHARE], weights[middle, _ROOT]
            cites = ways[place] & _CITES != 0
            near_root, near_share = weights[middle, _NEAR_ROOT], weights[middle, _NEAR_SHARE]
            for other in range(first, last):
                then = indices[other]
                require_node(then, num_nodes)
                reach[then, _WALKS] += share
                reach[then, _PATHS] += root
                if cites and ways[other] & _CITED:
                    reach[then, _BY_ROOT] += near_root
                    reach[then, _BY_SHARE] += near_share
        reach[source] = 0
        for j in range(others.shape[1]):
            require_node(others[i, j], num_nodes)
            _measure_pair(
                *(indptr, indices, ways, years, weights),
                *(source, others[i, j], degree, reach, strongest, found[i, j]),
            )
        for place in range(begin, end):
            middle = indices[place]
            if years[middle] > year or middle == hidden:
                continue
            reach[middle] = 0
            for other in range(indptr[middle], indptr[middle + 1]):
                reach[indices[other]] = 0


@njit(cache=True, nogil=True)
def _measure_pair(  # type: ignore[no-untyped-def]
    indptr, indices, ways, years, weights, source, other, degree, reach, strongest, found
):
    begin, end = indptr[other], indptr[other + 1]
    require_row(begin, end, len(indices))
    year = years[source]
    # The pair's own edge, if there is one, leads from the source to `other` and back.
    link = np.int64(reach[other, _LINK])
    own_share = weights[other, _SHARE] if link else 0.0
    own_root = weights[other, _ROOT] if link else 0.0
    degree -= link != 0
    adamic_adar = allocated = walks = paths = strongest[:] = 0.0
    last = years[other]
    found[:] = 0  # its counts are counted in place
    for place in range(begin, end):
        middle = indices[place]
        require_node(middle, len(reach))
        if middle == source or middle == other or years[middle] > year:
            continue
        found[8] += 1
        way = ways[place]
        is_recent = years[middle] >= year - 1
        if way & _CITED:
            found[15] += 1
            found[9] += is_recent
            last = max(last, years[middle])
        near = np.int64(reach[middle, _LINK])
        if reach[middle, _WALKS] == 0 and near == 0:  # most are far from the source
            continue
        share, root = weights[middle, _SHARE], weights[middle, _ROOT]
        walks += (reach[middle, _WALKS] - own_share) * share
        paths += (reach[middle, _PATHS] - own_root) * root
        if way & _CITED and reach[middle, _BY_ROOT] > 0:
            hidden = other if link & _CITES else -1
            _add_couplings(middle, hidden, is_recent, weights, reach, strongest, found)
        if near == 0:
            continue
        found[0] += 1
        adamic_adar += weights[middle, _LOG]
        allocated += share
        _count_common(near, way, weights[middle, _NEAR_SHARE], found)
    common, links = found[0], found[8]
    total = len(indices) / (max(degree, 1) * max(links, 1))
    found[1] = adamic_adar
    found[6] = common / max(degree + links - common, 1)
    found[7] = degree
    found[10] = allocated * total
    found[11] = max(walks, 0.0) * total
    found[12] = max(paths, 0.0)
    found[13] = abs(year - years[other])
    found[14] = year == years[other]
    found[16] = abs(year - last)
    found[18] = reach[other, _BY_ROOT] * weights[other, _NEAR_ROOT]
    found[19] = reach[other, _BY_SHARE] * weights[other, _NEAR_SHARE]
    for kind in range(len(strongest)):
        found[_FIRST + 4 * kind + 2] = strongest[kind, 0]
        found[_FIRST + 4 * kind + 3] = strongest[kind].sum()
    for i in range(len(found)):
        found[i] = found[i] if i in (6, 14) else np.log1p(found[i])


@njit(cache=True, nogil=True)
def _count_common(near, way, share, found):  # type: ignore[no-untyped-def]
    """Count a common neighbour by who cites whom."""
    if near & _CITES and way & _CITED:
        found[2] += 1
        found[17] += share
    found[3] += (near & _CITES != 0) and (way & _CITES != 0)
    found[4] += (near & _CITED != 0) and (way & _CITED != 0)
    found[5] += (near & _CITED != 0) and (way & _CITES != 0)


@njit(cache=True, nogil=True)
def _add_couplings(middle, hidden, is_recent, weights, reach, strongest, found):  # type: ignore[no-untyped-def]
    """Count the couplings of a paper with the source, without `hidden` (-1: nothing is hidden)."""
    for kind in range(len(_COUPLINGS)):
        column, own = _COUPLINGS[kind]
        shared = reach[middle, column]
        if hidden >= 0:
            shared -= weights[hidden, _NEAR_ROOT if column == _BY_ROOT else _NEAR_SHARE]
        coupling = max(shared, 0.0) * weights[middle, own]
        found[_FIRST + 4 * kind] += coupling
        found[_FIRST + 4 * kind + 1] += coupling if is_recent else 0.0
        for place in range(3):
            if coupling > strongest[kind, place]:
                coupling, strongest[kind, place] = strongest[kind, place], coupling
