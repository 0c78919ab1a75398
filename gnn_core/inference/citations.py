"""Missing citations: the papers that a model scores highest for a paper, and that it does not know.

Ranks share the papers. Each paper's candidates are scored a bounded number at a time, in the same
pieces on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.graph import Graph
from gnn_core.data.loader import rank_slice
from gnn_core.data.pair_structure import PairStructure
from gnn_core.data.progress import Progress, silent
from gnn_core.training.evaluate import ExactEvaluator
from gnn_core.training.link_ranking import CHUNK_PAIRS, LinkScorer, read_with, scored
from gnn_core.training.world import World

IntArray = npt.NDArray[np.int64]


def missing_citations(
    known: Graph,
    evaluator: ExactEvaluator,
    world: World,
    model: LinkScorer,
    *,
    papers: IntArray,
    candidates: IntArray,
    top_k: int,
    structure: PairStructure | None = None,
    take: Callable[[int, IntArray, npt.NDArray[Any]], None],
    progress: Progress = silent,
) -> None:
    """Give `take` the best candidates of each of this rank's papers. Every rank must call it.

    Left out are the paper itself and whatever it cites or is cited by: a score does not tell the
    direction of a citation. Ranks' papers are consecutive. Raises Stopped, on all ranks alike.

    Args:
        known: the graph with every citation that is known.
        evaluator: of the model, on the graph whose citations it looks at.
        world: the other ranks.
        model: embeds papers and scores pairs.
        papers: `[P]`, whose missing citations are asked for.
        candidates: `[C]`, ascending and distinct.
        top_k: how many of them.
        structure: of pairs, if the model reads it.
        take: gets a paper, candidates `[k]`, best first, and their scores `[k]`; k <= top_k.
        progress: is told how many of this rank's papers are done.
    """
    near = read_with(structure, papers)
    states = evaluator.embeddings(np.unique(np.concatenate([papers, candidates, near])))
    held_out = _held_out_of(known, papers)
    mine = papers[rank_slice(len(papers), world.rank, world.world_size)]
    for done, paper in enumerate(mine.tolist()):
        if world.stop_signal is not None:
            break
        linked = known.indices[known.indptr[paper] : known.indptr[paper + 1]].astype(np.int64)
        linked = np.concatenate([[paper], linked, held_out[(held_out == paper).any(1)].ravel()])
        take(paper, *_best(model, states, structure, paper, candidates, linked, top_k, world))
        progress("papers", done + 1, len(mine))
    world.stop_together()


def common_neighbours(
    graph: Graph, paper: int, others: IntArray, most: int
) -> tuple[IntArray, IntArray]:
    """What a paper and each of others `[k]` are both linked to: why a citation is suggested.

    Returns their numbers `[k]` and the first `most` of them, int64 `[k, most]`: those with the
    fewest links, which tell the most, of equal ones the lower number; -1 where there are no more.
    """
    counts = np.zeros(len(others), np.int64)
    found = np.full((len(others), most), -1, np.int64)
    mine = graph.indices[graph.indptr[paper] : graph.indptr[paper + 1]]
    for row, other in enumerate(others.tolist()):
        theirs = graph.indices[graph.indptr[other] : graph.indptr[other + 1]]
        common = np.intersect1d(mine, theirs).astype(np.int64)
        first = common[np.argsort(np.diff(graph.indptr)[common], kind="stable")[:most]]
        counts[row], found[row, : len(first)] = len(common), first
    return counts, found


def _best(
    model: LinkScorer,
    states: npt.NDArray[Any],
    structure: PairStructure | None,
    paper: int,
    candidates: IntArray,
    linked: IntArray,
    top_k: int,
    world: World,
) -> tuple[IntArray, npt.NDArray[Any]]:
    """The candidates of highest score and these, best first, of equal ones the lower number."""
    best, scores = candidates[:0], states[:0, 0]
    for first in range(0, len(candidates), CHUNK_PAIRS):
        if world.stop_signal is not None:
            break
        piece = candidates[first : first + CHUNK_PAIRS]
        found = scored(model, states, structure, np.array([paper]), piece[None])[0]
        missing = ~np.isin(piece, linked)
        best = np.concatenate([best, piece[missing]])
        scores = np.concatenate([scores, found[missing]])
        order = np.lexsort([best, -scores])[:top_k]
        best, scores = best[order], scores[order]
    return best, scores


def _held_out_of(known: Graph, papers: IntArray) -> npt.NDArray[np.int64]:
    """Published held-out edges int64 `[n, 2]` of these papers, which no message passes along."""
    found = [np.empty((0, 2), np.int64)]
    for edges in (known.valid_edges, known.test_edges):
        if edges is not None:
            found.append(edges[np.isin(edges, papers).any(axis=1)].astype(np.int64))
    return np.concatenate(found)
