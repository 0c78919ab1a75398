"""Clusters of a graph: which nodes lie near each other. Found once per graph, kept in the cache.

They are a function of the edges alone, so that every rank on every host finds the same, and a
change of features or of the number of ranks finds them again. The file's name holds its checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gnn_core.data.checks import Subject
from gnn_core.data.graph import Graph
from gnn_core.data.mapped import map_array
from gnn_core.data.partition.refine import refine
from gnn_core.data.partition.stream import adjacency_pieces
from gnn_core.data.prepare import locked
from gnn_core.data.progress import Progress, Say, reporter, silent
from gnn_core.data.store import file_sha256
from gnn_core.usage import UsageError
from gnn_core.whole_file import write_whole

MAKER = "clusters 1"  # change it whenever the same graph gives other clusters
NUM_CLUSTERS = 16
_DIGITS = 16  # of checksums in names of files

Clusters = npt.NDArray[np.uint8]


def with_clusters(graph: Graph, cache: Path, say: Say) -> Graph:
    """The graph with the cluster of each node, found and kept below `cache` if it is not yet.

    Where nothing can be kept there, it is found each time. `say` gets what takes longer than some
    seconds. Raises UsageError for a damaged graph.
    """
    sums = [graph.meta["checksums"][f"{name}.npy"] for name in ("indptr", "indices")]
    stem = hashlib.sha256(" ".join([MAKER, *sums]).encode()).hexdigest()[:_DIGITS]
    place, title = cache / "clusters" / stem, f"{graph.name}, clusters"
    found = _kept(place, graph)
    with contextlib.ExitStack() as held:
        if found is None:
            with contextlib.suppress(UsageError):  # a cache that cannot be written to
                held.enter_context(locked(place, title, say))
            found = _kept(place, graph)  # by another process, meanwhile
        if found is None:
            found = find_clusters(graph, progress=reporter(say, title))
            try:
                _keep(place, found)
            except UsageError as problem:
                say(f"{title}: not kept: {problem}")
    return replace(graph, clusters=found)


def find_clusters(graph: Graph, progress: Progress = silent) -> Clusters:
    """The cluster of each node, uint8 `[N]`; clusters of near numbers have edges in common.

    The first half of the numbers and the second have as few edges between them as there can be,
    and so do the halves of each half.
    """
    parts = refine(graph, NUM_CLUSTERS, balance="nodes", progress=progress)
    counts = np.zeros(NUM_CLUSTERS**2, np.int64)  # of edges, by the clusters of both ends
    for piece in adjacency_pieces(graph):
        own = parts[piece.first : piece.first + len(piece.starts) - 1].astype(np.int64)
        pairs = np.repeat(own * NUM_CLUSTERS, np.diff(piece.starts)) + parts[piece.values]
        counts += np.bincount(pairs, minlength=NUM_CLUSTERS**2)
    order = _in_order(counts.reshape(NUM_CLUSTERS, NUM_CLUSTERS))
    found: Clusters = np.argsort(order).astype(np.uint8)[parts]
    return found


def _in_order(between: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers of k clusters in an order in which each half, and each half of it, is cut best.

    Args:
        between: edges between two clusters, `[k, k]`. All ways to halve k are tried.
    """
    count = len(between)
    if count <= 2:
        return np.arange(count)
    halves = list(itertools.combinations(range(count), count // 2))
    is_left = np.zeros((len(halves), count), np.int64)
    np.put_along_axis(is_left, np.array(halves), 1, axis=1)
    cuts = (is_left @ (between + between.T) * (1 - is_left)).sum(axis=1)
    best = is_left[np.argmin(cuts)]  # the first one of several: the same everywhere
    sides = [np.flatnonzero(best == side) for side in (1, 0)]
    return np.concatenate([side[_in_order(between[np.ix_(side, side)])] for side in sides])


def _keep(place: Path, clusters: Clusters) -> None:
    content = io.BytesIO()
    np.lib.format.write_array(content, clusters, allow_pickle=False)
    digest = hashlib.sha256(content.getbuffer()).hexdigest()[:_DIGITS]
    write_whole(place.with_name(f"{place.name}-{digest}.npy"), content.getvalue())


def _kept(place: Path, graph: Graph) -> Clusters | None:
    """The clusters in the cache, memory-mapped; None if there are none, or others than written."""
    for file in sorted(place.parent.glob(f"{place.name}-*.npy")):
        with contextlib.suppress(UsageError, OSError):
            if file_sha256(file)[:_DIGITS] == file.stem.rpartition("-")[2]:
                found = map_array(file, Subject(graph.name, file.parent))
                assert found is not None
                if found.dtype == np.uint8 and found.shape == (graph.num_nodes,):
                    return found
    return None
