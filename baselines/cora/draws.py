"""Everything random in training, as functions of (seed, epoch, step, paper), never of a replica.

So what the replicas of a step draw together is what one replica would have drawn, and a run on two
replicas learns what a run on one learns, to float rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.cora.papers import Papers
from baselines.cora.settings import CoraSettings
from gnn_core.compiled import njit
from gnn_core.dropout import LEVELS, dropout_factors, dropout_threshold
from gnn_core.seeding import below, key, mix, permutation

# mypy: disable-error-code="no-untyped-def"

_LONGEST_WALK = 100
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
BatchArrays = dict[str, Any]
"""Named arrays, one batch of one replica: what a compiled step takes."""


def batches(length: int, at_most: int, *parts: int | str) -> list[Ids]:
    """Cut 0 .. length - 1, shuffled by the key parts, into pieces of nearly equal size."""
    order = permutation(length, *parts)
    return np.array_split(order, -(-length // at_most))


def share(nodes: Ids, replica: int, num_replicas: int, length: int = 0) -> tuple[Ids, Floats]:
    """The slice of a global batch that is one replica's, int64 [n], and its weights float32 [n].

    Every slice has n = ceil(max(length, len(nodes)) / num_replicas) rows, so that batches of
    nearly equal length have one shape; padding has weight 0.
    """
    size = -(-max(length, len(nodes)) // num_replicas)
    mine = nodes[replica * size : (replica + 1) * size]
    padded = np.concatenate([mine, np.full(size - len(mine), nodes[0])])
    return padded, (np.arange(size) < len(mine)).astype(np.float32)


def dropped(values: npt.NDArray, nodes: Ids, key: int, probability: float) -> Floats:
    """Rows `[n, width]` with some numbers dropped and the others scaled up, by key and paper."""
    threshold = dropout_threshold(probability)
    if not threshold:
        return values
    factors = np.empty(values.shape, np.float32)
    dropout_factors(nodes, np.uint64(key), threshold, factors)
    return values * factors


def contexts(papers: Papers, nodes: Ids, key: int, restart: float) -> Ids:
    """Where a random walk from each of `nodes` ends, int64 `[n]`; it stays where nobody is cited.

    After each step the walk ends with chance `restart`, so ends are drawn as personalised PageRank
    ranks them.
    """
    ends = np.empty(len(nodes), np.int64)
    _walk(papers.indptr, papers.indices, nodes, np.uint64(key), round(restart * LEVELS), ends)
    return ends


@njit(nogil=True, cache=True)
def _walk(indptr, indices, nodes, key, threshold, ends):
    for i in range(len(nodes)):
        state = mix(key, np.uint64(nodes[i]))
        at = nodes[i]
        for step in range(_LONGEST_WALK):
            degree = indptr[at + 1] - indptr[at]
            if degree == 0:
                break
            bits = mix(state, np.uint64(step))
            at = indices[indptr[at] + below(bits, np.uint32(degree))]
            if np.int64(bits & np.uint64(0xFFFF)) < threshold:  # `below` reads the upper half
                break
        ends[i] = at


def negatives(papers: Papers, count: int, key: int) -> Ids:
    """Papers drawn by degree to the power 3/4, int64 `[count]`: the same ones for all replicas."""
    weights = np.cumsum(np.diff(papers.indptr).astype(np.float64) ** 0.75)
    random = np.random.Generator(np.random.Philox(key=key)).random(count)
    found = np.searchsorted(weights, random * weights[-1], side="right")
    return np.minimum(found, papers.num_papers - 1)


@dataclass(frozen=True, eq=False)
class Draw:
    """Draws the batches of one run."""

    papers: Papers
    settings: CoraSettings
    seed: int

    @property
    def with_words(self) -> bool:
        """Whether the model reads words."""
        return "words" in self.settings.model

    def pretraining(self, epoch: int, replica: int, num_replicas: int) -> Iterator[BatchArrays]:
        """One replica's part of each step of an epoch: papers, a context of each, negatives."""
        cut = batches(self.papers.num_papers, self.settings.pretrain_batch, self.seed, epoch)
        for step, nodes in enumerate(cut):
            mine, weights = share(nodes, replica, num_replicas, len(cut[0]))
            batch = {"weights": weights, "total": np.float32(len(nodes))}
            yield batch | self._contrast(mine, (epoch, step))

    def _contrast(self, mine: Ids, step: tuple[int, int]) -> BatchArrays:
        settings = self.settings
        walk, apart = key(self.seed, "walk", *step), key(self.seed, "negatives", *step)
        there = contexts(self.papers, mine, walk, settings.restart)
        others = negatives(self.papers, settings.negatives, apart)
        batch: BatchArrays = {}
        for role, ids in (("source", mine), ("context", there), ("negative", others)):
            batch[role] = ids
            if self.with_words:
                batch[f"{role}_words"] = self._words(ids, key(self.seed, role, *step))
        return batch

    def training(self, epoch: int, replica: int, num_replicas: int, inputs: int) -> BatchArrays:
        """One replica's part of the training papers, with labels and dropout `[n, inputs]`."""
        nodes = self.papers.nodes["train"]
        mine, weights = share(nodes, replica, num_replicas)
        ones = np.ones((len(mine), inputs), np.float32)
        batch: BatchArrays = {
            "weights": weights,
            "total": np.float32(len(nodes)),
            "source": mine,
            "labels": self.papers.labels[mine],
            "keep": dropped(ones, mine, key(self.seed, "head", epoch), self.settings.head_dropout),
        }
        if self.with_words:
            batch["source_words"] = self._words(mine, key(self.seed, "words", epoch))
        return batch

    def whole(self, nodes: Ids) -> BatchArrays:
        """Papers as they are, for evaluation."""
        batch: BatchArrays = {"source": nodes}
        if self.with_words:
            batch["source_words"] = self.papers.words[nodes]
        return batch

    def _words(self, nodes: Ids, key: int) -> Floats:
        return dropped(self.papers.words[nodes], nodes, key, self.settings.word_dropout)
