"""Reader of the Planetoid files of Cora, CiteSeer and PubMed (Yang et al., ICML 2016).

The files `ind.<name>.<part>` are Python 2 pickles of NumPy arrays, SciPy matrices and a dict. A
pickle may name any function to be called, so here only the few that build such data are let in,
and a SciPy matrix is read as the plain arrays it is made of.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gnn_core.data.csr import edges_of, write_csr
from gnn_core.data.progress import Progress
from gnn_core.data.store import GraphWriter
from gnn_core.usage import UsageError

READER = "Planetoid reader 2"  # change it whenever the same files give other arrays
URL = "https://github.com/kimiyoung/planetoid/raw/master/data"
PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
_NUM_VALID = 500
_RECONSTRUCT = np.empty(0).__reduce__()[0]  # what a pickled array is built with


class Counts(NamedTuple):
    """What is published about a graph."""

    nodes: int
    edges: int  # both directions counted
    features: int
    classes: int


PUBLISHED = {
    "cora": Counts(2708, 10556, 1433, 7),
    "citeseer": Counts(3327, 9104, 3703, 6),
    "pubmed": Counts(19717, 88648, 500, 3),
}


def file_names(name: str) -> list[str]:
    """The eight files of `cora`, `citeseer` or `pubmed`."""
    return [f"ind.{name}.{part}" for part in PARTS]


def convert(
    name: str,
    raw: Path,
    folder: Path,
    provenance: dict[str, Any],
    progress: Progress,
    published: Counts | None = None,
) -> None:
    """Write the graph of the files in `raw` to `folder`; UsageError if they do not fit."""
    progress("reading", 0, 1)
    features, labels, splits, edges = read(name, raw)
    counts = published or PUBLISHED[name]
    with GraphWriter(folder, name) as writer:
        writer.put("features", normalised(features))
        writer.put("labels", labels)
        writer.put("splits", splits)
        num_edges = write_csr(writer, edges_of(edges), len(labels), progress=progress)
        found = Counts(len(labels), num_edges, features.shape[1], int(labels.max()) + 1)
        if found != counts:
            raise UsageError(f"{raw}: expected {_told(counts)}, got {_told(found)}; fetch it again")
        writer.finish(counts.classes, {**provenance, "features": "rows divided by their sum"})


def read(name: str, raw: Path) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray, npt.NDArray]:
    """Features float32 [N, F], labels int32 [N], splits uint8 [N], edges int32 [M, 2].

    Nodes are numbered as in the files, with the test nodes at the places that `test.index` says.
    Test nodes that it leaves out (CiteSeer has 15) get no word and class 0, and are in no split.
    """
    parts = {part: _load(raw / f"ind.{name}.{part}") for part in PARTS}
    rows = {part: _dense(raw / f"ind.{name}.{part}", parts[part]) for part in PARTS[:6]}
    test = parts["test.index"]
    num_known = len(rows["allx"])
    num_nodes = max(num_known, int(test.max()) + 1)
    fits = (
        len(rows["ally"]) == num_known
        and len(rows["tx"]) == len(rows["ty"]) == len(test)
        and int(test.min()) >= num_known
        and len(rows["y"]) + _NUM_VALID <= num_known
    )
    if not fits:
        sizes = ", ".join(f"{part} {len(array)}" for part, array in rows.items())
        raise UsageError(
            f"{raw}: expected ind.{name}.* files of one graph, got lengths {sizes}, test.index "
            f"{len(test)} from {test.min()}; fetch them again"
        )
    features = np.zeros((num_nodes, rows["allx"].shape[1]), np.float32)
    classes = np.zeros((num_nodes, rows["ally"].shape[1]), np.float32)
    features[:num_known], features[test] = rows["allx"], rows["tx"]
    classes[:num_known], classes[test] = rows["ally"], rows["ty"]
    num_train = len(rows["y"])
    splits = np.zeros(num_nodes, np.uint8)
    splits[:num_train], splits[num_train : num_train + _NUM_VALID], splits[test] = 1, 2, 3
    edges = _edges(raw / f"ind.{name}.graph", parts["graph"], num_nodes)
    return features, classes.argmax(axis=1).astype(np.int32), splits, edges


def normalised(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each row divided by its sum (by 1 if the sum is smaller): bags of words of equal weight."""
    sums = features.sum(axis=1, keepdims=True, dtype=np.float64)
    rows: npt.NDArray[np.float32] = (features / np.maximum(sums, 1.0)).astype(np.float32)
    return rows


def _told(counts: Counts) -> str:
    return ", ".join(f"{value} {key}" for key, value in counts._asdict().items())


class _Matrix:
    """Takes the place of a SciPy sparse matrix: its attributes, and none of its code."""


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into a pickle that Python 2 can read."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}, which no graph needs")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Builds arrays, lists and dicts of them; whatever else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        plain = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("collections", "defaultdict"): defaultdict,
            ("__builtin__", "list"): list,
            ("builtins", "list"): list,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) in plain:
            return plain[module, name]
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _RECONSTRUCT
        if module in ("scipy.sparse.csr", "scipy.sparse._csr") and name == "csr_matrix":
            return _Matrix
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no graph needs")


def _load(path: Path) -> Any:
    try:
        if path.name.endswith(".test.index"):
            return np.loadtxt(path, dtype=np.int64, ndmin=1)
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UsageError(f"{path}: expected a Planetoid file, got none; fetch it again") from None
    except Exception as error:  # a damaged pickle may raise anything at all
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"{path}: expected a Planetoid file, got {reason}; fetch it again"
        ) from None


def _dense(path: Path, value: Any) -> npt.NDArray[np.float32]:
    """A two-dimensional array out of an array or a sparse matrix."""
    if isinstance(value, _Matrix):
        parts = vars(value)
        try:
            num_rows, num_columns = parts["_shape"]
            dense = np.zeros((num_rows, num_columns), np.float32)
            rows = np.repeat(np.arange(num_rows), np.diff(parts["indptr"]))
            np.add.at(dense, (rows, parts["indices"]), parts["data"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UsageError(
                f"{path}: expected a CSR matrix, got {error}; fetch it again"
            ) from None
        return dense
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "biuf":
        kind = getattr(value, "dtype", type(value).__name__)
        raise UsageError(f"{path}: expected a matrix of numbers, got {kind}; fetch it again")
    return value.astype(np.float32)


def _edges(path: Path, graph: Any, num_nodes: int) -> npt.NDArray[np.int32]:
    """Edge list [M, 2] out of {node: [neighbour, ...]}."""
    try:
        lengths = np.array([len(ends) for ends in graph.values()])
        nodes = np.repeat(np.array(list(graph), dtype=np.int64), lengths)
        neighbours = np.array([end for ends in graph.values() for end in ends], dtype=np.int64)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        got = f"got {error}; fetch it again"
        raise UsageError(f"{path}: expected a dict of lists of nodes, {got}") from None
    edges = np.stack([neighbours, nodes], axis=1)
    if edges.size and (edges.min() < 0 or edges.max() >= num_nodes):
        raise UsageError(
            f"{path}: expected nodes from 0 to {num_nodes - 1}, "
            f"got {edges.min()} .. {edges.max()}; fetch it again"
        )
    return edges.astype(np.int32)
