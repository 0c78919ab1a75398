"""Which citations are held out for link prediction; the rest is what may be trained on.

A held-out pair is gone in both directions: where two papers cite each other, one edge stands for
both. What is chosen is a pure function of the edges, the years and a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gnn_core import seeding
from gnn_core.usage import UsageError

IntArray = npt.NDArray[np.integer]
NEWEST, RANDOM = "newest", "random"
FEWEST_REFERENCES = 3  # of a paper that gives up two: one is left to know it by


@dataclass(frozen=True)
class HeldOut:
    """Edges `[n, 2]`, (citing, cited), each pair of papers in one of the three."""

    train: IntArray
    valid: IntArray
    test: IntArray


def distinct_pairs(citations: IntArray) -> IntArray:
    """The citations `[M, 2]` without self-citations, each pair of papers once: the first way."""
    edges = np.asarray(citations)
    edges = edges[edges[:, 0] != edges[:, 1]]
    low, high = edges.min(axis=1).astype(np.int64), edges.max(axis=1).astype(np.int64)
    span = int(high.max()) + 1 if len(high) else 1
    _, first = np.unique(low * span + high, return_index=True)
    distinct: IntArray = edges[np.sort(first)]
    return distinct


def newest(citations: IntArray, years: npt.NDArray[np.int32], share: float) -> HeldOut:
    """Of the newest papers two references each are held out, one to validate on and one to test on.

    The task of ogbl-citation2 (Hu et al., NeurIPS 2020).

    Args:
        citations: `[M, 2]` (citing, cited).
        years: `[N]`.
        share: of all papers, how many give up two references; of those with at least three.

    Raises:
        UsageError: no paper has as many.
    """
    edges = distinct_pairs(citations)
    references = np.bincount(edges[:, 0], minlength=len(years))
    papers = np.flatnonzero(references >= FEWEST_REFERENCES)
    if not len(papers):
        raise UsageError(
            f"--hold-out newest: expected papers with at least {FEWEST_REFERENCES} references, of "
            "which two are held out, got none; use --hold-out random"
        )
    shuffled = papers[seeding.permutation(len(papers), "hold out", "papers")]
    by_year = shuffled[np.argsort(-years[shuffled], kind="stable")]
    chosen = np.zeros(len(years), np.bool_)
    chosen[by_year[: max(1, round(share * len(years)))]] = True

    theirs = np.flatnonzero(chosen[edges[:, 0]])
    order = theirs[seeding.permutation(len(theirs), "hold out", "references")]
    order = order[np.argsort(edges[order, 0], kind="stable")]  # by paper, in random order in each
    place = _place_in_group(edges[order, 0])
    return _cut(edges, valid=order[place == 1], test=order[place == 0])


def at_random(citations: IntArray, share: float, seed: int) -> HeldOut:
    """Hold out this share of all pairs to validate on, and as many others to test on.

    Raises UsageError where nothing would be left to train on.
    """
    edges = distinct_pairs(citations)
    count = max(1, round(share * len(edges)))
    if 2 * count >= len(edges):
        raise UsageError(
            f"--held-out {share:g}: expected to leave edges to train on, but of {len(edges)} it "
            f"takes {count} for validation and {count} for the test; lower it"
        )
    order = seeding.permutation(len(edges), seed, "hold out", "edges")
    return _cut(edges, valid=order[:count], test=order[count : 2 * count])


def _place_in_group(groups: IntArray) -> npt.NDArray[np.int64]:
    """0, 1, 2, ... within each run of equal numbers."""
    begins = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
    lengths = np.diff(np.append(begins, len(groups)))
    return np.arange(len(groups)) - np.repeat(begins, lengths)


def _cut(edges: IntArray, *, valid: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> HeldOut:
    stays = np.ones(len(edges), np.bool_)
    stays[valid] = stays[test] = False
    return HeldOut(edges[stays], edges[np.sort(valid)], edges[np.sort(test)])
