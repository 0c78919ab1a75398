"""Write a partition folder: whole or not at all, by one process at a time, in bounded memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.checks import index_dtype
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.data.meta import META, meta_text
from gnn_core.data.partition.folder import FORMAT, KIND, PART, PLACE, digest_of, part_name
from gnn_core.data.partition.scatter import DEFAULT_BUDGET_BYTES, Target, scatter
from gnn_core.data.partition.stream import adjacency_pieces, feature_pieces, read_rows
from gnn_core.data.progress import Progress, silent
from gnn_core.data.store import array_sha256
from gnn_core.usage import UsageError

_STEP = 1 << 20


def write_parts(
    graph: Graph,
    place: npt.NDArray[np.integer],
    offsets: npt.NDArray[np.int64],
    folder: Path,
    told: Mapping[str, Any],
    topology: bool = False,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    progress: Progress = silent,
) -> None:
    """Write the parts of a graph as a partition folder, replacing one that is there.

    Whoever sees the folder sees all of it: it is filled under another name, and renamed.

    Args:
        graph: with dense features or none.
        place: `[N]`, of `index_dtype`: the row of each node in part order, a permutation.
        offsets: `[k + 1]`: where the parts begin.
        folder: to write.
        told: what meta.json says beside what follows from the others: method, seed, quality.
        topology: write the adjacency rows of each part, too.
        budget_bytes: about half of the memory that the rows being ordered take.
        progress: is told of rows.

    Raises:
        UsageError: the features are sparse.
        OSError: the disk is full.
    """
    require_dense(graph)
    staging = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        for part in range(len(offsets) - 1):
            (staging / part_name(part)).mkdir()
        np.save(staging / PLACE, place)
        sums = {staging / PLACE: array_sha256(place)}
        if graph.features is not None:
            sums |= _write_features(graph, place, offsets, staging, budget_bytes, progress)
        if topology:
            sums |= _write_topology(graph, place, offsets, staging, budget_bytes, progress)
        named = {path.relative_to(staging).as_posix(): text for path, text in sums.items()}
        _finish(staging, _meta(graph, offsets, topology, named) | dict(told))
        _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def require_dense(graph: Graph) -> None:
    """Raise UsageError for a graph whose features are stored as sparse rows."""
    if isinstance(graph.features, SparseFeatures):
        raise UsageError(
            f"graph {graph.name}: expected dense features, got sparse rows "
            f"({graph.feature_bytes:,} bytes): each host can hold all of them; train without "
            "partitions"
        )


def _write_features(
    graph: Graph,
    place: npt.NDArray[np.integer],
    offsets: npt.NDArray[np.int64],
    staging: Path,
    budget_bytes: int,
    progress: Progress,
) -> dict[Path, str]:
    width = graph.num_features

    def lengths(first: int, last: int) -> npt.NDArray[np.int64]:
        return np.full(last - first, width, np.int64)

    targets = [
        Target(staging / part_name(part) / "features.npy", first, last, (last - first, width))
        for part, first, last in _ranges(offsets)
    ]
    dtype = np.dtype(graph.features.dtype)  # type: ignore[union-attr]
    return scatter(feature_pieces(graph), place, lengths, dtype, targets, budget_bytes, progress)


def _write_topology(
    graph: Graph,
    place: npt.NDArray[np.integer],
    offsets: npt.NDArray[np.int64],
    staging: Path,
    budget_bytes: int,
    progress: Progress,
) -> dict[Path, str]:
    degrees = np.empty(graph.num_nodes, np.int64 if graph.num_edges >= 2**31 else np.int32)
    for low in range(0, graph.num_nodes, _STEP):
        starts = read_rows(graph.indptr, low, min(low + _STEP, graph.num_nodes) + 1)
        degrees[place[low : low + _STEP]] = np.diff(starts)
    targets, sums = [], {}
    for part, first, last in _ranges(offsets):
        path = staging / part_name(part) / "indptr.npy"
        indptr = np.zeros(last - first + 1, np.int64)
        np.cumsum(degrees[first:last], out=indptr[1:])
        np.save(path, indptr)
        sums[path] = array_sha256(indptr)
        targets.append(Target(path.with_name("indices.npy"), first, last, (int(indptr[-1]),)))

    def lengths(first: int, last: int) -> npt.NDArray[np.int64]:
        return degrees[first:last].astype(np.int64)

    dtype = index_dtype(graph.num_nodes)
    pieces = adjacency_pieces(graph)

    def of_adjacency(what: str, done: int, total: int) -> None:
        progress(f"adjacency, {what}", done, total)

    return sums | scatter(pieces, place, lengths, dtype, targets, budget_bytes, of_adjacency)


def _ranges(offsets: npt.NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(part, first place, last place + 1) of all parts."""
    bounds = offsets.tolist()
    return [(part, bounds[part], bounds[part + 1]) for part in range(len(bounds) - 1)]


def _meta(
    graph: Graph, offsets: npt.NDArray[np.int64], topology: bool, sums: dict[str, str]
) -> dict[str, Any]:
    return {
        "kind": KIND,
        "format": FORMAT,
        "graph": graph.name,
        "graph_fingerprint": graph.fingerprint,
        "num_nodes": graph.num_nodes,
        "num_parts": len(offsets) - 1,
        "offsets": offsets.tolist(),
        "num_features": graph.num_features,
        "feature_dtype": graph.feature_dtype,
        "topology": topology,
        "checksums": dict(sorted(sums.items())),
    }


def _finish(staging: Path, meta: dict[str, Any]) -> None:
    meta["digest"] = digest_of(meta)
    for part in range(meta["num_parts"]):
        text = json.dumps({"partition": meta["digest"], "part": part}) + "\n"
        (staging / part_name(part) / PART).write_text(text, encoding="utf-8")
    (staging / META).write_text(meta_text(meta), encoding="utf-8")


def _put_in_place(staging: Path, folder: Path) -> None:
    older = staging.with_name(f"{staging.name}-older")
    if folder.exists():
        folder.replace(older)  # who has it open keeps it open
    staging.replace(folder)
    shutil.rmtree(older, ignore_errors=True)
