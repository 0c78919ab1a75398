"""Parts by METIS on a coarse graph: clusters by label propagation, METIS on them, then `refine`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.graph import Graph
from gnn_core.data.partition.hashed import Parts
from gnn_core.data.partition.metis import require_metis, run_metis
from gnn_core.data.partition.refine import refine
from gnn_core.data.partition.stream import adjacency_pieces
from gnn_core.data.progress import Progress, silent

_ROUNDS = 5
_CLUSTERS_PER_PART = 200  # at least: METIS has to balance them


def multilevel_parts(
    graph: Graph,
    num_parts: int,
    seed: int = 0,
    balance: str | None = None,
    progress: Progress = silent,
) -> Parts:
    """Cut a graph whose coarse form fits the memory; edges have to go both ways. UsageError."""
    require_metis("multilevel")
    labels, num_clusters = cluster(graph, num_parts, progress)
    arrays = coarse_graph(graph, labels, num_clusters, progress)
    progress("METIS on the coarse graph", 0, 1)
    parts = run_metis(f"the coarse graph of {graph.name}", arrays, num_parts, seed)[labels]
    return refine(graph, num_parts, seed, balance, parts, progress)


def cluster(
    graph: Graph, num_parts: int, progress: Progress = silent
) -> tuple[npt.NDArray[np.int32], int]:
    """Clusters of bounded size by label propagation: the cluster of each node, and how many."""
    num_nodes = graph.num_nodes
    labels = np.arange(num_nodes, dtype=np.int32 if num_nodes < 2**31 else np.int64)
    sizes = np.ones_like(labels)
    counts = np.zeros_like(labels)
    found = np.empty_like(labels)
    most = max(1, num_nodes // (num_parts * _CLUSTERS_PER_PART))
    for number in range(_ROUNDS):
        for piece in adjacency_pieces(graph, backwards=number % 2 == 1):
            progress(f"clustering, round {number + 1}", piece.first, num_nodes)
            _propagate(*piece, number % 2 == 1, labels, sizes, counts, found, most)
    used = np.flatnonzero(sizes)
    found[used] = np.arange(len(used))
    return found[labels], len(used)


def coarse_graph(
    graph: Graph, labels: npt.NDArray, num_clusters: int, progress: Progress = silent
) -> dict[str, npt.NDArray]:
    """The graph of the clusters: arrays as `run_metis` takes them."""
    import scipy.sparse

    total = scipy.sparse.csr_array((num_clusters, num_clusters), dtype=np.int64)
    for piece in adjacency_pieces(graph, piece_bytes=128 << 20):
        progress("contracting", piece.first, graph.num_nodes)
        rows = np.arange(piece.first, piece.first + len(piece.starts) - 1)
        ends = labels[np.repeat(rows, np.diff(piece.starts))], labels[piece.values]
        apart = ends[0] != ends[1]
        ones = np.ones(np.count_nonzero(apart), np.int64)
        total = total + scipy.sparse.csr_array(
            (ones, (ends[0][apart], ends[1][apart])), shape=total.shape
        )
    return {
        "starts": total.indptr.astype(np.int64),
        "columns": total.indices,
        "edge_weights": total.data,
        "node_weights": np.bincount(labels, minlength=num_clusters),
    }


@njit(cache=True, nogil=True)
def _propagate(  # type: ignore[no-untyped-def]
    first, starts, columns, backwards, labels, sizes, counts, found, most
):
    """Move the nodes of these rows to the cluster of most neighbours that has room."""
    num_rows = len(starts) - 1
    for i in range(num_rows):
        row = num_rows - 1 - i if backwards else i
        old = labels[first + row]
        num_found = 0
        for edge in range(starts[row], starts[row + 1]):
            label = labels[columns[edge]]
            if counts[label] == 0:
                found[num_found] = label
                num_found += 1
            counts[label] += 1
        best, most_neighbours = old, counts[old]
        for label in found[:num_found]:
            if counts[label] > most_neighbours and sizes[label] < most:
                best, most_neighbours = label, counts[label]
        for label in found[:num_found]:
            counts[label] = 0
        if best != old:
            labels[first + row] = best
            sizes[old] -= 1
            sizes[best] += 1
