"""The node table: which nodes there are, their labels, splits, years and features."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.importer.edges import id_array
from gnn_core.data.importer.keys import Keys, TextKeys
from gnn_core.data.importer.labels import classes_of
from gnn_core.data.importer.request import Request
from gnn_core.data.importer.splits import WORDS
from gnn_core.data.importer.tables import Batch, Table
from gnn_core.data.importer.text import refuse
from gnn_core.data.progress import Progress
from gnn_core.usage import UsageError, did_you_mean, shown

IDS = ("id", "node_id", "nodeid", "node", "paper_id", "name")
_LABELS = ("label", "labels", "class", "target", "y", "category")
_SPLITS, _YEARS = ("split", "splits"), ("year", "years")
_BOOLEANS = {"true", "false"}


@dataclass
class NodeData:
    """What is known of N nodes beside their edges."""

    labels: npt.NDArray[np.int32] | None = None
    class_names: list[str] | None = None
    splits: npt.NDArray[np.uint8] | None = None
    years: npt.NDArray[np.int32] | None = None
    features: Any = None  # an array [N, F] or SparseFeatures


@dataclass(frozen=True)
class NodeColumns:
    """Which columns of a node table are what."""

    id: str
    label: str | None
    split: str | None
    year: str | None
    features: tuple[tuple[str, str], ...]  # (name, kind)

    @property
    def kinds(self) -> dict[str, str]:
        """Column -> kind, without that of the ids."""
        texts = {name: "text" for name in (self.label, self.split) if name}
        years = {self.year: "int"} if self.year else {}
        return {**dict(self.features), **texts, **years}

    def unused(self, table: Table) -> list[str]:
        """Columns that are not read."""
        return [name for name in table.names if name != self.id and name not in self.kinds]


def open_node_tables(request: Request) -> list[tuple[Table, NodeColumns]]:
    """Each node table with what its columns are. UsageError."""
    named = (request.id_column, request.label_column, request.split_column, request.year_column)
    known = [*IDS, *_LABELS, *_SPLITS, *_YEARS, *filter(None, named)]
    found = []
    for path in request.nodes:
        table = Table.open(path, known, request.text)
        found.append((table, _columns(table, request)))
    shapes = {columns.features for _, columns in found}
    if len(shapes) > 1:
        path = request.nodes[-1]
        raise refuse(path, None, f"the feature columns of {request.nodes[0]}", "others")
    return found


def id_column(table: Table, request: Request) -> str:
    """The column of ids: as named, else one with a usual name, else the first."""
    if request.id_column is not None:
        return table.column(request.id_column, "--id-column")
    return table.guess(IDS) or table.names[0]


def _columns(table: Table, request: Request) -> NodeColumns:
    def choose(given: str | None, usual: Sequence[str], flag: str) -> str | None:
        if given is not None:
            return table.column(given, flag)
        found = table.guess(usual)
        return None if found == key or found in for_features else found

    key = id_column(table, request)
    for_features = [_named(table, pattern) for pattern in request.feature_columns]
    label_column = request.label_column
    if label_column and "," in label_column and label_column not in table.names:
        wanted = "one label column: several labels per node are not supported"
        raise UsageError(f"--label-column: expected {wanted}, got {shown(label_column)}")
    label = choose(label_column, _LABELS, "--label-column")
    split = choose(request.split_column, _SPLITS, "--split-column")
    year = choose(request.year_column, _YEARS, "--year-column")
    features = feature_columns(table, request.feature_columns, {key, label, split, year})
    return NodeColumns(key, label, split, year, features)


def feature_columns(
    table: Table, patterns: Sequence[str], taken: set[str | None]
) -> tuple[tuple[str, str], ...]:
    """The columns that are given by name, position or pattern, in the order of the table.

    Each with its kind.
    """
    free = [name for name in table.names if name not in taken]
    chosen: set[str] = set()
    for pattern in patterns:
        name = _named(table, pattern)
        matching = [name] if name in free else fnmatch.filter(free, pattern)
        chosen.update(matching)
        if not matching:
            near = did_you_mean(pattern, free)
            got = f"{shown(', '.join(free))}{near}"
            wanted = f"columns {shown(pattern)}"
            raise refuse(table.path, None, wanted, got, "correct --feature-columns")
    return tuple((name, number_kind(table, name)) for name in free if name in chosen)


def _named(table: Table, wanted: str) -> str | None:
    """The column of that name or position (from 0), if there is one: else it is a pattern."""
    return table.column(wanted, "") if table.has(wanted) else None


def number_kind(table: Table, column: str) -> str:
    """`number`, `bool` for true and false, or `list` for a column of Parquet that holds lists."""
    if table.form is None:
        from pyarrow import types

        kind = table.types[column]
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return "list" if is_list else "number"
    head = {text.strip().lower() for text in table.head(column)} - {""}
    return "bool" if head and head <= _BOOLEANS else "number"


class NodeReader:
    """Reads node tables into arrays by node."""

    def __init__(self, keys: Keys, staging: Path) -> None:
        self.keys = keys
        self._labels = TextKeys()
        self._label_codes: list[npt.NDArray] = []
        self._splits: list[npt.NDArray] = []
        self._years: list[npt.NDArray] = []
        self._file = staging / "node-features.raw"

    def read(self, tables: list[tuple[Table, NodeColumns]], progress: Progress) -> NodeData:
        """All rows of all tables. UsageError names file, line and value."""
        total = sum(table.path.stat().st_size for table, _ in tables)
        width = 0
        with self._file.open("wb") as file:
            for table, columns in tables:
                for batch in table.batches({**columns.kinds, columns.id: self.keys.kind}):
                    progress(f"{len(self.keys):,} nodes", min(batch.bytes_read, total), total)
                    self._insert(batch, columns.id)
                    self._take(batch, columns)
                    if columns.features:
                        rows = numbers(batch, [name for name, _ in columns.features])
                        width = require_width(batch, rows, width)
                        file.write(rows.data)
        if not len(self.keys):
            raise refuse(tables[0][0].path, None, "nodes", "none")
        return self._result(tables, width)

    def _insert(self, batch: Batch, column: str) -> None:
        before = len(self.keys)
        found = self.keys.insert(id_array(batch, column))
        again = np.flatnonzero(found != np.arange(before, before + len(found)))
        if len(again):
            row = int(again[0])
            raise batch.error(row, "each id once", f"{shown(self.keys.shown(found[row]))} again")

    def _take(self, batch: Batch, columns: NodeColumns) -> None:
        if columns.label:
            texts = batch.columns[columns.label].fill_null("")
            self._label_codes.append(self._labels.insert(texts).astype(np.int32))
        if columns.split:
            self._splits.append(split_numbers(batch, columns.split))
        if columns.year:
            self._years.append(whole_numbers(batch, columns.year))

    def _result(self, tables: list[tuple[Table, NodeColumns]], width: int) -> NodeData:
        path, columns = tables[0][0].path, tables[0][1]
        num_nodes = len(self.keys)
        data = NodeData()
        if self._label_codes:
            codes = np.concatenate(self._label_codes)
            counts = np.bincount(codes, minlength=len(self._labels))
            data.labels, data.class_names = label_classes(
                path, columns.label or "", self._labels.texts(), codes, counts
            )
        if self._splits:
            data.splits = np.concatenate(self._splits)
        if self._years:
            data.years = np.concatenate(self._years)
        if width:
            data.features = np.memmap(self._file, np.float32, "r", shape=(num_nodes, width))
        return data


def label_classes(
    path: Path, column: str, texts: list[str], codes: npt.NDArray[np.int32], counts: npt.NDArray
) -> tuple[npt.NDArray[np.int32], list[str] | None]:
    """The class of each node out of the number of its label, and the names of the classes."""

    def error(expected: str, got: object) -> UsageError:
        return refuse(path, None, f"column {column} to hold {expected}", got, "name another column")

    classes, names = classes_of(texts, counts, error)
    return classes[codes], names


def numbers(batch: Batch, columns: Sequence[str]) -> npt.NDArray[np.float32]:
    """Some columns as float32 [k, F]. UsageError for an empty field, NaN or infinity."""
    parts = []
    for name in columns:
        values = batch.columns[name]
        if values.null_count:
            row = values.is_null().index(True).as_py()
            raise batch.error(row, f"a number in column {name}", "nothing")
        if _is_list(values):
            part = _list_rows(batch, name)
        else:
            part = values.to_numpy(zero_copy_only=False).reshape(-1, 1)
        with np.errstate(over="ignore"):
            part = part.astype(np.float32)
        odd = np.argwhere(~np.isfinite(part))
        if len(odd):
            row = int(odd[0][0])
            raise batch.error(row, f"a finite float32 in column {name}", shown(values[row].as_py()))
        parts.append(part)
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def require_width(batch: Batch, rows: npt.NDArray, width: int) -> int:
    """The number of columns of `rows`. UsageError unless it is `width`, which is 0 at first."""
    if not rows.shape[1]:
        raise batch.error(0, "at least one number", "an empty list")
    if width and rows.shape[1] != width:
        raise batch.error(0, f"{width} numbers", rows.shape[1])
    return int(rows.shape[1])


def _is_list(values: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(values.type))


def _list_rows(batch: Batch, name: str) -> npt.NDArray:
    """A column of lists of one length as [k, length]. UsageError."""
    values = batch.columns[name]
    lengths = values.value_lengths().to_numpy()
    odd = np.flatnonzero(lengths != lengths[0])
    if len(odd):
        row = int(odd[0])
        raise batch.error(row, f"{lengths[0]} numbers in column {name}", int(lengths[row]))
    rows: npt.NDArray = values.flatten().to_numpy(zero_copy_only=False)
    return rows.reshape(len(values), -1)


def whole_numbers(batch: Batch, column: str) -> npt.NDArray[np.int32]:
    """A column of years, int32 [k]. UsageError."""
    values = batch.columns[column]
    if values.null_count:
        row = values.is_null().index(True).as_py()
        raise batch.error(row, f"a year in column {column}", "nothing")
    years: npt.NDArray[np.int64] = values.to_numpy()
    odd = np.flatnonzero(np.abs(years) > 9999)
    if len(odd):
        wanted = f"a year from -9999 to 9999 in column {column}"
        raise batch.error(int(odd[0]), wanted, int(years[odd[0]]))
    return years.astype(np.int32)


def split_numbers(batch: Batch, column: str) -> npt.NDArray[np.uint8]:
    """A column of the words train, valid, test or none as uint8 [k]. UsageError."""
    encoded = batch.columns[column].fill_null("").dictionary_encode()
    words = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy()
    for number, word in enumerate(words):
        if word.strip().lower() not in WORDS:
            row = int(np.flatnonzero(codes == number)[0])
            wanted = f"train, valid, test or none in column {column}"
            raise batch.error(row, wanted, f"{shown(word)}{did_you_mean(word, WORDS)}")
    values = np.array([WORDS[word.strip().lower()] for word in words], np.uint8)
    found: npt.NDArray[np.uint8] = values[codes]
    return found
