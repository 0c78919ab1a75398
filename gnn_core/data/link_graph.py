"""From a citation graph to the graph that link prediction trains on: edges held out, then prepared.

Message passing sees the training edges alone, both ways. A graph whose papers have no features gets
some that are made of the training edges too. All of it is prepared once, as any graph is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import linalg

from gnn_core import seeding
from gnn_core.data import hold_out
from gnn_core.data.csr import edges_of, write_csr
from gnn_core.data.features import SPARSE_PARTS, SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.data.prepare import prepare
from gnn_core.data.progress import Progress, Say
from gnn_core.data.room import require_room
from gnn_core.data.store import GraphWriter
from gnn_core.usage import UsageError

MAKER = "link split 3"  # change it whenever the same graph gives other arrays
PUBLISHED = "published"
_NO_VALUE = 1e-6  # singular values below are rounding errors; the largest is 1


@dataclass(frozen=True)
class LinkSplit:
    """How edges are held out of a graph."""

    how: str  # published | newest | random
    share: float  # of the papers (newest) or of the edges (random), for each of two splits
    seed: int  # of random; newest needs none
    svd_width: int  # of the features of papers that have none

    def identity(self, graph: Graph) -> dict[str, Any]:
        """Everything that decides the result, as JSON can hold it."""
        found: dict[str, Any] = {"maker": MAKER, "of": graph.fingerprint, "how": self.how}
        found["share"] = self.share
        if self.how == hold_out.RANDOM:
            found["seed"] = self.seed
        if graph.features is None:
            found["svd_width"] = self.svd_width
        return found


def link_graph(graph: Graph, split: LinkSplit, cache: Path, say: Say | None = None) -> Graph:
    """The graph with some of its edges held out, prepared below `cache` if it is not yet.

    Returns one with `train_edges`, `valid_edges` and `test_edges`, whose `indices` are those of the
    training edges in both directions. Raises UsageError where nothing can be held out.
    """
    if split.how == PUBLISHED:
        if graph.train_edges is None:
            raise UsageError(
                f"--hold-out published: graph {graph.name} is published without held-out edges; "
                "use newest or random"
            )
        if graph.features is not None:
            return graph
    elif graph.train_edges is not None:
        raise UsageError(
            f"--hold-out {split.how}: graph {graph.name} is published with held-out edges, and "
            "others would not compare; use published"
        )
    else:
        _require_citations(graph, split)
    identity = split.identity(graph)
    digest = hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()[:12]
    folder = cache / "graphs" / f"{Path(graph.name).name}-links-{digest}"
    held_out = None if folder.exists() else _held_out(graph, split)  # bad input is reported early

    def make(progress: Progress) -> None:
        _write(graph, held_out or _held_out(graph, split), split, folder, identity, progress)

    title = f"{graph.name}, edges held out ({split.how})"
    prepare(folder, title, lambda meta: meta["provenance"] == identity, make, say)
    return Graph.open(folder)


def _held_out(graph: Graph, split: LinkSplit) -> hold_out.HeldOut:
    if split.how == PUBLISHED:
        assert graph.train_edges is not None and graph.valid_edges is not None
        assert graph.test_edges is not None
        return hold_out.HeldOut(graph.train_edges, graph.valid_edges, graph.test_edges)
    assert graph.citations is not None
    if split.how == hold_out.RANDOM:
        return hold_out.at_random(graph.citations, split.share, split.seed)
    assert graph.years is not None
    return hold_out.newest(graph.citations, graph.years, split.share)


def _require_citations(graph: Graph, split: LinkSplit) -> None:
    if graph.citations is None:
        raise UsageError(
            f"graph {graph.name}: link prediction needs to know who cites whom (citations), and it "
            "has undirected edges only; choose another --dataset, such as cora-linqs for cora"
        )
    if split.how != hold_out.RANDOM and graph.years is None:
        raise UsageError(
            f"--hold-out newest: expected a year for each paper, but graph {graph.name} has no "
            "years; use --hold-out random"
        )


def _write(
    graph: Graph,
    held_out: hold_out.HeldOut,
    split: LinkSplit,
    folder: Path,
    identity: dict[str, Any],
    progress: Progress,
) -> None:
    with GraphWriter(folder, graph.name) as writer:
        for name in ("train", "valid", "test"):
            writer.put(f"{name}_edges", np.ascontiguousarray(getattr(held_out, name)))
        if graph.features is None:
            features = svd_features(held_out.train, graph.num_nodes, split.svd_width, progress)
            writer.put("features", features)
        for name in ("features", "years", "valid_candidates", "test_candidates"):
            if (array := getattr(graph, name)) is None:
                continue
            if graph.folder is None:
                writer.put(name, array)
                continue
            files = SPARSE_PARTS if isinstance(array, SparseFeatures) else (name,)
            for file in files:
                writer.adopt(file, graph.folder, graph.meta["checksums"][f"{file}.npy"])
        writer.num_features = graph.num_features
        if graph.folder is not None:
            writer.adopt_ids(graph.folder, graph.meta["checksums"])
        write_csr(writer, edges_of(held_out.train), graph.num_nodes, progress=progress)
        writer.finish(0, identity)


def svd_features(
    edges: npt.NDArray[np.integer], num_nodes: int, width: int, progress: Progress
) -> npt.NDArray[np.float32]:
    """Features `[num_nodes, width]` made of edges `[n, 2]`: where a paper stands among the others.

    A truncated SVD of the adjacency in both directions, divided by the roots of both degrees; the
    singular vectors times the roots of their values, each column then of unit variance. The matrix
    is symmetric: its singular vectors are its eigenvectors. Papers without an edge get zeros, and
    so do columns beyond the rank. Raises UsageError for a graph that has too few papers.

    The mean degree is added to each degree (Qin, Rohe: "Regularized Spectral Clustering under the
    Degree-Corrected Stochastic Blockmodel", NeurIPS 2013): without it each component of the graph,
    of however few papers, has the largest value there is, and the columns tell little else.
    """
    if width >= num_nodes:
        raise UsageError(
            f"--svd-width {width}: expected less than the number of papers, {num_nodes}; lower it"
        )
    # Lanczos vectors of the width and as many again, and the features made of them.
    require_room(f"--svd-width {width}", memory_bytes=32 * num_nodes * width)
    progress("features out of the training edges", 0, 1)
    ones = np.ones(len(edges), np.float64)
    one_way = sparse.coo_array((ones, (edges[:, 0], edges[:, 1])), (num_nodes, num_nodes)).tocsr()
    both = one_way + one_way.T
    degrees = np.asarray(both.sum(axis=1)).ravel()
    scale = sparse.diags_array(1 / np.sqrt(np.maximum(degrees + degrees.mean(), 1)))
    # ARPACK starts from a random vector, and draws more where it has seen all of a subspace.
    random = np.random.Generator(np.random.Philox(seeding.key("svd")))
    start = random.standard_normal(num_nodes)
    values, vectors = linalg.eigsh(scale @ both @ scale, k=width, v0=start, rng=random)
    found = vectors * np.sqrt(np.abs(values))
    found[:, np.abs(values) < _NO_VALUE] = 0
    found[degrees == 0] = 0
    # The sign of a singular vector is anybody's choice: the largest entry is made positive.
    found *= np.sign(found[np.abs(found).argmax(axis=0), np.arange(width)])
    found /= np.maximum(found.std(axis=0), 1e-12)
    return np.ascontiguousarray(found, np.float32)
