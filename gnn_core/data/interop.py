"""Graphs of other libraries -> `Graph`: PyG, DGL, NetworkX, SciPy, OGB, pandas.

An object is read by its attributes; of their libraries only pandas is imported, for its frames.
`horovod_gnn.pyg` turns a `Graph` into PyG's `Data`, and opens a saved one.

    from gnn_core.data import datasets, interop
    datasets.add(interop.as_graph(data), "mine")        # then: --dataset mine
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.csr import build_csr, edges_of
from gnn_core.data.graph import Graph
from gnn_core.data.importer.edges import MOST_NODES
from gnn_core.data.importer.labels import classes_of_array
from gnn_core.data.importer.splits import WORDS, splits_of_masks
from gnn_core.data.room import require_room
from gnn_core.usage import UsageError, did_you_mean, shown

_MASKS = {"train_mask": 1, "val_mask": 2, "valid_mask": 2, "test_mask": 3}
_NODE_BYTES = 24  # of memory for a node, beside its edges
_PARTS = {"train": 1, "valid": 2, "test": 3}


def as_graph(source: Any, name: str = "imported", directed: bool = False) -> Graph:
    """The graph in an object of another library, in memory. Raises UsageError.

    Args:
        source: PyG `Data`, a homogeneous DGL graph, a NetworkX graph, a square SciPy sparse matrix,
            an OGB data set for node properties, or a pandas frame of edges.
        name: of the graph.
        directed: keep the direction of edges for link prediction (`citations`); messages always
            pass in both.
    """
    return _reader_of(source)(source, name, directed)


def from_edges(
    name: str,
    edges: npt.ArrayLike,
    num_nodes: int | None = None,
    directed: bool = False,
    labels: Any = None,
    **others: Any,
) -> Graph:
    """A graph in memory of edges [M, 2] (source, target), each taken in both directions.

    Edges from a node to itself and repeats are left out. `labels` are classes in numbers or text,
    or one-hot rows; `others` are `features`, `splits` and `years` as of `Graph.from_arrays`.
    """
    pairs = _numbers(name, "edges", edges, None)
    if pairs.size == 0:
        pairs = np.empty((0, 2), np.int64)
    known = [len(values) for values in (labels, *others.values()) if hasattr(values, "__len__")]
    if num_nodes is None:
        num_nodes = max([*known, int(pairs.max(initial=-1)) + 1])
    if not isinstance(num_nodes, int | np.integer) or not 0 <= num_nodes <= MOST_NODES:
        raise _missing(name, f"a number of nodes from 0 to {MOST_NODES:,}", shown(num_nodes))
    require_room(f"graph {name} of {num_nodes:,} nodes", memory_bytes=_NODE_BYTES * num_nodes)
    sink = _Rows()
    lengths = build_csr(edges_of(pairs), num_nodes, sink)
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    indices = np.concatenate([np.empty(0, np.int32), *sink.rows])
    names = None
    if labels is not None:
        labels, names = classes_of_array(as_numpy(labels), _labels_error(name))
    citations = pairs if directed else None
    graph = Graph.from_arrays(name, indptr, indices, labels=labels, citations=citations, **others)
    if names is not None:
        graph.meta["provenance"]["class_names"] = names
    return graph


def from_pyg(data: Any, name: str = "imported", directed: bool = False) -> Graph:
    """Of PyG's `Data`: `edge_index` or `adj_t`, `x`, `y`, `train_mask`, `val_mask`, `test_mask`."""
    edge_index = getattr(data, "edge_index", None)
    if edge_index is None and getattr(data, "adj_t", None) is not None:
        target, source, _ = data.adj_t.coo()
        edges = np.stack([as_numpy(source), as_numpy(target)], axis=1)
    elif edge_index is None:
        raise _missing(name, "edge_index or adj_t", "a Data object without edges")
    else:
        edges = as_numpy(edge_index).T
    masks = {mask: getattr(data, mask, None) for mask in _MASKS}
    years = getattr(data, "node_year", None)
    num_nodes = int(data.num_nodes)
    return from_edges(
        name,
        edges,
        num_nodes,
        directed,
        features=_optional(getattr(data, "x", None)),
        labels=_optional(getattr(data, "y", None)),
        splits=_splits(name, masks, num_nodes),
        years=None if years is None else as_numpy(years).reshape(-1),
    )


def from_dgl(graph: Any, name: str = "imported", directed: bool = False) -> Graph:
    """Of a homogeneous DGL graph: `feat` (or `x`), `label` (or `y`) and masks of its `ndata`."""
    if len(getattr(graph, "ntypes", ["_N"])) != 1 or len(getattr(graph, "etypes", ["_E"])) != 1:
        raise _missing(name, "a graph with one type of nodes and edges", "several")
    source, target = graph.edges()
    data, num_nodes = graph.ndata, int(graph.num_nodes())
    return from_edges(
        name,
        np.stack([as_numpy(source), as_numpy(target)], axis=1),
        num_nodes,
        directed,
        features=_optional(_first(data, ("feat", "x", "features"))),
        labels=_optional(_first(data, ("label", "labels", "y"))),
        splits=_splits(name, {mask: _first(data, (mask,)) for mask in _MASKS}, num_nodes),
    )


