"""The formats of the output: CSV, Parquet and .npy, written block by block.

A block is a structured array of rows, as `Table.dtype` has them. Nodes and classes are numbers in
it, and become what they are called when they are written.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.ids import OriginalIds, TextIds, called
from gnn_core.data.store import write_header
from gnn_core.usage import UsageError

CSV, PARQUET, NPY = ".csv", ".parquet", ".npy"
SUFFIXES = (CSV, PARQUET, NPY)
Blocks = Iterable[npt.NDArray[Any]]
_ROWS = 1 << 16  # of ids at a time
_NODES = ("node", "paper", "candidate")  # fields that are called by their original ids
_NODES_OR_NONE = ("common_1", "common_2", "common_3")  # so are these, unless they are -1


@dataclass(frozen=True)
class Table:
    """What the rows of an output are.

    Its fields are columns by their names; one of several numbers, such as `logit` `[width]`, is
    that many columns of a CSV and a list in Parquet.
    """

    dtype: np.dtype[Any]
    ids: OriginalIds | None = None
    classes: list[str] | None = None  # names of the classes

    def column(self, block: npt.NDArray[Any], name: str) -> npt.NDArray[Any] | list[str]:
        """A column as it is written: a list of text, or an array of numbers."""
        values = block[name]
        if name in _NODES:
            return called(self.ids, values)
        if name in _NODES_OR_NONE:
            names = called(self.ids, np.maximum(values, 0))
            there = (values >= 0).tolist()
            return [
                str(one) if is_there else "" for one, is_there in zip(names, there, strict=True)
            ]
        if name.startswith("class") and self.classes is not None:
            return [self.classes[number] for number in values]
        return values


def write_csv(table: Table, blocks: Blocks, path: Path) -> None:
    """Write a header and a line for each row; numbers with 7 significant digits."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(name for field in _fields(table) for name in _names(*field))
        for block in blocks:
            columns: list[list[Any]] = []
            for name, shape in _fields(table):
                values = table.column(block, name)
                columns += [_texts(one) for one in (np.asarray(values).T if shape else [values])]
            writer.writerows(zip(*columns, strict=True))


def _names(name: str, shape: tuple[int, ...]) -> list[str]:
    """The names of the columns of a CSV for a field."""
    return [f"{name}_{i}" for i in range(shape[0])] if shape else [name]


def write_parquet(table: Table, blocks: Blocks, path: Path) -> None:
    """Write a row group for each block."""
    arrow, parquet = require_parquet()
    writer = None
    try:
        for block in blocks:
            columns = {
                name: _arrow_column(arrow, table.column(block, name)) for name, _ in _fields(table)
            }
            rows = arrow.table(columns)
            writer = writer or parquet.ParquetWriter(path, rows.schema)
            writer.write_table(rows)
    finally:
        if writer is not None:
            writer.close()


def write_npy(blocks: Blocks, path: Path, field: str, shape: tuple[int, ...]) -> None:
    """Write one field as an array of that shape, whose rows the blocks bring."""
    with path.open("wb") as file:
        dtype = None
        for block in blocks:
            rows = np.ascontiguousarray(block[field])
            if dtype is None:
                dtype = rows.dtype
                write_header(file, dtype, shape)
            file.write(rows.data)


def write_ids(
    ids: OriginalIds | None, nodes: npt.NDArray[np.int64], path: Path, most_rows: int = _ROWS
) -> None:
    """Write what the nodes int64 `[k]` are called as .npy: int64, or text of one width."""

    def pieces() -> Iterator[npt.NDArray[Any]]:
        for first in range(0, len(nodes), most_rows):
            yield np.array(called(ids, nodes[first : first + most_rows]))

    dtype: np.dtype[Any] = np.dtype(np.int64)
    if isinstance(ids, TextIds):
        width = max((piece.dtype.itemsize // 4 for piece in pieces()), default=1)
        dtype = np.dtype(f"<U{width}")
    with path.open("wb") as file:
        write_header(file, dtype, nodes.shape)
        for piece in pieces():
            file.write(piece.astype(dtype).tobytes())


def require_parquet() -> tuple[Any, Any]:
    """The two modules that write Parquet; UsageError where they are not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            "--output: expected pyarrow, which writes Parquet, got none installed; `pip install "
            "pyarrow`, or write .csv or .npy"
        ) from None
    return pyarrow, parquet


def _fields(table: Table) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the columns of each row."""
    return [(name, table.dtype[name].shape) for name in table.dtype.names or ()]


def _texts(values: npt.NDArray[Any] | list[str]) -> list[Any]:
    """A column for a CSV: floats as text of 7 digits, all else as it is."""
    if isinstance(values, list):
        return values
    if values.dtype.kind == "f":
        return [f"{value:.7g}" for value in values.tolist()]
    return list(values.tolist())


def _arrow_column(arrow: Any, values: npt.NDArray[Any] | list[str]) -> Any:
    if isinstance(values, list):
        return arrow.array(values, type=arrow.string())
    flat = arrow.array(np.ascontiguousarray(values).reshape(-1))
    return flat if values.ndim == 1 else arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
