"""Import a graph: read its edges, its nodes and what is known of them, and write a graph folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.casts import cast
from gnn_core.data.checks import SPLIT_NAMES, untrained_classes
from gnn_core.data.csr import write_csr
from gnn_core.data.features import SparseFeatures
from gnn_core.data.importer import arrays, edges, splits
from gnn_core.data.importer.feature_files import made_features, read_features
from gnn_core.data.importer.keys import IntegerKeys, Keys
from gnn_core.data.importer.nodes import NodeData, NodeReader, open_node_tables
from gnn_core.data.importer.npz_graph import labels_of, load_edges, read_npz_graph
from gnn_core.data.importer.request import DEFAULT_SPLIT, MADE_FEATURES, Request, split_rule
from gnn_core.data.importer.split_file import read_split_file
from gnn_core.data.importer.text import refuse
from gnn_core.data.meta import MISSING_ALLOWED
from gnn_core.data.ordered_map import threads_to_use
from gnn_core.data.progress import Progress, silent
from gnn_core.data.room import require_room
from gnn_core.data.store import GraphWriter
from gnn_core.usage import UsageError

READER = "importer 2"  # change it whenever the same files give other arrays
_ARRAYS = (".npy", ".npz")
_TEXT_BYTES_PER_EDGE = 8  # at least, but for graphs of less than a thousand nodes
_MOST_IDENTITY = 10_000  # nodes that get a column each where there are no features
# Of an edge while its row is sorted, as `csr` counts. It really takes a third of that, so that 100
# million edges are sorted at once in less than 1 GB.
_SORT_BYTES = 12
_NUMBERED_BYTES = 30  # of memory for a node whose id is its number, while that is noted
_MOST_SORT_BYTES = 3 << 30


@dataclass
class Read:
    """A graph as it was read, before it is written."""

    keys: Keys
    pairs: edges.PairFile
    data: NodeData
    lines: list[str]  # for the user


def import_graph(
    name: str, request: Request, folder: Path, progress: Progress = silent
) -> list[str]:
    """Write the graph of some files to `folder`, whole or not at all.

    Args:
        name: of the graph.
        request: the files, and how to read them.
        folder: is replaced if it is there.
        progress: is told how far it is.

    Returns:
        Lines that tell what was read, counted and left out.

    Raises:
        UsageError: names the file, the line and the value of a mistake.
    """
    with GraphWriter(folder, name) as writer:
        scratch = writer.staging / "scratch"
        scratch.mkdir()
        read = _read(request, scratch, progress)
        facts = _write(writer, read, request, progress)
        files = (*request.edges, *request.nodes, *map(Path, request.features))
        paths = [str(path.absolute()) for path in files if str(path) not in MADE_FEATURES]
        shutil.rmtree(scratch)
        num_classes = None if read.data.class_names is None else len(read.data.class_names)
        writer.finish(num_classes, {"reader": READER, "imported_from": paths, **facts})
    return read.lines


def _write(writer: GraphWriter, read: Read, request: Request, progress: Progress) -> dict[str, Any]:
    """Write all arrays of a graph that was read; what provenance tells of it."""
    num_nodes, pairs, data = len(read.keys), read.pairs, read.data
    if not num_nodes:
        raise UsageError("expected a graph with at least one node, got none; name other files")
    threads = threads_to_use()
    budget = max(1 << 20, min(_MOST_SORT_BYTES, int(2.1 * pairs.count) * _SORT_BYTES))
    disk = pairs.count * 8 * (1 + request.directed) + num_nodes * 8
    what = f"a graph of {num_nodes:,} nodes and {pairs.count:,} edges"
    require_room(what, writer.folder, disk, budget / 3 + num_nodes * 24)
    read.keys.put(writer)
    kept = write_csr(
        writer,
        pairs.chunks,
        num_nodes,
        budget_bytes=budget // threads,
        progress=progress,
        threads=threads,
    )
    if request.directed:
        with writer.stream("citations", np.int32, (pairs.count, 2)) as sink:
            for piece in pairs.chunks():
                sink.write(piece)
    degrees = np.diff(np.load(writer.path("indptr"), mmap_mode="r"))
    facts = _tell_edges(read, kept, int(np.count_nonzero(degrees == 0)), request)
    facts |= _add_splits(read, request)
    data.features = _features_or_made(read, request, degrees)
    for array in ("labels", "splits", "years", "features"):
        progress(array, 0, 1)
        writer.put(array, getattr(data, array))
    if data.class_names is not None:
        facts["class_names"] = data.class_names
    return facts


def _read(request: Request, scratch: Path, progress: Progress) -> Read:
    pairs = edges.PairFile(scratch / "edges.raw")
    first = request.edges[0]
    if first.suffix in _ARRAYS and len(request.edges) > 1:
        raise refuse(first, None, "one file of arrays", f"{len(request.edges)} files")
    if first.suffix == ".npz":
        read = _read_npz(request, pairs)
    else:
        _require_disk(request, scratch)
        read = _read_tables(request, pairs, scratch, progress)
    num_nodes = len(read.keys)
    if request.features and request.features[0] not in MADE_FEATURES:
        listed_in = f"{(request.nodes or request.edges)[0]}"
        read.data.features, lines = read_features(request, read.keys, listed_in, scratch)
        read.lines += lines
    _read_columns(request, read.data, num_nodes)
    _pad(read.data, num_nodes)
    if request.split and split_rule(request.split) is None:
        listed_in = f"{(request.nodes or request.edges)[0]}"
        read.data.splits = read_split_file(Path(request.split), request, read.keys, listed_in)
    return read


def _read_npz(request: Request, pairs: edges.PairFile) -> Read:
    path = request.edges[0]
    if request.nodes:
        raise refuse(request.nodes[0], None, f"no node table beside {path}", "one", "leave it out")
    found, num_nodes, data = read_npz_graph(path)
    if num_nodes > edges.MOST_NODES:
        raise refuse(path, None, f"at most {edges.MOST_NODES:,} nodes", num_nodes)
    pairs.write(found[:, 0], found[:, 1])
    pairs.close()
    return Read(numbered(num_nodes), pairs, data, [])


def numbered(num_nodes: int) -> IntegerKeys:
    """Ids that are the numbers of nodes, from 0."""
    require_room(f"{num_nodes:,} nodes", memory_bytes=_NUMBERED_BYTES * num_nodes)
    keys = IntegerKeys()
    keys.insert(np.arange(num_nodes))
    return keys


def _require_disk(request: Request, scratch: Path) -> None:
    """Ask early for the room that the edges of these files will at least take."""
    sizes = [path.stat().st_size for path in request.edges if path.is_file()]
    least = sum(sizes) / (2 * _TEXT_BYTES_PER_EDGE)
    require_room("the edges of these files", scratch, (3 + request.directed) * 8 * least)


def _read_tables(
    request: Request, pairs: edges.PairFile, scratch: Path, progress: Progress
) -> Read:
    is_array = request.edges[0].suffix == ".npy"
    edge_tables = [] if is_array else edges.open_edge_tables(request)
    node_tables = open_node_tables(request)
    ids = [(table, name) for table, *ends in edge_tables for name in ends]
    ids += [(table, columns.id) for table, columns in node_tables]
    data, lines = NodeData(), list[str]()
    keys: Keys
    listed_in: str | None = None
    rows = _ordered_rows(request)
    if node_tables:
        keys = edges.id_kind(request, ids)()
        data = NodeReader(keys, scratch).read(node_tables, progress)
        listed_in = None if request.allow_unlisted else str(request.nodes[0])
        unused = node_tables[0][1].unused(node_tables[0][0])
        if unused:
            lines.append(f"columns of nodes not read: {', '.join(unused[:20])}")
    elif rows is not None:
        keys, listed_in = numbered(rows), f"the {rows:,} numbered from 0"
    else:
        keys = edges.id_kind(request, ids)()
    if is_array:
        keys = _read_array(request, keys, pairs, listed_in, is_numbered=not node_tables)
    else:
        edges.read_tables(edge_tables, keys, pairs, listed_in, progress)
    if not pairs.count:
        raise refuse(request.edges[0], None, "edges", "none")
    if isinstance(keys, IntegerKeys) and listed_in is None and not node_tables:
        keys = _sorted(keys, pairs)
    return Read(keys, pairs, data, lines)


def _ordered_rows(request: Request) -> int | None:
    """The number of nodes, where arrays without ids tell it."""
    for path in (*map(Path, request.features[:1]), request.labels):
        if path is not None and path.suffix in _ARRAYS:
            if path is request.labels:
                return len(arrays.load_npy(path)) if path.suffix == ".npy" else None
            return len(arrays.features_in(path))
    return None


def _read_array(
    request: Request, keys: Keys, pairs: edges.PairFile, listed_in: str | None, is_numbered: bool
) -> Keys:
    path = request.edges[0]
    found = load_edges(path)
    if not isinstance(keys, IntegerKeys):
        raise refuse(path, None, "a node table with integer ids", "text")
    if is_numbered and listed_in is None:
        keys = numbered(int(found.max(initial=-1)) + 1)
    number = keys.insert if listed_in is None and not is_numbered else keys.find
    for low in range(0, len(found), 1 << 20):
        piece = found[low : low + (1 << 20)]
        source, target = (number(np.ascontiguousarray(piece[:, end])) for end in (0, 1))
        odd = np.flatnonzero((source < 0) | (target < 0))
        if len(odd):
            raise refuse(path, None, f"nodes of {listed_in}", piece[int(odd[0])].tolist())
        pairs.write(source, target)
    pairs.close()
    return keys


def _sorted(keys: IntegerKeys, pairs: edges.PairFile) -> IntegerKeys:
    """Number the nodes in the order of their ids."""
    order = keys.order()
    if np.array_equal(order, np.arange(len(order))):
        return keys
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    pairs.renumber(rank)
    result = IntegerKeys()
    result.insert(keys.ids[order])
    return result


def _read_columns(request: Request, data: NodeData, num_nodes: int) -> None:
    """Labels and years of arrays."""
    if request.labels is not None:
        values = arrays.column_in(request.labels, num_nodes, arrays.LABELS)
        data.labels, data.class_names = labels_of(request.labels, "labels", values)
    if request.years is not None:
        path = request.years

        def error(expected: str, got: object) -> UsageError:
            return refuse(path, None, expected, got)

        years = arrays.column_in(path, num_nodes, ("years", "year"))
        data.years = cast(years.reshape(-1), np.int32, "years", error, -9999, 9999)


def _pad(data: NodeData, num_nodes: int) -> None:
    """Nodes that only edges name have no label, and zeros for features."""
    if data.years is not None and len(data.years) < num_nodes:
        raise UsageError(
            f"--allow-unlisted: expected a year for every node, got {len(data.years):,} for "
            f"{num_nodes:,}; list all nodes"
        )
    for name, fill in (("labels", -1), ("splits", 0), ("features", 0)):
        values = getattr(data, name)
        if isinstance(values, np.ndarray) and len(values) < num_nodes:
            rest = np.full((num_nodes - len(values), *values.shape[1:]), fill, values.dtype)
            setattr(data, name, np.concatenate([values, rest]))


def _tell_edges(read: Read, kept: int, num_isolated: int, request: Request) -> dict[str, Any]:
    pairs = read.pairs
    repeats = pairs.count - pairs.self_loops - kept // 2
    told = [f"{len(read.keys):,} nodes", f"{pairs.count:,} edges read"]
    told += [
        f"{pairs.self_loops:,} self loops and {repeats:,} repeats in either direction left out"
    ]
    told += [f"{num_isolated:,} nodes without an edge"] * bool(num_isolated)
    read.lines.insert(0, ", ".join(told))
    counts = {"edges_read": pairs.count, "self_loops": pairs.self_loops, "repeats": repeats}
    return {**counts, "directed": request.directed}


def _add_splits(read: Read, request: Request) -> dict[str, Any]:
    data = read.data
    if data.labels is None:
        if request.split and split_rule(request.split):
            raise UsageError(
                f"--split {request.split}: expected labels, got none; name them with --label-column"
            )
        return {}
    data.labels, labels = data.labels.astype(np.int32), data.labels
    num_classes = len(data.class_names or ()) or int(labels.max(initial=-1)) + 1
    rule = split_rule(request.split) if request.split else None
    origin = request.split or "given"
    if data.splits is None or rule is not None:
        rule = rule or DEFAULT_SPLIT
        data.splits = splits.make_splits(rule, labels, data.years, request.split_seed)
        origin = f"{rule}, seed {request.split_seed}" if rule.how != "year" else str(rule)
    bare = (data.splits != 0) & (labels < 0)
    if bare.any():
        data.splits = np.where(bare, 0, data.splits).astype(np.uint8)
        read.lines.append(f"{int(bare.sum()):,} nodes of a split have no label and leave it")
    _tell_classes(read, num_classes, origin)
    return {"split": origin, **_require_trained(data, num_classes, origin, request)}


def _tell_classes(read: Read, num_classes: int, origin: str) -> None:
    data = read.data
    assert data.labels is not None and data.splits is not None
    unlabelled = int(np.count_nonzero(data.labels < 0))
    told = f"{num_classes} classes" + (f", {unlabelled:,} nodes without" if unlabelled else "")
    counts = np.bincount(data.splits, minlength=len(SPLIT_NAMES))
    sizes = ", ".join(f"{counts[at]:,} {SPLIT_NAMES[at]}" for at in (1, 2, 3))
    read.lines.append(f"{told}; split ({origin}): {sizes}")
    for at in (1, 2, 3):
        if not counts[at] and at > 1:
            read.lines.append(f"warning: the split has no {SPLIT_NAMES[at]} node")
    if not counts[1]:
        raise UsageError(
            f"split ({origin}): expected nodes with a label to train on, got none; choose another "
            "--split or --label-column"
        )


def _require_trained(
    data: NodeData, num_classes: int, origin: str, request: Request
) -> dict[str, Any]:
    """Raise UsageError for a class that is evaluated and not trained on, unless it is allowed."""
    assert data.labels is not None and data.splits is not None
    if request.allow_missing_classes:
        return {MISSING_ALLOWED: True}
    missing = untrained_classes(data.labels, data.splits, num_classes)
    if len(missing):
        names = data.class_names or [str(number) for number in range(num_classes)]
        shown = ", ".join(names[number] for number in missing[:5])
        raise UsageError(
            f"split ({origin}): expected a training node of every class that validation or test "
            f"nodes have, got none of {shown}{', ...' * (len(missing) > 5)}; change the split, or "
            "accept it with --allow-missing-classes"
        )
    return {}


def _features_or_made(read: Read, request: Request, degrees: npt.NDArray) -> Any:
    kind = request.features[0] if request.features else None
    features = read.data.features
    if kind not in MADE_FEATURES and (features is not None or read.data.labels is None):
        return features
    if kind not in MADE_FEATURES:
        kind = MADE_FEATURES[len(degrees) > _MOST_IDENTITY]
        read.lines.append(f"no features are given: --features {kind} is taken")
    assert kind is not None
    made: SparseFeatures = made_features(kind, degrees)
    return made
