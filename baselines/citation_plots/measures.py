"""What can be counted in a small labelled graph with words, as arrays; nothing is drawn here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gnn_core.data.graph import Graph
from gnn_core.usage import UsageError

# Planetoid's files number the classes of Cora and do not name them. The names follow from the class
# sizes, which are those of the LINQS files, all different.
_CORA = (
    "theory",
    "reinforcement learning",
    "genetic algorithms",
    "neural networks",
    "probabilistic methods",
    "case-based",
    "rule learning",
)
_NAMES = {"cora": _CORA}


@dataclass(frozen=True, eq=False)
class ClassMeasures:
    """One row per class, C of them, and one per paper, N."""

    names: Sequence[str]
    sizes: npt.NDArray[np.int64]  # [C]
    in_split: npt.NDArray[np.int64]  # [C, 4]: none, train, valid, test
    mixing: npt.NDArray[np.float64]  # [C, C], share of a class's edges that lead to each class
    by_chance: npt.NDArray[np.float64]  # [C], share of all edges that lead to the class

    @property
    def homophily(self) -> npt.NDArray[np.float64]:
        """Share of a class's edges that stay in it, [C]."""
        return np.diagonal(self.mixing)


@dataclass(frozen=True, eq=False)
class WordMeasures:
    """How often words occur. F words."""

    per_paper: npt.NDArray[np.int64]  # [N], different words of a paper
    papers_with: npt.NDArray[np.int64]  # [F], papers that have the word
    likeliest_class: npt.NDArray[np.int64]  # [F], whose papers have it most often
    lift: npt.NDArray[np.float64]  # [F], how many times as often as all papers


def require_small_and_labelled(graph: Graph, most_papers: int = 200_000) -> None:
    """Raise UsageError unless the graph has words and classes and fits into memory, dense."""
    problem = None
    if graph.features is None or graph.labels is None or graph.splits is None:
        problem = "words, classes and splits of its papers, got none"
    elif graph.feature_dtype == "bfloat16":
        problem = "features as numbers, got bfloat16"
    elif graph.num_nodes > most_papers:
        problem = f"at most {most_papers} papers, got {graph.num_nodes}"
    elif not graph.num_edges:
        problem = "edges, got none"
    if problem:
        raise UsageError(f"graph {graph.name}: expected {problem}; choose --dataset cora")


def measure_classes(graph: Graph) -> ClassMeasures:
    """Sizes, splits and who cites whom, by class; papers without a class are left out."""
    labels, splits = np.asarray(graph.labels), np.asarray(graph.splits)
    count = graph.num_classes
    in_split = np.zeros((count, 4), np.int64)
    has_class = labels >= 0
    np.add.at(in_split, (labels[has_class], splits[has_class]), 1)
    ours = np.repeat(labels, np.diff(graph.indptr))
    theirs = labels[graph.indices]
    known = (ours >= 0) & (theirs >= 0)
    edges = np.zeros((count, count))
    np.add.at(edges, (ours[known], theirs[known]), 1)
    totals = np.maximum(edges.sum(axis=1, keepdims=True), 1)
    return ClassMeasures(
        class_names(graph),
        in_split.sum(axis=1),
        in_split,
        edges / totals,
        edges.sum(axis=0) / max(edges.sum(), 1),
    )


def class_names(graph: Graph) -> list[str]:
    """Names of the classes where they are known, else `class 0`, `class 1`, ..."""
    names = graph.meta.get("provenance", {}).get("class_names") or _NAMES.get(graph.name)
    if names and len(names) == graph.num_classes:
        return [str(name).replace("_", " ").lower() for name in names]
    return [f"class {number}" for number in range(graph.num_classes)]


def measure_words(graph: Graph) -> WordMeasures:
    """Words of papers and papers of words; a word is a feature that is not 0."""
    has = np.asarray(graph.features) != 0
    labels = np.asarray(graph.labels)
    share = has.mean(axis=0)
    by_class = np.stack(
        [
            has[labels == label].mean(axis=0) if (labels == label).any() else np.zeros(has.shape[1])
            for label in range(graph.num_classes)
        ]
    )
    lifts = by_class / np.where(share, share, 1.0)
    return WordMeasures(
        has.sum(axis=1), has.sum(axis=0), by_class.argmax(axis=0), lifts.max(axis=0)
    )


def neighbours(graph: Graph, node: int) -> npt.NDArray[np.integer]:
    """Papers that cite `node` or are cited by it."""
    return graph.indices[graph.indptr[node] : graph.indptr[node + 1]]


def ball(graph: Graph, centre: int, hops: int) -> dict[int, int]:
    """The papers at most `hops` citations away from `centre`: paper -> how far."""
    distance = {centre: 0}
    edge = [centre]
    for hop in range(1, hops + 1):
        found = {int(other) for node in edge for other in neighbours(graph, node)}
        edge = sorted(found - distance.keys())
        distance |= dict.fromkeys(edge, hop)
    return distance


def well_connected(graph: Graph, hops: int, at_most: int) -> int:
    """The paper with most neighbours among those whose ball is small enough to be drawn."""
    degrees = np.diff(graph.indptr)
    for node in np.argsort(-degrees, kind="stable"):
        if degrees[node] and len(ball(graph, int(node), hops)) <= at_most:
            return int(node)
    raise UsageError(
        f"--most: expected room for some paper's {hops}-hop neighbourhood, got {at_most}; "
        "allow more papers or fewer --hops"
    )
