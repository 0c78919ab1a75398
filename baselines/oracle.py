"""The best possible ranking of missing citations in a synthetic graph, by the rules that made it.

The generator draws a paper's citations one by one, by chances that depend on topics, age and on
what the cited papers cite (`gnn_core.data.synthetic`). The oracle knows the rules and all topics,
and sees the training citations, but not the random numbers: no model can be expected to rank much
better.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gnn_core.data.graph import Graph
from gnn_core.data.synthetic import PaperAttributes
from gnn_core.data.synthetic_spec import SyntheticSpec

Floats = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_ONE = float(1 << 32)  # the number 1 where probabilities are 32-bit fractions


class Oracle:
    """Probabilities of citations.

    Args:
        spec: of the graph.
        graph: with its edges split; the training edges are seen.
    """

    def __init__(self, spec: SyntheticSpec, graph: Graph):
        assert graph.train_edges is not None
        known = PaperAttributes(spec)
        self._known, self._closure = known, spec.closure
        self._topics = known.topics.astype(np.int64)
        self._ends = np.append(known.first[1:], spec.papers)
        self._shares = np.diff(known.first, append=spec.papers) / spec.papers
        size = (spec.papers, spec.papers)
        edges = np.asarray(graph.train_edges, np.int64)
        ones = np.ones(len(edges))
        self._cited = sparse.coo_array((ones, tuple(edges.T)), size).tocsr()
        within = edges[self._topics[edges[:, 0]] == self._topics[edges[:, 1]]]
        counts = np.bincount(within[:, 0], minlength=spec.papers)
        # Row a: where a citation leads that is copied from one that `a` makes within its topic.
        steps = 1 / counts[within[:, 0]]
        self._copied = sparse.coo_array((steps, tuple(within.T)), size).tocsr()
        self._copied_from = self._copied.T.tocsr()

    def scores(self, papers: IntArray, others: IntArray) -> Floats:
        """Probabilities, up to a factor for each paper, that papers `[n]` cite others `[n, k]`."""
        found = [self._of(paper)[theirs] for paper, theirs in zip(papers, others, strict=True)]
        return np.array(found).reshape(others.shape)

    def _of(self, paper: int) -> Floats:
        """For all papers, how likely this one cites them beside what it is known to cite."""
        seen = self._cited.indices[self._cited.indptr[paper] : self._cited.indptr[paper + 1]]
        drawn = self._drawn(paper, seen)
        if not self._closure or not len(seen):
            return drawn
        closing = np.asarray(self._copied[seen].sum(axis=0)).ravel() / len(seen)
        either = (1 - self._closure) * drawn + self._closure * closing
        # The missing paper may also be one that a citation which is seen was copied from.
        weights = np.zeros(len(drawn))
        weights[seen] = self._closure / (len(seen) * np.maximum(either[seen], 1e-12))
        explained = np.asarray(self._copied @ weights)
        return either + (1 - self._closure) * drawn * explained

    def _drawn(self, paper: int, seen: IntArray) -> Floats:
        """The chances of a citation that closes no triangle."""
        own = int(self._topics[paper])
        mine, any_paper, second = self._aims(own, self._topics[seen])
        base = np.zeros(len(self._topics))
        _add_older(base, np.arange(paper), any_paper)
        for topic in np.flatnonzero(second).tolist():
            _add_older(base, self._older(topic, paper), second[topic])
        _add_older(base, self._older(own, paper), mine)
        return np.asarray((base + base @ self._copied) / 2)

    def _aims(self, own: int, seen: IntArray) -> tuple[float, float, Floats]:
        """Chances to aim at the own topic, at any paper, and at each topic as the second one."""
        devoted, focused, bordering = (float(odds) / _ONE for odds in self._known.odds)
        counts = np.bincount(seen, minlength=len(self._shares))
        by_chance = (1 - focused) * self._shares
        by_chance[own] += focused
        likely = np.log(devoted + 1e-12) + counts @ np.log(by_chance + 1e-12)
        # Of a paper on a border: its own topic, its second one, and hardly any other.
        theirs = counts * np.log((1 - bordering) + 1e-12)
        rest = (counts.sum() - counts[own] - counts) * np.log(1e-3)
        second = np.log((1 - devoted) / max(len(counts) - 1, 1) + 1e-12) + theirs + rest
        second += counts[own] * np.log(bordering + 1e-12)
        second[own] = -np.inf
        top = max(likely, second.max())
        weights = np.exp(second - top)
        devoted = np.exp(likely - top)
        total = devoted + weights.sum()
        devoted, weights = devoted / total, weights / total
        mine = devoted * focused + (1 - devoted) * bordering
        return mine, devoted * (1 - focused), (1 - bordering) * weights

    def _older(self, topic: int, paper: int) -> IntArray:
        """Papers of a topic that are older, the oldest first."""
        members = self._known.members[self._known.first[topic] : self._ends[topic]]
        return members[: np.searchsorted(members, paper)].astype(np.int64)


def _add_older(base: Floats, papers: IntArray, chance: float) -> None:
    """Add the chances to aim at each of these papers, the oldest first; newer ones are likelier."""
    count = len(papers)
    if count:
        base[papers[::-1]] += chance * np.diff(np.sqrt(np.arange(count + 1) / count))