def from_networkx(
    graph: Any,
    name: str = "imported",
    directed: bool = False,
    features: str = "x",
    label: str = "label",
    split: str = "split",
) -> Graph:
    """Of a NetworkX graph: attributes of its nodes by their names; node i is `list(graph)[i]`.

    An attribute that no node has is left out; a label may be missing on some.
    """
    nodes = list(graph.nodes)
    number = {node: at for at, node in enumerate(nodes)}
    edges = np.array([(number[u], number[v]) for u, v in graph.edges()], np.int64).reshape(-1, 2)

    def values(attribute: str, missing: Any = None) -> list[Any] | None:
        found = [graph.nodes[node].get(attribute, missing) for node in nodes]
        is_there = any(attribute in graph.nodes[node] for node in nodes)
        return found if is_there else None

    rows, words = values(features), values(split, "none")
    if (
        rows is not None
        and (bare := next((at for at, row in enumerate(rows) if row is None), -1)) >= 0
    ):
        wanted = f"attribute {features} on every node"
        raise _missing(name, wanted, f"none on {shown(nodes[bare])}")
    labels = values(label, "")
    return from_edges(
        name,
        edges,
        len(nodes),
        directed,
        features=None if rows is None else _numbers(name, "features", rows),
        labels=None if labels is None else np.array([str(each) for each in labels]),
        splits=None if words is None else _split_words(name, words),
    )


def from_scipy(matrix: Any, name: str = "imported", directed: bool = False, **others: Any) -> Graph:
    """Of a square sparse matrix, whose entry (i, j) is an edge from i to j; others by keyword."""
    if len(matrix.shape) != 2 or len({*matrix.shape}) != 1:
        raise _missing(name, "a square matrix", f"shape {list(matrix.shape)}")
    rows = matrix.shape[0]
    found = matrix.tocoo()
    is_edge = found.data != 0
    edges = np.stack([found.row[is_edge], found.col[is_edge]], axis=1)
    return from_edges(name, edges, rows, directed, **others)


def from_ogb(dataset: Any, name: str = "imported", directed: bool = False) -> Graph:
    """Of OGB's data sets for node properties, PyG's or those that know no framework."""
    item = dataset[0]
    chosen = dataset.get_idx_split()
    if isinstance(item, tuple):
        graph, labels = item
        num_nodes, edges = int(graph["num_nodes"]), as_numpy(graph["edge_index"]).T
        features, years = graph.get("node_feat"), graph.get("node_year")
    else:
        num_nodes, edges = int(item.num_nodes), as_numpy(item.edge_index).T
        features, labels = item.x, item.y
        years = getattr(item, "node_year", None)
    splits = np.zeros(num_nodes, np.uint8)
    for part, value in _PARTS.items():
        splits[as_numpy(chosen[part])] = value
    return from_edges(
        name,
        edges,
        num_nodes,
        directed,
        features=_optional(features),
        labels=_optional(labels),
        splits=splits,
        years=None if years is None else as_numpy(years).reshape(-1),
    )


def from_pandas(
    edges: Any,
    nodes: Any = None,
    name: str = "imported",
    directed: bool = False,
    id: str | None = None,
    label: str | None = None,
    split: str | None = None,
    year: str | None = None,
    features: Sequence[str] = (),
) -> Graph:
    """Of a frame of edges, whose first two columns are source and target, and one of nodes.

    Args:
        edges: ids of any kind.
        nodes: one row per node, in the order that the graph will have; without it the nodes are
            those of `edges`, sorted.
        name: of the graph.
        directed: as for `as_graph`.
        id: column of `nodes` with the ids; its index if None.
        label: column of classes.
        split: column of the words train, valid, test, none.
        year: column of years.
        features: columns of numbers.
    """
    for what, frame, least in (("edges", edges, 2), ("nodes", nodes, 0)):
        if frame is not None and (not hasattr(frame, "columns") or len(frame.columns) < least):
            wanted_frame = f"a frame of {what}" + (" with two columns" if least else "")
            raise _missing(name, wanted_frame, shown(type(frame).__name__))
    ends = edges.iloc[:, :2]
    wanted = [each for each in (id, label, split, year, *features) if each]
    index = _frame_index(name, ends, nodes, id, wanted)
    pairs = np.stack([index.get_indexer(ends.iloc[:, end]) for end in (0, 1)], axis=1)
    unknown = np.argwhere(pairs < 0)
    if len(unknown):
        row, end = (int(at) for at in unknown[0])
        raise _missing(name, "edges between listed nodes", shown(ends.iloc[row, end]))

    def column_of(column: str | None) -> Any:
        return None if column is None else nodes[column]

    labels, words, years = map(column_of, (label, split, year))
    return from_edges(
        name,
        pairs,
        len(index),
        directed,
        features=_numbers(name, "features", nodes[list(features)]) if features else None,
        labels=None
        if labels is None
        else labels.astype(object).where(labels.notna(), "").astype(str).to_numpy(str),
        splits=None if words is None else _split_words(name, words.fillna("none")),
        years=None if years is None else years.to_numpy(),
    )


