"""Reader of the Planetoid files of Cora, CiteSeer and PubMed (Yang et al., ICML 2016).

The files `ind.<name>.<part>` are Python 2 pickles of NumPy arrays, SciPy matrices and a dict. They
are read by `pickled`, which calls nothing that a pickle names; a SciPy matrix is read as the plain
arrays it is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gnn_core.data.casts import cast
from gnn_core.data.csr import edges_of, write_csr
from gnn_core.data.pickled import Function, array_of, load
from gnn_core.data.progress import Progress
from gnn_core.data.room import require_room
from gnn_core.data.store import GraphWriter
from gnn_core.usage import UsageError

READER = "Planetoid reader 2"  # change it whenever the same files give other arrays
URL = "https://github.com/kimiyoung/planetoid/raw/master/data"
PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
_NUM_VALID = 500
_MOST_GAPS = 10  # numbers that test nodes may take up, for each of them


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
            raise UsageError(
                f"{raw}: expected {_counts_text(counts)}, got {_counts_text(found)}; fetch it again"
            )
        writer.finish(counts.classes, {**provenance, "features": "rows divided by their sum"})


def read(name: str, raw: Path) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray, npt.NDArray]:
    """Features float32 [N, F], labels int32 [N], splits uint8 [N], edges int32 [M, 2].

    Nodes are numbered as in the files, with the test nodes at the places that `test.index` says.
    Test nodes that it leaves out (CiteSeer has 15) get no word and class 0, and are in no split.
    """
    parts = {part: _load(raw / f"ind.{name}.{part}") for part in PARTS}
    rows = {part: _dense(raw / f"ind.{name}.{part}", parts[part]) for part in PARTS[:6]}
    for part in ("y", "ty", "ally"):
        _require_one_class(raw / f"ind.{name}.{part}", rows[part])
    test = parts["test.index"]
    num_known = len(rows["allx"])
    fits = (
        len(rows["ally"]) == num_known
        and len(rows["tx"]) == len(rows["ty"]) == len(test) == len(np.unique(test)) > 0
        and len(rows["x"]) == len(rows["y"])
        and len({rows[part].shape[1] for part in ("x", "tx", "allx")}) == 1
        and len({rows[part].shape[1] for part in ("y", "ty", "ally")}) == 1
        and num_known <= int(test.min()) <= int(test.max()) < num_known + _MOST_GAPS * len(test)
        and len(rows["y"]) + _NUM_VALID <= num_known
    )
    if not fits:
        sizes = ", ".join(f"{part} {len(array)}" for part, array in rows.items())
        raise UsageError(
            f"{raw}: expected ind.{name}.* files of one graph, got lengths {sizes}, test.index "
            f"{len(test)}{f' from {test.min()}' if len(test) else ''}; fetch them again"
        )
    num_nodes = max(num_known, int(test.max()) + 1)
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


def _counts_text(counts: Counts) -> str:
    return ", ".join(f"{value} {key}" for key, value in counts._asdict().items())


class _Matrix:
    """Stands for a SciPy sparse matrix: its attributes, and none of its code."""

    __slots__ = ("parts",)

    parts: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.parts = dict(state)


_NAMES = {
    ("collections", "defaultdict"): Function(lambda *of: {}),
    ("__builtin__", "list"): "list",  # what a defaultdict would be made of
    ("builtins", "list"): "list",
    ("scipy.sparse.csr", "csr_matrix"): _Matrix,
    ("scipy.sparse._csr", "csr_matrix"): _Matrix,
}


def _load(path: Path) -> Any:
    try:
        if path.name.endswith(".test.index"):
            numbers = np.loadtxt(path, dtype=np.float64, ndmin=1)
            return cast(numbers.reshape(-1), np.int64, "node ids", _error(path), low=0)
        with path.open("rb") as file:
            return load(file, "iuf", _NAMES, encoding="latin1")
    except FileNotFoundError:
        raise _error(path)("a Planetoid file", "none") from None
    except UsageError:
        raise
    except Exception as error:  # a damaged pickle may raise anything at all
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _error(path)("a Planetoid file", reason) from None


def _error(path: Path) -> Callable[[str, object], UsageError]:
    """Makes the error out of what was expected of a file and what came."""
    return lambda expected, got: UsageError(
        f"{path}: expected {expected}, got {got}; fetch it again"
    )


def _dense(path: Path, value: Any) -> npt.NDArray[np.float32]:
    """A two-dimensional array of finite numbers out of an array or a sparse matrix."""
    error = _error(path)
    table = array_of(value)
    if isinstance(value, _Matrix):
        try:
            table = _dense_of(value.parts, error)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
            raise error("a CSR matrix", str(problem) or type(problem).__name__) from None
    if table is None or table.ndim != 2:
        kind = type(value).__name__ if table is None else f"shape {list(table.shape)}"
        raise error("a matrix of numbers", kind)
    dense = cast(table, np.float32, "numbers", error)
    if not np.isfinite(dense).all():
        raise error("finite numbers", "a NaN or infinity")
    return dense


def _dense_of(
    parts: dict[str, Any], error: Callable[[str, object], UsageError]
) -> npt.NDArray[np.float32]:
    """The table of a CSR matrix; raises UsageError, and what else a damaged one calls for."""
    num_rows, num_columns = parts["_shape"]
    names = ("indptr", "indices", "data")
    indptr, columns, values = (array_of(parts[name]) for name in names)
    if indptr is None or columns is None or values is None:
        raise ValueError("no arrays in it")
    count = len(values)
    indptr = cast(indptr, np.int64, "offsets", error, low=0, high=count)
    columns = cast(columns, np.int64, "columns", error, low=0, high=num_columns - 1)
    fits = (
        indptr.shape == (num_rows + 1,)
        and columns.shape == values.shape == (count,)
        and indptr[0] == 0
        and indptr[-1] == count
        and (np.diff(indptr) >= 0).all()
    )
    if not fits:
        raise ValueError(f"{len(indptr)} offsets, {len(columns)} columns, {count} numbers")
    num_bytes = 4 * num_rows * num_columns
    require_room(f"a table of {num_rows} x {num_columns}", memory_bytes=num_bytes)
    dense = np.zeros((num_rows, num_columns), np.float32)
    rows = np.repeat(np.arange(num_rows), np.diff(indptr))
    np.add.at(dense, (rows, columns), cast(values, np.float32, "numbers", error))
    return dense


def _require_one_class(path: Path, rows: npt.NDArray[np.float32]) -> None:
    """Raise UsageError unless each row is 1 in one place and 0 elsewhere."""
    wrong = np.flatnonzero((rows.sum(axis=1) != 1) | (rows.max(axis=1, initial=0) != 1))
    if len(wrong) or ((rows != 0) & (rows != 1)).any():
        row = rows[wrong[0]].tolist()[:20] if len(wrong) else "other numbers"
        raise _error(path)("a 1 for the class in each row and 0 elsewhere", row)


def _edges(path: Path, graph: Any, num_nodes: int) -> npt.NDArray[np.int32]:
    """Edge list [M, 2] out of {node: [neighbour, ...]}."""
    error = _error(path)
    lists = list(graph.values()) if isinstance(graph, dict) else []
    if not isinstance(graph, dict) or not all(isinstance(ends, list) for ends in lists):
        raise error("a dict of lists of nodes", f"a {type(graph).__name__} of something else")
    lengths = np.array([len(ends) for ends in lists], np.int64)
    if (claimed := int(lengths.sum())) > (size := path.stat().st_size):
        raise error("a list of its own for each node", f"{claimed:,} edges in {size:,} bytes")
    flat = [end for ends in lists for end in ends]
    if not all(isinstance(node, int) for node in (*graph, *flat)):
        raise error("whole numbers as nodes", "others")
    nodes, neighbours = (
        cast(np.array(some), np.int32, "nodes", error, 0, num_nodes - 1)
        for some in (list(graph), flat)
    )
    return np.stack([neighbours, np.repeat(nodes, lengths)], axis=1)
