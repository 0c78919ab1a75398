"""Features of nodes out of files: rows by id, triples, JSON lists, arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gnn_core.data.features import SparseFeatures
from gnn_core.data.importer import arrays
from gnn_core.data.importer.edges import numbers_of
from gnn_core.data.importer.keys import Keys, TextKeys
from gnn_core.data.importer.nodes import (
    feature_columns,
    id_column,
    number_kind,
    numbers,
    require_width,
)
from gnn_core.data.importer.request import Request
from gnn_core.data.importer.tables import Batch, Table
from gnn_core.data.importer.text import is_integer, refuse
from gnn_core.data.room import require_room
from gnn_core.files import read_regular
from gnn_core.usage import shown

_IDS = ("id", "node_id", "node")
_MOST_JSON_BYTES = 1 << 30
_MOST_COLUMNS = 1 << 24
_ARRAYS = (".npy", ".npz")
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_features(
    request: Request, keys: Keys, listed_in: str, staging: Path
) -> tuple[npt.NDArray | SparseFeatures, list[str]]:
    """The features of all nodes [N, F], and lines to tell the user. UsageError.

    Args:
        request: names the files.
        keys: number the ids; all of them are known.
        listed_in: what lists the nodes, for messages.
        staging: folder for a table that may not fit in memory.
    """
    paths = [Path(name) for name in request.features]
    first = paths[0]
    if len(paths) > 1 and any(path.suffix in (*_ARRAYS, ".json") for path in paths):
        raise refuse(paths[1], None, "one file of features, or several tables,", "several arrays")
    if first.suffix in _ARRAYS:
        return arrays.features_in(first, len(keys)), []
    if first.suffix == ".json":
        return _of_json(first, keys, listed_in)
    known = [*_IDS, *filter(None, [request.id_column])]
    tables = [Table.open(path, known, request.text) for path in paths]
    layout = request.feature_layout
    if layout == "auto":
        layout = _layout_of(tables[0], request)
    if layout == "triples":
        return _of_triples(tables, request, keys, listed_in)
    return _of_rows(tables, request, keys, listed_in, staging, layout == "ordered"), []


def _layout_of(table: Table, request: Request) -> str:
    """Three columns of which the first repeats are triples."""
    if len(table.names) != 3 or table.form is None:
        return "rows"
    ids = table.head(id_column(table, request))
    return "triples" if len(set(ids)) < len(ids) else "rows"


def _of_rows(
    tables: Sequence[Table],
    request: Request,
    keys: Keys,
    listed_in: str,
    staging: Path,
    is_ordered: bool,
) -> npt.NDArray[np.float32]:
    key = None if is_ordered else id_column(tables[0], request)
    patterns = request.feature_columns or ("*",)
    columns = feature_columns(tables[0], patterns, {key})
    names = [name for name, _ in columns]
    if not names:
        raise refuse(tables[0].path, None, "columns of features beside the id", "none")
    has_row = np.zeros(len(keys), np.bool_)
    rows: npt.NDArray[np.float32] | None = None
    done = 0
    for batch in _row_batches(tables, key, names, keys):
        nodes = _nodes_of(batch, key, keys, listed_in, has_row, done)
        values = numbers(batch, names)
        if rows is None:
            shape = (len(keys), values.shape[1])
            require_room("features", staging, 4 * shape[0] * shape[1])
            rows = np.memmap(staging / "features.raw", np.float32, "w+", shape=shape)
        require_width(batch, values, rows.shape[1])
        rows[nodes], has_row[nodes] = values, True
        done += len(batch)
    _require_all(tables[0].path, has_row, keys)
    assert rows is not None  # there are nodes, and each has a row
    return rows


def _row_batches(
    tables: Sequence[Table], key: str | None, names: Sequence[str], keys: Keys
) -> Iterator[Batch]:
    for table in tables:
        for name in (*names, *([key] if key else [])):
            table.column(name, "--features")
        kinds = {name: number_kind(table, name) for name in names}
        yield from table.batches({**kinds, **({key: keys.kind} if key else {})})


def _nodes_of(
    batch: Batch, key: str | None, keys: Keys, listed_in: str, has_row: npt.NDArray, done: int
) -> npt.NDArray[np.int64]:
    """The nodes of some rows, by their ids or, without a column of ids, in their order."""
    if key is not None:
        nodes = numbers_of(batch, key, keys, listed_in)
        _require_new(batch, nodes, has_row, key)
        return nodes
    if done + len(batch) > len(keys):
        raise batch.error(len(keys) - done, f"{len(keys)} rows, one per node", "more")
    return np.arange(done, done + len(batch))


def _require_new(batch: Batch, nodes: npt.NDArray, has_row: npt.NDArray, key: str) -> None:
    is_again = has_row[nodes]
    _, first = np.unique(nodes, return_index=True)
    is_again[np.setdiff1d(np.arange(len(nodes)), first)] = True
    if is_again.any():
        row = int(np.flatnonzero(is_again)[0])
        got = f"{batch.columns[key][row].as_py()!r} again"
        raise batch.error(row, "one row of features per node", got)


def _require_all(path: Path, has_row: npt.NDArray, keys: Keys) -> None:
    missing = np.flatnonzero(~has_row)
    if len(missing):
        wanted = f"features of all {len(has_row):,} nodes"
        got = f"none for {len(missing):,} of them, such as {keys.shown(int(missing[0]))!r}"
        raise refuse(path, None, wanted, got)


def _of_triples(
    tables: Sequence[Table], request: Request, keys: Keys, listed_in: str
) -> tuple[SparseFeatures, list[str]]:
    nodes, words, values = list[npt.NDArray](), list[npt.NDArray](), list[npt.NDArray]()
    table, names = tables[0], TextKeys()
    key = id_column(table, request)
    others = [name for name in table.names if name != key]
    if len(others) != 2:
        wanted = "three columns (node, feature, value)"
        raise refuse(table.path, None, wanted, ", ".join(table.names[:20]))
    word, value = others
    are_numbers = table.holds_integers(word)
    for table in tables:
        for batch in table.batches(
            {key: keys.kind, word: "int" if are_numbers else "text", value: "number"}
        ):
            nodes.append(numbers_of(batch, key, keys, listed_in))
            values.append(numbers(batch, [value])[:, 0])
            if are_numbers:
                words.append(_columns_in(batch, word))
            else:
                words.append(names.insert(batch.columns[word].fill_null("")))
    if not values:
        raise refuse(table.path, None, "features", "none")
    flat = [np.concatenate(part) for part in (values, nodes, words)]
    return _sparse(table.path, flat[0], flat[1], flat[2], keys)


def _columns_in(batch: Batch, column: str) -> npt.NDArray[np.int64]:
    values = batch.columns[column]
    if values.null_count:
        row = values.is_null().index(True).as_py()
        raise batch.error(row, f"a feature in column {column}", "nothing")
    found: npt.NDArray[np.int64] = values.to_numpy()
    odd = np.flatnonzero((found < 0) | (found >= _MOST_COLUMNS))
    if len(odd):
        row = int(odd[0])
        wanted = f"a feature from 0 to {_MOST_COLUMNS - 1} in column {column}"
        raise batch.error(row, wanted, int(found[row]))
    return found


def _of_json(path: Path, keys: Keys, listed_in: str) -> tuple[SparseFeatures, list[str]]:
    """`{"node": [word, ...], ...}`, words being column numbers or text; repeats are counted."""
    nodes, words = _json_lists(path)
    numbers_found = find_texts(keys, nodes)
    unknown = np.flatnonzero(numbers_found < 0)
    if len(unknown):
        raise refuse(path, None, f"nodes of {listed_in}", shown(nodes[int(unknown[0])]))
    if len(np.unique(numbers_found)) < len(nodes):
        raise refuse(path, None, "each node once", "one twice")
    lengths = np.array([len(each) for each in words], np.int64)
    flat: list[Any] = [word for each in words for word in each]
    if all(type(word) is int for word in flat):
        if flat and not 0 <= min(flat) <= max(flat) < _MOST_COLUMNS:
            odd = min(flat) if min(flat) < 0 else max(flat)
            raise refuse(path, None, f"features from 0 to {_MOST_COLUMNS - 1}", shown(odd))
        columns = np.array(flat, np.int64)
    elif all(type(word) is str for word in flat):
        place = {word: column for column, word in enumerate(sorted(set(flat)))}
        columns = np.array([place[word] for word in flat], np.int64)
    else:
        kind = int if type(flat[0]) is int else str
        odd_one = next(word for word in flat if type(word) is not kind)
        raise refuse(path, None, "lists of feature numbers, or of words", shown(odd_one))
    ones = np.ones(len(flat), np.float32)
    return _sparse(path, ones, np.repeat(numbers_found, lengths), columns, keys)


def _json_lists(path: Path) -> tuple[list[str], list[list[Any]]]:
    size = path.stat().st_size if path.is_file() else 0
    require_room(f"{path}", memory_bytes=10 * min(size, _MOST_JSON_BYTES))
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            names = [name for name, _ in items]
            twice.append(next(name for at, name in enumerate(names) if name in names[:at]))
        return found

    try:
        content = json.loads(read_regular(path, _MOST_JSON_BYTES), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise refuse(path, None, "JSON", str(error) or type(error).__name__) from None
    if twice:
        raise refuse(path, None, "each node once", f"{shown(twice[0])} twice")
    if not isinstance(content, dict) or not content:
        raise refuse(path, None, "an object of lists by node", shown(content))
    odd = next((name for name, each in content.items() if not isinstance(each, list)), None)
    if odd is not None:
        raise refuse(path, None, f"a list for node {shown(odd)}", shown(content[odd]))
    return list(content), list(content.values())


def find_texts(keys: Keys, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The nodes whose ids are written so, -1 for unknown ones."""
    if isinstance(keys, TextKeys):
        import pyarrow

        # Blanks around ids are left out, as in tables; no id is empty, or has half a surrogate.
        known = ["" if _SURROGATE.search(text) else text.strip() for text in texts]
        return keys.find(pyarrow.array(known, pyarrow.string()))
    fits = [is_integer(text) for text in texts]
    ids = np.array(
        [int(text) if fit else 0 for text, fit in zip(texts, fits, strict=True)], np.int64
    )
    return np.where(fits, keys.find(ids), -1)


