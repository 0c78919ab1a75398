"""A whole graph in one .npz file, in the layouts that are in use.

- Shchur et al. (2018): `adj_data`, `adj_indices`, `adj_indptr`, `adj_shape`, the same of `attr_`
  (or a dense `attr_matrix`), `labels`; also with `adj_matrix.data` and so on for names.
- SciPy matrices pickled inside: `adj_matrix`, `node_attr`, `node_label`.
- Arrays: `edges` [M, 2] or `edge_index` [2, M], `node_features` or `x`, `node_labels` or `y`,
  `train_masks`, `val_masks`, `test_masks` [splits, N] or [N], of which the first split is taken.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gnn_core.data.casts import cast
from gnn_core.data.importer.arrays import (
    FEATURES,
    LABELS,
    Archive,
    archive_features,
    load_npy,
    sparse_features,
)
from gnn_core.data.importer.labels import classes_of_array
from gnn_core.data.importer.nodes import NodeData
from gnn_core.data.importer.splits import splits_of_masks
from gnn_core.data.importer.text import refuse
from gnn_core.usage import UsageError

_EDGES = ("edge_index", "edges", "edge_list")
_ADJACENCY = ("adj_matrix", "adj", "adjacency")
_MASKS = {
    1: ("train_mask", "train_masks"),
    2: ("val_mask", "val_masks", "valid_mask", "valid_masks"),
    3: ("test_mask", "test_masks"),
}


def read_npz_graph(path: Path) -> tuple[npt.NDArray, int, NodeData]:
    """Edges [M, 2] (source, target), number of nodes, what is known of them. UsageError."""
    archive = Archive(path)
    data = NodeData()
    if prefix := _prefix(archive, ("adj_", "adj_matrix.")):
        edges, num_nodes = _of_matrix(path, archive.csr(prefix))
    elif adjacency := archive.first(_ADJACENCY):
        edges, num_nodes = _of_matrix(path, archive.matrix(adjacency))
    elif name := archive.first(_EDGES):
        values = archive.array(name)
        is_index = name == "edge_index" and len(values) == 2  # as PyG has it
        edges, num_nodes = edge_array(path, values.T if is_index else values), 0
    else:
        wanted = "adj_data, adj_indices, adj_indptr and adj_shape, or adj_matrix, or edges"
        raise refuse(path, None, wanted, ", ".join(archive.names[:20]) or "nothing")
    if prefix := _prefix(archive, ("attr_", "attr_matrix.")):
        data.features = sparse_features(path, archive.csr(prefix))
    elif name := archive.first(FEATURES):
        data.features = archive_features(archive, name)
    if _prefix(archive, ("labels_", "labels.")):
        raise refuse(path, None, "one class per node", "a matrix of labels", "give --labels")
    if name := archive.first(LABELS):
        data.labels, data.class_names = labels_of(path, name, archive.value(name))
    counts = [len(part) for part in (data.features, data.labels) if part is not None]
    num_nodes = num_nodes or max([*counts, int(edges.max(initial=-1)) + 1])
    if any(count != num_nodes for count in counts):
        raise refuse(path, None, f"rows for {num_nodes:,} nodes", " and ".join(map(str, counts)))
    data.splits = _splits(archive, num_nodes)
    return edges, num_nodes, data


def _prefix(archive: Archive, candidates: tuple[str, ...]) -> str | None:
    """What the names of the parts of a sparse matrix begin with, if there is one."""
    return next((each for each in candidates if f"{each}indptr" in archive.names), None)


def labels_of(
    path: Path, name: str, values: object
) -> tuple[npt.NDArray[np.int32], list[str] | None]:
    """The class of each node out of an array in a file. UsageError."""

    def error(expected: str, got: object) -> UsageError:
        return refuse(path, None, f"{name} to hold {expected}", got)

    if not isinstance(values, np.ndarray):
        raise error("one class per node", "a sparse matrix")
    return classes_of_array(values, error)


def edge_array(path: Path, values: npt.NDArray) -> npt.NDArray[np.int64]:
    """Edges of an array [M, 2] or [2, M], as [M, 2]. UsageError."""
    if values.ndim != 2 or 2 not in values.shape:
        raise refuse(path, None, "edges of shape [2, edges] or [edges, 2]", list(values.shape))

    def error(expected: str, got: object) -> UsageError:
        return refuse(path, None, expected, got)

    edges = values.T if values.shape[0] == 2 and values.shape[1] != 2 else values
    return cast(edges, np.int64, "node ids", error, 0, 2**31 - 2)


def load_edges(path: Path) -> npt.NDArray[np.int64]:
    """Edges [M, 2] of a .npy file. UsageError."""
    return edge_array(path, load_npy(path))


def _of_matrix(path: Path, matrix: object) -> tuple[npt.NDArray, int]:
    found = matrix.tocoo()  # type: ignore[attr-defined]
    rows, columns = found.shape
    if rows != columns:
        raise refuse(path, None, "a square adjacency matrix", [rows, columns])
    is_edge = found.data != 0
    return np.stack([found.row[is_edge], found.col[is_edge]], axis=1), rows


def _splits(archive: Archive, num_nodes: int) -> npt.NDArray[np.uint8] | None:
    names = {value: archive.first(usual) for value, usual in _MASKS.items()}
    if any(name is None for name in names.values()):
        return None

    def error(expected: str, got: object) -> UsageError:
        return refuse(archive.path, None, expected, got)

    masks = {value: (str(name), archive.array(str(name))) for value, name in names.items()}
    return splits_of_masks(masks, num_nodes, error)
