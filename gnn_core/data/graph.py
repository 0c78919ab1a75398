"""Graph: memory-mapped CSR adjacency, features, labels, years and splits; it checks itself.

A graph is a folder of .npy files (see `store`). They are opened with `mmap_mode="r"`, so all ranks
on a machine share one copy in the page cache, and a graph larger than memory still opens at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.casts import cast
from gnn_core.data.checks import (
    ARRAY_NAMES,
    SPLIT_NAMES,
    Subject,
    absent_ids,
    are_absent,
    check_arrays,
    check_sparse_parts,
    index_dtype,
)
from gnn_core.data.features import Features, SparseFeatures, compact, feature_dtype_name
from gnn_core.data.meta import describe
from gnn_core.data.store import GraphWriter, array_sha256, open_arrays
from gnn_core.usage import UsageError

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A graph with everything known about its nodes. N nodes, E directed message-passing edges.

    Citation graphs are symmetrised: if one paper cites another, each receives from the other.
    """

    name: str
    folder: Path | None  # None when it lives in memory only
    indptr: npt.NDArray[np.int64]  # [N + 1]
    indices: IntArray  # [E] int32 (int64 from 2**31 nodes), whom a node receives from, rows sorted
    features: Features | None = None  # [N, F] float32 (maybe sparse) | float16 | uint16 (bfloat16)
    labels: npt.NDArray[np.int32] | None = None  # [N], -1 where there is none
    years: npt.NDArray[np.int32] | None = None  # [N]
    splits: npt.NDArray[np.uint8] | None = None  # [N], 0 none, 1 train, 2 valid, 3 test
    citations: IntArray | None = None  # [M, 2] (citing, cited), as published, before symmetrising
    # For link prediction: (citing, cited), and whom a held-out edge is ranked among if published.
    train_edges: IntArray | None = None  # [P, 2], all of which, and nothing else, is in `indices`
    valid_edges: IntArray | None = None  # [Q, 2]
    test_edges: IntArray | None = None  # [R, 2]
    valid_candidates: IntArray | None = None  # [Q, K]
    test_candidates: IntArray | None = None  # [R, K]
    # Of no file of its folder: see `gnn_core.data.clusters`; only runs that assign by it have it.
    clusters: npt.NDArray[np.uint8] | None = None  # [N]
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path, verify: bool = False, has_parts: bool = False) -> Graph:
        """Open a graph folder, memory-mapped and checked. Raises UsageError.

        Small graphs (under 256 MB) are checked whole, checksums included; of larger ones samples
        are checked, unless `verify` asks for every element and every checksum. `has_parts`:
        indices.npy and features.npy may not be there, since they lie in parts of a partition.
        """
        folder = Path(folder)
        arrays, meta = open_arrays(folder, verify, has_parts)
        return cls(name=meta["name"], folder=folder, meta=meta, **arrays)

    @classmethod
    def from_arrays(
        cls,
        name: str,
        indptr: npt.ArrayLike,
        indices: npt.ArrayLike,
        features: Any = None,  # array-like, SciPy sparse or SparseFeatures
        labels: npt.ArrayLike | None = None,
        splits: npt.ArrayLike | None = None,
        years: npt.ArrayLike | None = None,
        citations: npt.ArrayLike | None = None,
        num_classes: int | None = None,
    ) -> Graph:
        """A graph in memory, checked whole. Integers of other widths are converted. UsageError.

        float64 features become float32; uint16 features are taken for bfloat16 and kept. A SciPy
        sparse matrix is taken too; it, and any float32 table of 1 MiB or more that is mostly 0,
        becomes `SparseFeatures` where that is far smaller.
        """
        subject = Subject(name, None)
        ids = index_dtype(len(np.asarray(indptr)) - 1)
        arrays: dict[str, Any] = {
            "indptr": _as_integers(subject, "indptr", indptr, np.dtype(np.int64)),
            "indices": _as_integers(subject, "indices", indices, ids),
            "features": _as_features(subject, features),
            "labels": _as_integers(subject, "labels", labels, np.dtype(np.int32)),
            "years": _as_integers(subject, "years", years, np.dtype(np.int32)),
            "splits": _as_integers(subject, "splits", splits, np.dtype(np.uint8)),
            "citations": _as_integers(subject, "citations", citations, ids),
        }
        files = {key: array for key, array in arrays.items() if array is not None}
        if isinstance(sparse := arrays["features"], SparseFeatures):
            check_sparse_parts(subject, sparse.parts())
            files |= files.pop("features").parts()
        sums = {f"{key}.npy": array_sha256(array) for key, array in files.items()}
        meta = describe(name, arrays, num_classes, sums, {"source": "arrays in memory"})
        check_arrays(subject, arrays, meta["num_classes"], full=True)
        return cls(name=name, folder=None, meta=meta, **arrays)

    def __repr__(self) -> str:
        """Counts, not arrays."""
        place = self.folder or "in memory"
        return f"Graph({self.name}: {self.num_nodes} nodes, {self.num_edges} edges, {place})"

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        """E: directed message-passing edges (a citation counts twice)."""
        return len(self.indices)

    @property
    def has_indices(self) -> bool:
        """Whether `indices` may be read; False: whom nodes receive from only their parts tell."""
        return not are_absent(self.indices)

    @property
    def has_features(self) -> bool:
        """Whether `features` may be read; False: there are none, or only parts have them."""
        return self.features is not None and not are_absent(self.features)

    def without_indices(self) -> Graph:
        """The same graph, whose `indices` have their length alone: reading any is an error."""
        return replace(self, indices=absent_ids(self.num_edges, self.num_nodes))

    @property
    def num_features(self) -> int:
        """F, 0 without features."""
        return 0 if self.features is None else self.features.shape[1]

    @property
    def feature_bytes(self) -> int:
        """Bytes of the features as they are stored, 0 without any."""
        return 0 if self.features is None else self.features.nbytes

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return int(self.meta["num_classes"])

    @property
    def feature_dtype(self) -> str | None:
        """`float32`, `float16`, `bfloat16` (bits in a uint16 array), or None without features."""
        return feature_dtype_name(self.features)

    @property
    def fingerprint(self) -> str:
        """64 hex digits that differ whenever any array or the number of classes differs."""
        lines = [f"num_classes {self.num_classes}"]
        lines += [f"{file} {digest}" for file, digest in sorted(self.meta["checksums"].items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def split(self, which: str) -> npt.NDArray[np.int64]:
        """Sorted int64 node ids of `train`, `valid` or `test`. Raises UsageError without splits."""
        chosen = self._splits_of(which) == SPLIT_NAMES.index(which)
        ids: npt.NDArray[np.int64] = np.flatnonzero(chosen)
        return ids

    def split_size(self, which: str) -> int:
        """How many nodes `split` would give. Raises UsageError as it does."""
        return int(np.count_nonzero(self._splits_of(which) == SPLIT_NAMES.index(which)))

    def _splits_of(self, which: str) -> npt.NDArray[np.uint8]:
        if which not in SPLIT_NAMES[1:]:
            raise UsageError(f"expected the split train, valid or test, got {which!r}")
        if self.splits is None:
            raise UsageError(
                f"graph {self.name}: expected splits (train, valid, test), got none; "
                "choose a data set that has them"
            )
        return self.splits


def write_graph(graph: Graph, folder: str | Path) -> Graph:
    """Write `graph` as a folder (whole or not at all, replacing one that is there) and open it."""
    with GraphWriter(Path(folder), graph.name) as writer:
        for name in ARRAY_NAMES:
            writer.put(name, getattr(graph, name))
        writer.finish(graph.num_classes, graph.meta["provenance"])
    return Graph.open(folder)


def _as_integers(
    subject: Subject, name: str, values: npt.ArrayLike | None, dtype: np.dtype
) -> npt.NDArray | None:
    if values is None:
        return None
    array = np.asarray(values)
    if array.size == 0 and array.dtype == np.float64:  # an empty list
        array = array.astype(dtype)
    if array.dtype.kind not in "iu":
        raise subject.error(name, "integers", array.dtype.name)
    bounds = np.iinfo(dtype)
    if array.size and (array.min() < bounds.min or array.max() > bounds.max):
        got = f"{array.min()} .. {array.max()}"
        raise subject.error(name, f"values that fit {dtype.name}", got)
    return np.ascontiguousarray(array, dtype=dtype)


def _as_features(subject: Subject, values: Any) -> Features | None:
    if values is None or isinstance(values, SparseFeatures):
        return values

    def error(expected: str, got: object) -> UsageError:
        return subject.error("features", expected, got)

    if hasattr(values, "tocsr"):
        values = values.tocsr()
        cast(values.data, np.float32, "numbers", error)
        return SparseFeatures.of_scipy(values)
    array = np.asarray(values)
    if array.dtype.name not in ("float32", "float16", "uint16") or not array.dtype.isnative:
        array = cast(array, np.float32, "numbers", error)
    return compact(np.ascontiguousarray(array))