def _frame_index(name: str, ends: Any, nodes: Any, id: str | None, wanted: Sequence[str]) -> Any:
    """The ids of the nodes as pandas' index: of the frame of nodes, else those of the edges."""
    import pandas

    bare = np.flatnonzero(ends.isna().any(axis=1))
    if len(bare):
        raise _missing(name, "two ids in each row of edges", f"an empty one in row {int(bare[0])}")
    if nodes is None:
        if wanted:
            raise _missing(name, f"a frame of nodes with the column {wanted[0]}", "none")
        ids = np.concatenate([ends.iloc[:, 0].unique(), ends.iloc[:, 1].unique()])
        try:
            return pandas.Index(np.unique(ids))
        except TypeError:
            kinds = " and ".join(sorted({type(each).__name__ for each in ids}))
            raise _missing(name, "ids of one kind, numbers or text", shown(kinds)) from None
    for column in wanted:
        if column not in nodes.columns:
            near = did_you_mean(str(column), map(str, nodes.columns))
            raise _missing(name, f"a column {shown(column)} of nodes", f"none{near}")
    index = pandas.Index(nodes.index if id is None else nodes[id])
    if not index.is_unique:
        raise _missing(name, "each id once", f"{shown(index[index.duplicated()][0])} twice")
    return index


def as_numpy(values: Any) -> npt.NDArray:
    """The array of a tensor on any device, or of anything that NumPy understands."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":
            values = values.float()
        if str(getattr(values, "layout", "torch.strided")) != "torch.strided":
            values = values.to_dense()
    found: npt.NDArray = values.numpy() if hasattr(values, "numpy") else np.asarray(values)
    return found


class _Rows:
    """Keeps the rows of a CSR in memory."""

    def __init__(self) -> None:
        self.rows: list[npt.NDArray] = []

    def write(self, rows: npt.NDArray) -> None:
        self.rows.append(rows.copy())


def _reader_of(source: Any) -> Callable[[Any, str, bool], Graph]:
    libraries = {cls.__module__.partition(".")[0] for cls in type(source).__mro__}
    if "ogb" in libraries:
        return from_ogb
    if "pandas" in libraries:
        return lambda frame, name, directed: from_pandas(frame, None, name, directed)
    for library, read in _READERS.items():
        if library in libraries:
            return read
    known = ", ".join(["ogb", "pandas", *_READERS])
    raise UsageError(f"expected a graph of {known}, got {shown(type(source).__name__)}")


_READERS: dict[str, Callable[[Any, str, bool], Graph]] = {
    "torch_geometric": from_pyg,
    "dgl": from_dgl,
    "networkx": from_networkx,
    "scipy": from_scipy,
}


def _optional(values: Any) -> Any:
    if values is None or hasattr(values, "tocsr"):
        return values
    return as_numpy(values)


def _first(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if name in values), None)


def _splits(name: str, masks: Mapping[str, Any], num_nodes: int) -> npt.NDArray[np.uint8] | None:
    """Out of masks [N] or [N, splits], of which the first is taken; None without a mask."""
    found = {
        _MASKS[mask]: (mask, as_numpy(values))
        for mask, values in masks.items()
        if values is not None
    }
    if not found:
        return None
    return splits_of_masks(found, num_nodes, lambda *words: _missing(name, *words))


def _numbers(name: str, what: str, values: Any, dtype: Any = np.float32) -> npt.NDArray:
    """Numbers of a table; one for each node is a column. UsageError for text and ragged rows."""
    try:
        found = np.ascontiguousarray(np.asarray(values, dtype))
    except (ValueError, TypeError) as error:
        raise _missing(name, f"{what} that are numbers in rows of one length", error) from None
    if found.dtype.kind not in "iufb" and found.size:
        raise _missing(name, f"{what} that are numbers", f"values of type {found.dtype}")
    return found[:, None] if found.ndim == 1 and dtype is not None else found


def _split_words(name: str, words: Sequence[Any]) -> npt.NDArray[np.uint8]:
    found = [str(word).strip().lower() for word in words]
    odd = next((word for word in found if word not in WORDS), None)
    if odd is not None:
        raise _missing(name, "train, valid, test or none as split", shown(odd))
    return np.array([WORDS[word] for word in found], np.uint8)


def _labels_error(name: str) -> Callable[[str, object], UsageError]:
    return lambda expected, got: _missing(name, f"labels to hold {expected}", got)


def _missing(name: str, expected: str, got: object) -> UsageError:
    return UsageError(f"graph {name}: expected {expected}, got {got}; correct the object")
