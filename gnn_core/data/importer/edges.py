"""Edges of tables and arrays -> pairs of node numbers in a file, counted on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.importer.keys import IntegerKeys, Keys, TextKeys
from gnn_core.data.importer.request import Request
from gnn_core.data.importer.tables import Batch, Table
from gnn_core.data.progress import Progress
from gnn_core.data.room import require_room
from gnn_core.env.granted import free_bytes
from gnn_core.usage import UsageError

SOURCES = tuple("source src from id_1 id1 node_1 node1 u citing head start".split())
TARGETS = tuple("target dst to id_2 id2 node_2 node2 v cited tail end".split())
MOST_NODES = 2**31 - 2
_CHUNK = 1 << 20
_LEAST_FREE = 64 << 20


@dataclass
class PairFile:
    """Pairs of node numbers, int32 [M, 2], in a file: written in sequence, then read in pieces."""

    path: Path
    count: int = 0
    self_loops: int = 0
    _file: IO[bytes] | None = field(default=None, repr=False)

    def write(self, source: npt.NDArray, target: npt.NDArray) -> None:
        """Append pairs. UsageError when the disk is nearly full."""
        if self._file is None:
            self._file = self.path.open("wb")
        pairs = np.empty((len(source), 2), np.int32)
        pairs[:, 0], pairs[:, 1] = source, target
        if (free := free_bytes(self.path)) is not None and free < pairs.nbytes + _LEAST_FREE:
            require_room(
                f"edges after {self.count:,} of them", self.path, pairs.nbytes + _LEAST_FREE
            )
        self._file.write(pairs.data)
        self.count += len(pairs)
        self.self_loops += int(np.count_nonzero(source == target))

    def close(self) -> None:
        """End writing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def chunks(self) -> Iterator[npt.NDArray[np.int32]]:
        """The pairs, int32 [k, 2] at a time; starts again at each call."""
        if not self.count:
            return
        with self.path.open("rb") as file:
            while len(flat := np.fromfile(file, np.int32, 2 * _CHUNK)):
                yield flat.reshape(-1, 2)

    def renumber(self, rank: npt.NDArray[np.int32]) -> None:
        """Put `rank[number]` in place of each number."""
        with self.path.open("r+b") as file:
            while len(flat := np.fromfile(file, np.int32, 2 * _CHUNK)):
                file.seek(-flat.nbytes, 1)
                file.write(rank[flat].data)
                file.flush()


def open_edge_tables(request: Request) -> list[tuple[Table, str, str]]:
    """Each edge table with the names of its two columns. UsageError."""
    known = [*SOURCES, *TARGETS]
    known += [name for name in (request.source_column, request.target_column) if name]
    found = []
    for path in request.edges:
        table = Table.open(path, known, request.text)
        if len(table.names) < 2:
            raise _error(
                path, "two columns, source and target,", f"one: {table.names[0]}", "--delimiter"
            )
        source = _end(table, request.source_column, SOURCES, 0, "--source-column")
        target = _end(table, request.target_column, TARGETS, 1, "--target-column")
        if source == target:
            raise _error(path, "two different columns", f"{source} twice", "--target-column")
        found.append((table, source, target))
    return found


def read_tables(
    tables: list[tuple[Table, str, str]],
    keys: Keys,
    pairs: PairFile,
    listed_in: str | None,
    progress: Progress,
) -> None:
    """Write the edges of all tables to `pairs`.

    Args:
        tables: as `open_edge_tables` returns them.
        keys: numbers the ids.
        pairs: takes the edges.
        listed_in: what lists all nodes, so that another id is an error; None: `keys` take new ones.
        progress: is told how far it is.
    """
    total = sum(table.path.stat().st_size for table, _, _ in tables)
    done = 0
    for table, source, target in tables:
        for batch in table.batches({source: keys.kind, target: keys.kind}):
            progress(
                f"{pairs.count / 1e6:,.0f} million edges",
                min(done + batch.bytes_read, total),
                total,
            )
            ends = [numbers_of(batch, name, keys, listed_in) for name in (source, target)]
            pairs.write(*ends)
        done += table.path.stat().st_size
    pairs.close()


def numbers_of(
    batch: Batch, column: str, keys: Keys, listed_in: str | None
) -> npt.NDArray[np.int64]:
    """The nodes of a column of ids. UsageError for an empty one, and for one not in `listed_in`."""
    ids = id_array(batch, column)
    if listed_in is None:
        numbers = keys.insert(ids)
        if len(keys) > MOST_NODES:
            raise _error(batch.path, f"at most {MOST_NODES:,} nodes", "more", "the file")
        return numbers
    numbers = keys.find(ids)
    unknown = np.flatnonzero(numbers < 0)
    if len(unknown):
        row = int(unknown[0])
        got = repr(batch.columns[column][row].as_py())
        raise batch.error(row, f"a node of {listed_in}", f"{got} in column {column}")
    return numbers


def id_array(batch: Batch, column: str) -> Any:
    """A column of ids: int64 [k], or Arrow's array of text. UsageError for an empty one.

    Text is taken without the blanks around it, as numbers and the names of columns are.
    """
    from pyarrow import compute, types

    values = batch.columns[column]
    is_text = types.is_string(values.type)
    if is_text:
        values = compute.utf8_trim_whitespace(values)
    empty = compute.equal(values, "").fill_null(True) if is_text else values.is_null()
    if (values.null_count or is_text) and (row := empty.index(True).as_py()) >= 0:
        raise batch.error(row, f"an id in column {column}", "nothing")
    return values if is_text else values.to_numpy()


def id_kind(request: Request, columns: list[tuple[Table, str]]) -> type[IntegerKeys | TextKeys]:
    """Whether ids are integers in all of these columns; found in the first rows."""
    if request.id_type != "auto":
        return IntegerKeys if request.id_type == "int" else TextKeys
    are_integers = all(table.holds_integers(column) for table, column in columns)
    return IntegerKeys if are_integers else TextKeys


def _end(table: Table, given: str | None, usual: tuple[str, ...], position: int, flag: str) -> str:
    if given is not None:
        return table.column(given, flag)
    return table.guess(usual) or table.names[position]


def _error(path: Path, expected: str, got: str, flag: str) -> UsageError:
    return UsageError(f"{path}: expected {expected}, got {got}; correct {flag}")
