"""What a held-out reference is ranked against: papers drawn for its citing paper.

Candidates of a paper are others without a citation between the two, either way, and, where years
are known, not newer than it: any of them could have been cited. (Of papers that cite each other
one edge is known, see `hold_out`, and a score does not show its direction.) They are drawn without
replacement, as a pure function of the split and the edge, so that every run, framework and rank
ranks against the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gnn_core import seeding
from gnn_core.compiled import njit
from gnn_core.data.graph import Graph
from gnn_core.seeding import GOLDEN_GAMMA, below, mix, splitmix64
from gnn_core.usage import UsageError

_GAMMA = np.uint64(GOLDEN_GAMMA)


class Candidates:
    """The candidates of the held-out edges of one split.

    Args:
        graph: with its edges split; published candidates are taken where it has them.
        split: `valid` or `test`.
        count: papers that each reference is ranked against.

    Raises:
        UsageError: a paper has fewer candidates than that.
    """

    def __init__(self, graph: Graph, split: str, count: int):
        edges = getattr(graph, f"{split}_edges")
        self._published = getattr(graph, f"{split}_candidates")
        self._sources = np.ascontiguousarray(edges[:, 0], np.int64)
        self.count = count
        if self._published is not None:
            if count > (published := self._published.shape[1]):
                raise UsageError(
                    f"--candidates {count}: graph {graph.name} is published with {published} for "
                    "each reference; ask for no more"
                )
            return
        self._key = np.uint64(seeding.key("candidates", split))
        years = graph.years
        self._years = np.zeros(graph.num_nodes, np.int32) if years is None else np.asarray(years)
        papers, self._linked = _linked_pairs(graph, self._sources)
        self._begins = np.searchsorted(papers, self._sources, side="left")
        self._ends = np.searchsorted(papers, self._sources, side="right")
        self._met = np.full(graph.num_nodes, -1, np.int64)
        self._require_enough(graph.name, papers)

    def of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Candidates of these edges of the split: int64 `[len(rows), count]`."""
        if self._published is not None:
            return np.asarray(self._published[rows, : self.count], np.int64)
        drawn = np.empty((len(rows), self.count), np.int64)
        _draw(
            rows,
            self._sources,
            self._begins,
            self._ends,
            self._linked,
            self._years,
            self._key,
            self._met,
            drawn,
        )
        return drawn

    def _require_enough(self, name: str, papers: npt.NDArray[np.int64]) -> None:
        """The fewest candidates that one of the citing papers has must do."""
        by_year, theirs = np.sort(self._years), self._years[self._sources]
        not_newer = np.searchsorted(by_year, theirs, side="right")
        among_them = self._years[self._linked] <= self._years[papers]
        up_to = np.concatenate([[0], np.cumsum(among_them)])
        others = not_newer - 1 - (up_to[self._ends] - up_to[self._begins])
        fewest = int(others.min()) if len(others) else self.count
        if fewest < self.count:
            raise UsageError(
                f"--candidates {self.count}: graph {name} has a held-out reference that can be "
                f"ranked against {max(0, fewest)} papers only; lower it"
            )


def _linked_pairs(
    graph: Graph, sources: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Papers of `sources`, ascending, and beside each whom it cites or is cited by in any split."""
    asked = np.zeros(graph.num_nodes, np.bool_)
    asked[sources] = True
    found = []
    for split in ("train", "valid", "test"):
        edges = getattr(graph, f"{split}_edges")
        for own, other in ((0, 1), (1, 0)):
            theirs = np.asarray(edges[asked[edges[:, own]]], np.int64)
            theirs = theirs[theirs[:, own] != theirs[:, other]]
            found.append(theirs[:, own] * graph.num_nodes + theirs[:, other])
    papers, linked = np.divmod(np.unique(np.concatenate(found)), graph.num_nodes)
    return papers, linked


@njit(cache=True, nogil=True)
def _draw(rows, sources, begins, ends, linked, years, key, met, drawn):  # type: ignore[no-untyped-def]
    """Draw uniformly, and again where a paper is no candidate or was drawn already.

    `met[node] == edge` means that this edge cannot have the node (any more).
    """
    num_nodes = np.uint32(len(met))
    for row, edge in enumerate(rows):
        source = sources[edge]
        met[source] = edge
        for position in range(begins[edge], ends[edge]):
            met[linked[position]] = edge
        state = mix(key, np.uint64(edge))
        count = 0
        while count < drawn.shape[1]:
            state += _GAMMA
            node = np.int64(below(splitmix64(state), num_nodes))
            if met[node] != edge and years[node] <= years[source]:
                met[node] = edge
                drawn[row, count] = node
                count += 1
        # So that asking for the same edge again gives the same.
        met[source] = -1
        for position in range(begins[edge], ends[edge]):
            met[linked[position]] = -1
        for node in drawn[row]:
            met[node] = -1