def _sparse(
    path: Path,
    values: npt.NDArray[np.float32],
    nodes: npt.NDArray,
    columns: npt.NDArray,
    keys: Keys,
) -> tuple[SparseFeatures, list[str]]:
    if not len(columns):
        raise refuse(path, None, "features", "none")
    width = int(columns.max()) + 1
    matrix = sparse.coo_array((values, (nodes, columns)), shape=(len(keys), width))
    features = SparseFeatures.of_scipy(matrix)
    bare = np.flatnonzero(np.diff(features.indptr) == 0)
    lines = []
    if len(bare):
        example = keys.shown(int(bare[0]))
        lines.append(f"{len(bare):,} nodes have no features in {path}, such as {example!r}: zeros")
    return features, lines


def made_features(kind: str, degrees: npt.NDArray) -> SparseFeatures:
    """`identity`: a column for each node; `degree`: one for each degree, up to 255 and above."""
    num_nodes = len(degrees)
    columns = np.arange(num_nodes) if kind == "identity" else np.minimum(degrees, 255)
    width = num_nodes if kind == "identity" else int(columns.max(initial=0)) + 1
    indptr = np.arange(num_nodes + 1, dtype=np.int64)
    return SparseFeatures(indptr, columns.astype(np.int32), np.ones(num_nodes, np.float32), width)
