"""Evaluation of link prediction: held-out references ranked among their candidates.

Embeddings are exact and computed layer by layer, split over the ranks, and so are the references.
A rank scores a bounded number of pairs at a time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gnn_core import seeding
from gnn_core.data.candidates import Candidates
from gnn_core.data.graph import Graph
from gnn_core.data.loader import rank_slice
from gnn_core.data.pair_common import sums_of
from gnn_core.data.pair_structure import PairStructure
from gnn_core.measure.metrics import RankingTally
from gnn_core.measure.pair_scores import Calibration, PairScores
from gnn_core.training.evaluate import ExactEvaluator, LayerwiseModel
from gnn_core.training.world import World

CHUNK_PAIRS = 65_536
SPLITS = ("valid", "test")


@runtime_checkable
class LinkScorer(LayerwiseModel, Protocol):
    """A model that embeds layer by layer and scores pairs of embeddings."""

    def scores(
        self,
        left: npt.NDArray[Any],
        right: npt.NDArray[Any],
        structure: npt.NDArray[np.float32] | None = None,
        common: tuple[npt.NDArray[np.int64], npt.NDArray[Any]] | None = None,
    ) -> npt.NDArray[Any]:
        """Scores `[n]` of n pairs of embeddings `[n, width]`; higher is likelier.

        `structure` `[n, S]` are the features of the pairs, if the model reads them; so are `common`
        places of the pairs `[R]` that have common neighbours, and sums `[R, width]` over these.
        """


def scored(
    model: LinkScorer,
    states: npt.NDArray[Any],
    structure: PairStructure | None,
    papers: npt.NDArray[np.int64],
    others: npt.NDArray[np.int64],
) -> npt.NDArray[Any]:
    """Scores `[n, k]` of papers `[n]` and others of each `[n, k]`.

    `states` `[N, width]` are the embeddings, of all nodes that are read: see `read_with`.
    """
    left = np.repeat(states[papers], others.shape[1], axis=0)
    features = common = None
    if structure is not None:
        found = structure.of(papers, others)
        features = found.reshape(-1, found.shape[2])
        if structure.common is not None:
            near = structure.common.of(papers, others)
            common = (near.pairs, sums_of(near, states))
    scores = model.scores(left, states[others.ravel()], features, common)
    return scores.reshape(others.shape)


def read_with(
    structure: PairStructure | None, papers: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The nodes whose embeddings are read, too, to score pairs of these papers."""
    if structure is None or structure.common is None:
        return papers[:0]
    return structure.common.around(papers)


class LinkEvaluator:
    """Ranks held-out references; every run ranks the same ones among the same candidates.

    Args:
        graph: with its held-out edges.
        world: the other ranks.
        model: what is evaluated.
        candidates: how many papers a reference is ranked against.
        most_edges: references that tell one epoch from the next; 0 is all.
        share_directly: as in `ExactEvaluator`.
        threads: as in `ExactEvaluator`.
        structure: of pairs, if the model reads it.
        loss: that of training, `bce` or `softmax`.

    Raises:
        UsageError: there are fewer candidates than that.
    """

    def __init__(
        self,
        graph: Graph,
        world: World,
        model: LinkScorer,
        *,
        candidates: int,
        most_edges: int,
        share_directly: bool | None = None,
        threads: int = 1,
        structure: PairStructure | None = None,
        loss: str = "bce",
    ):
        self._graph = graph
        self._world = world
        self._model = model
        self._exact = ExactEvaluator(graph, world, model, share_directly, threads)
        self._candidates = {split: Candidates(graph, split, candidates) for split in SPLITS}
        self._most_edges = most_edges
        self._structure = structure
        self._loss = loss

    def tallies(self, splits: tuple[str, ...], whole: bool = True) -> dict[str, RankingTally]:
        """The tally of each split, or of a part of it: see `evaluate.Evaluator`.

        With all of the validation split there are also the accuracy and the average precision of
        each reference against its first candidate.
        """
        ranked = self._ranked(splits, whole)
        if not whole or "valid" not in splits:
            return {split: tally for split, (tally, _) in ranked.items()}
        threshold = ranked["valid"][1].threshold()
        return {
            split: replace(
                tally,
                pair_accuracy=pairs.accuracy(threshold),
                average_precision=pairs.average_precision(),
            )
            for split, (tally, pairs) in ranked.items()
        }

    def calibration(self) -> Calibration:
        """From scores to probabilities, by a part of the validation references. Collective."""
        return Calibration.of(self._ranked(("valid",), whole=False)["valid"][1])

    def _ranked(
        self, splits: tuple[str, ...], whole: bool
    ) -> dict[str, tuple[RankingTally, PairScores]]:
        chosen = {split: self._chosen(split, whole) for split in splits}
        states = self._exact.embeddings(self._met(chosen))
        return {split: self._rank(states, split, rows) for split, rows in chosen.items()}

    def _chosen(self, split: str, whole: bool) -> npt.NDArray[np.int64]:
        """Which edges of the split are ranked: the same ones each time."""
        count = len(self._edges(split))
        most = count if whole else min(self._most_edges or count, count)
        order = np.arange(count)
        return (
            np.sort(seeding.permutation(count, "ranked", split)[:most]) if most < count else order
        )

    def _edges(self, split: str) -> npt.NDArray[np.integer]:
        edges: npt.NDArray[np.integer] = getattr(self._graph, f"{split}_edges")
        return edges

    def _met(self, chosen: dict[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        """All papers that are scored, each once."""
        met = np.zeros(self._graph.num_nodes, np.bool_)
        for split, rows in chosen.items():
            edges = np.asarray(self._edges(split)[rows], np.int64)
            met[edges.ravel()] = True
            met[read_with(self._structure, edges[:, 0])] = True
            for part in self._parts(split, rows):
                met[self._candidates[split].of(part)] = True
        return np.flatnonzero(met)

    def _parts(self, split: str, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        size = max(1, CHUNK_PAIRS // (self._candidates[split].count + 1))
        return [rows[first : first + size] for first in range(0, len(rows), size)]

    def _rank(
        self, states: npt.NDArray[Any], split: str, rows: npt.NDArray[np.int64]
    ) -> tuple[RankingTally, PairScores]:
        """Rank this rank's part of the edges, and sum over the ranks."""
        world = self._world
        own = rank_slice(len(rows), world.rank, world.world_size)
        mine = rows[own]
        total = RankingTally()
        pairs = np.zeros((len(rows), 2))  # each rank fills its part
        done = own.start
        for part in self._parts(split, mine):
            if world.stop_signal is not None:
                break
            edges = np.asarray(self._edges(split)[part], np.int64)
            candidates = self._candidates[split].of(part)
            others = np.concatenate([edges[:, 1:], candidates], axis=1)
            scores = scored(self._model, states, self._structure, edges[:, 0], others)
            total += RankingTally.of(scores[:, 0], scores[:, 1:], self._loss)
            pairs[done : done + len(part)] = scores[:, :2]
            done += len(part)
        world.stop_together()
        pairs = world.sum(pairs.ravel()).reshape(pairs.shape)
        return RankingTally.from_vector(world.sum(total.to_vector())), PairScores(*pairs.T)
