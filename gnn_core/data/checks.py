"""What must hold of a graph's arrays: one function per array, each raising a one-line UsageError.

Every check walks its array in spans. A full check walks all of it in pieces that stay small in
memory; a sampled check looks at evenly spaced pieces, so that opening a graph of 100 GB takes
milliseconds and still notices a wrong file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.features import (
    FEATURE_DTYPES,
    SPARSE_PARTS,
    Features,
    SparseFeatures,
    encode_features,
)
from gnn_core.usage import UsageError

LINK_ARRAYS = ("train_edges", "valid_edges", "test_edges", "valid_candidates", "test_candidates")
ARRAY_NAMES = (
    "indptr",
    "indices",
    "features",
    "labels",
    "years",
    "splits",
    "citations",
    *LINK_ARRAYS,
)
SPLIT_NAMES = ("none", "train", "valid", "test")

_SPAN_BYTES = 16 << 20
_SAMPLED_SPANS = 64
_SAMPLED_BYTES = 256 << 10

Arrays = Mapping[str, Any]  # name -> array; `features` may be SparseFeatures; None: not there


class Subject:
    """Who is being checked: turns (array, expected, got) into the one line that the user reads."""

    def __init__(self, name: str, folder: Path | None, remedy: str | None = None) -> None:
        self.name = name
        self.folder = folder
        if remedy is None:
            again = "write it again (a prepared data set: delete the folder and rerun)"
            remedy = again if folder is not None else "change what is passed to Graph.from_arrays"
        self.remedy = remedy

    def where(self, array: str) -> str:
        """The file of that array, or how to call it when there is no file."""
        if self.folder is not None:
            return str(self.folder / f"{array}.npy")
        return f"graph {self.name}: {array}"

    def error(self, array: str, expected: str, got: object, remedy: str = "") -> UsageError:
        """The error to raise."""
        line = f"{self.where(array)}: expected {expected}, got {got}; {remedy or self.remedy}"
        return UsageError(line)


def index_dtype(num_nodes: int) -> np.dtype:
    """The dtype that `indices` has for this many nodes: int32, or int64 from 2**31 nodes."""
    return np.dtype(np.int64 if num_nodes >= 2**31 else np.int32)


def absent_ids(count: int, num_nodes: int) -> npt.NDArray[np.integer]:
    """Stands for `indices` `[count]` of another place: no id is one of a node; takes no memory."""
    return np.broadcast_to(index_dtype(num_nodes).type(-1), (max(0, count),))


def absent_features(shape: tuple[int, int], dtype: str) -> npt.NDArray:
    """Stands for `features` of another place: every number is NaN; takes no memory."""
    return np.broadcast_to(encode_features(np.array([np.nan], np.float32), dtype), shape)


def are_absent(array: Any) -> bool:
    """Whether `absent_ids` or `absent_features` made it."""
    return isinstance(array, np.ndarray) and array.size > 0 and not any(array.strides)


def check_arrays(subject: Subject, arrays: Arrays, num_classes: int, full: bool) -> None:
    """Check shapes, dtypes and values of all arrays; `full` looks at every element."""
    num_nodes, num_edges = check_shapes(subject, arrays)
    given = {name: array for name, array in arrays.items() if array is not None}
    _check_indptr(subject, given["indptr"], num_edges, full)
    if not are_absent(given["indices"]):
        _check_ids(subject, "indices", given["indices"], num_nodes, full)
    if "citations" in given:
        _check_ids(subject, "citations", given["citations"], num_nodes, full)
    for name in LINK_ARRAYS:
        if name in given:  # whole: they are few, and nothing else looks at their ids
            _check_ids(subject, name, given[name], num_nodes, full=True)
    if "features" in given and not are_absent(given["features"]):
        _check_features(subject, given["features"], full)
    if "splits" in given:
        _check_splits(subject, given["splits"])
    if "labels" in given:
        _check_labels(subject, given["labels"], given.get("splits"), num_classes, full)


def untrained_classes(
    labels: npt.NDArray[np.int32], splits: npt.NDArray[np.uint8], num_classes: int
) -> npt.NDArray[np.int64]:
    """The classes of validation and test nodes of which no node is trained on: int64 [k]."""
    is_trained, is_evaluated = np.zeros((2, num_classes), np.bool_)
    for span in spans(len(labels), 4, full=True):
        some_labels, some_splits = labels[span], splits[span]
        is_trained[some_labels[some_splits == SPLIT_NAMES.index("train")]] = True
        is_evaluated[some_labels[some_splits > SPLIT_NAMES.index("train")]] = True
    return np.flatnonzero(is_evaluated & ~is_trained)


def check_shapes(subject: Subject, arrays: Arrays) -> tuple[int, int]:
    """Check that every array has its dtype and fits the others -> (num_nodes, num_edges)."""
    indptr, indices = arrays.get("indptr"), arrays.get("indices")
    for name, array in (("indptr", indptr), ("indices", indices)):
        if array is None:
            raise subject.error(name, "an array", "nothing")
        if array.ndim != 1:
            raise subject.error(name, "one dimension", f"shape {array.shape}")
    assert indptr is not None and indices is not None
    if len(indptr) < 2:
        raise subject.error("indptr", "at least one node (two elements)", f"{len(indptr)} elements")
    num_nodes = len(indptr) - 1
    _check_dtype(subject, "indptr", indptr, (np.dtype(np.int64),))
    _check_dtype(subject, "indices", indices, (index_dtype(num_nodes),))
    rules: dict[str, tuple[tuple[np.dtype, ...], tuple[int | None, ...]]] = {
        "features": (tuple(FEATURE_DTYPES.values()), (num_nodes, None)),
        "labels": ((np.dtype(np.int32),), (num_nodes,)),
        "years": ((np.dtype(np.int32),), (num_nodes,)),
        "splits": ((np.dtype(np.uint8),), (num_nodes,)),
        "citations": ((index_dtype(num_nodes),), (None, 2)),
    }
    for name in LINK_ARRAYS:
        width = 2 if name.endswith("edges") else None
        rules[name] = ((index_dtype(num_nodes),), (None, width))
    for name, (dtypes, shape) in rules.items():
        array = arrays.get(name)
        if array is None:
            continue
        _check_dtype(subject, name, array, dtypes)
        fits = array.ndim == len(shape) and all(
            want is None or want == have for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
            raise subject.error(name, f"shape {wanted} ({num_nodes} nodes)", list(array.shape))
    _check_link_arrays(subject, arrays)
    return num_nodes, len(indices)


def _check_link_arrays(subject: Subject, arrays: Arrays) -> None:
    """Edges of all splits or of none, and candidates for each held-out edge or for none."""
    edges = {name: arrays.get(name) for name in LINK_ARRAYS if name.endswith("edges")}
    for name, array in edges.items():
        if array is None and any(other is not None for other in edges.values()):
            raise subject.error(name, "edges, as the other splits have them", "nothing")
    for split in ("valid", "test"):
        name, held_out = f"{split}_candidates", edges[f"{split}_edges"]
        candidates = arrays.get(name)
        if candidates is None:
            continue
        wanted = 0 if held_out is None else len(held_out)
        if len(candidates) != wanted:
            expected = f"a row for each of the {wanted} edges of {split}_edges"
            raise subject.error(name, expected, f"{len(candidates)} rows")


def spans(length: int, row_bytes: int, full: bool) -> Iterator[slice]:
    """Slices of range(length): all of it in pieces, or evenly spaced samples with both ends."""
    if full or length * row_bytes <= _SAMPLED_SPANS * _SAMPLED_BYTES:
        step = max(1, _SPAN_BYTES // row_bytes)
        for start in range(0, length, step):
            yield slice(start, min(start + step, length))
        return
    size = max(1, _SAMPLED_BYTES // row_bytes)
    for start in np.linspace(0, length - size, _SAMPLED_SPANS).astype(np.int64):
        yield slice(int(start), int(start) + size)


def _check_dtype(
    subject: Subject, name: str, array: npt.NDArray, allowed: tuple[np.dtype, ...]
) -> None:
    if array.dtype not in allowed:
        names = " or ".join("uint16 (bfloat16)" if d == np.uint16 else d.name for d in allowed)
        raise subject.error(name, f"dtype {names}", _named(array.dtype))


def _named(dtype: np.dtype) -> str:
    return dtype.name if dtype.isnative else f"{dtype.name} of another byte order"


def _check_indptr(subject: Subject, indptr: npt.NDArray, num_edges: int, full: bool) -> None:
    if indptr[0] != 0:
        raise subject.error("indptr", "0 as first element", int(indptr[0]))
    if indptr[-1] != num_edges:
        what = f"the number of edges, {num_edges}, as last element"
        raise subject.error("indptr", what, int(indptr[-1]))
    for span in spans(len(indptr) - 1, 8, full):
        piece = indptr[span.start : span.stop + 1]
        drops = np.flatnonzero(piece[1:] < piece[:-1])
        if len(drops):
            at = int(drops[0])
            got = f"{piece[at]} followed by {piece[at + 1]} at node {span.start + at}"
            raise subject.error("indptr", "elements that never decrease", got)


def _check_ids(subject: Subject, name: str, ids: npt.NDArray, num_nodes: int, full: bool) -> None:
    for span in spans(len(ids), ids.itemsize * (ids.size // max(len(ids), 1) or 1), full):
        piece = ids[span]
        if not piece.size:
            raise subject.error(name, "at least one column", list(ids.shape))
        low, high = piece.min(), piece.max()
        if low < 0 or high >= num_nodes:
            got = int(low if low < 0 else high)
            raise subject.error(name, f"node ids from 0 to {num_nodes - 1}", got)


def _check_features(subject: Subject, features: Features, full: bool) -> None:
    if features.shape[1] == 0:
        raise subject.error("features", "at least one column", list(features.shape))
    if isinstance(features, SparseFeatures):
        _check_sparse_features(subject, features)
        return
    for span in spans(len(features), features.itemsize * features.shape[1], full):
        piece = features[span]
        if features.dtype == np.uint16:
            finite = (piece & 0x7F80) != 0x7F80  # bfloat16: all exponent bits set means inf or NaN
        else:
            finite = np.isfinite(piece)
        if not finite.all():
            row, column = (int(i) for i in np.argwhere(~finite)[0])
            got = f"a NaN or infinity at node {span.start + row}, feature {column}"
            raise subject.error("features", "finite numbers", got)


def check_sparse_parts(subject: Subject, parts: Arrays) -> None:
    """Check dtypes and lengths of the arrays that make up sparse features."""
    dtypes: list[np.dtype] = [np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.float32)]
    for name, dtype in zip(SPARSE_PARTS, dtypes, strict=True):
        part = parts.get(name)
        if part is None:
            raise subject.error(name, "an array, as there are others of sparse features", "nothing")
        _check_dtype(subject, name, part, (dtype,))
        if part.ndim != 1:
            raise subject.error(name, "one dimension", f"shape {part.shape}")
    indptr, columns, values = (parts[name] for name in SPARSE_PARTS)
    if len(values) != len(columns):
        raise subject.error("features_values", f"{len(columns)} numbers", len(values))
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(columns):
        got = f"{indptr[0]} .. {indptr[-1]}" if len(indptr) else "nothing"
        raise subject.error("features_indptr", f"offsets from 0 to {len(columns)}", got)


def _check_sparse_features(subject: Subject, features: SparseFeatures) -> None:
    """Check all of them: kernels write where a column number points."""
    width = features.num_columns
    row_bytes = 8 * max(1, len(features.columns) // max(1, len(features)))
    for span in spans(len(features), row_bytes, full=True):
        indptr = features.indptr[span.start : span.stop + 1]
        falls = (indptr[1:] < indptr[:-1]).any() or indptr[0] < 0
        if falls or indptr[-1] > len(features.columns):
            raise subject.error("features_indptr", "elements that never decrease", "others")
        columns = features.columns[indptr[0] : indptr[-1]]
        if len(columns) and (columns.min() < 0 or columns.max() >= width):
            got = f"{columns.min()} .. {columns.max()}"
            raise subject.error("features_columns", f"columns from 0 to {width - 1}", got)
        nodes = np.repeat(np.arange(span.start, span.stop), np.diff(indptr))
        if (np.diff(nodes * width + columns) <= 0).any():
            raise subject.error("features_columns", "ascending columns in each row", "others")
        finite = np.isfinite(features.values[indptr[0] : indptr[-1]])
        if not finite.all():
            at = int(np.flatnonzero(~finite)[0])
            got = f"a NaN or infinity at node {nodes[at]}, feature {columns[at]}"
            raise subject.error("features_values", "finite numbers", got)


def _check_splits(subject: Subject, splits: npt.NDArray) -> None:
    has_train = False
    for span in spans(len(splits), 1, full=True):
        piece = splits[span]
        has_train |= bool((piece == 1).any())
        if (highest := int(piece.max())) > 3:
            expected = "0 (none), 1 (train), 2 (valid) or 3 (test)"
            raise subject.error("splits", expected, highest)
    if not has_train:
        raise subject.error("splits", "at least one train node (value 1)", "none")


def _check_labels(
    subject: Subject, labels: npt.NDArray, splits: npt.NDArray | None, num_classes: int, full: bool
) -> None:
    for span in spans(len(labels), 4, full):
        piece = labels[span]
        low, high = int(piece.min()), int(piece.max())
        if low < -1 or high >= num_classes:
            expected = f"classes from 0 to {num_classes - 1}, or -1 for none"
            raise subject.error("labels", expected, low if low < -1 else high)
        if splits is not None:
            bare = np.flatnonzero((splits[span] != 0) & (piece < 0))
            if len(bare):
                node = span.start + int(bare[0])
                what = "a label on every node of a split"
                raise subject.error("labels", what, f"-1 at node {node}")
