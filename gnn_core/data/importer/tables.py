"""Tables in files: CSV of any delimiter, compressed or not, and Parquet, in batches of columns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnn_core.data.importer.text import Block, Form, blocks, first_mistake, form_of, refuse
from gnn_core.data.ordered_map import ordered_map, threads_to_use
from gnn_core.files import open_regular
from gnn_core.usage import UsageError, did_you_mean, shown

_PARQUET_ROWS = 1 << 20
_PARQUET = b"PAR1"


@dataclass(frozen=True)
class TextOptions:
    """How text files are read; what is None or `auto` is found in their first lines."""

    delimiter: str | None = None
    header: str = "auto"  # auto | yes | no
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Batch:
    """Rows of a table: its columns as Arrow arrays, and where they come from."""

    columns: Mapping[str, Any]
    path: Path
    first_row: int  # of a Parquet file, counted from 1
    block: Block | None  # of a text file
    bytes_read: int  # of the whole file so far, as it is stored or, if compressed, unpacked
    delimiter: str = ","  # of a text file

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def error(self, row: int, expected: str, got: object, remedy: str = "") -> UsageError:
        """The error about a row, which names its line."""
        if self.block is not None:
            return refuse(self.path, self.block.line_of(row, self.delimiter), expected, got, remedy)
        path = Path(f"{self.path}, row {self.first_row + row}")
        return refuse(path, None, expected, got, remedy)


@dataclass(frozen=True)
class Table:
    """A table in a file, with the names of its columns: `0`, `1`, ... of one without a header."""

    path: Path
    names: tuple[str, ...]
    options: TextOptions
    form: Form | None  # of a text file
    types: Mapping[str, Any] = field(default_factory=dict)  # Arrow's, of a Parquet file

    @classmethod
    def open(cls, path: Path, known_names: Sequence[str], options: TextOptions) -> Table:
        """Look at a file. `known_names`: what columns may be called. Raises UsageError."""
        with open_regular(path) as file:
            is_parquet = file.read(4) == _PARQUET
        if not is_parquet:
            form = form_of(path, known_names, options.encoding, options.delimiter, options.header)
            return cls(path, form.names, options, form)
        schema = _parquet(path).schema_arrow
        if not schema.names:
            raise refuse(path, None, "columns", "a table without any")
        return cls(
            path,
            tuple(schema.names),
            options,
            None,
            dict(zip(schema.names, schema.types, strict=True)),
        )

    def has(self, wanted: str) -> bool:
        """Whether there is a column of that name or position (from 0)."""
        is_position = wanted.isdecimal() and len(wanted) < 10
        return wanted in self.names or (is_position and int(wanted) < len(self.names))

    def column(self, wanted: str, flag: str) -> str:
        """The name of a column that is given by its name or its position (from 0). UsageError."""
        if self.has(wanted):
            return wanted if wanted in self.names else self.names[int(wanted)]
        near = did_you_mean(wanted, self.names)
        known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
        raise refuse(
            self.path, None, f"a column {shown(wanted)}", f"{shown(known)}{near}", f"correct {flag}"
        )

    def guess(self, candidates: Iterable[str]) -> str | None:
        """The first of `candidates` that is a column, in any case of letters."""
        lower = {name.lower(): name for name in reversed(self.names)}
        return next((lower[name] for name in candidates if name in lower), None)

    def head(self, column: str) -> list[str]:
        """The first values of a column of a text file."""
        assert self.form is not None
        at = self.names.index(column)
        return [row[at] for row in self.form.head if at < len(row)]

    def holds_integers(self, column: str) -> bool:
        """Whether the first values of a column are integers, be they too large for 64 bits."""
        if self.form is None:
            from pyarrow import types

            return bool(types.is_integer(self.types[column]))
        digits = [text.strip().removeprefix("-") for text in self.head(column)]
        # 007 is no integer: it is another id than 7.
        return all(text.isdecimal() and (text == "0" or text[0] != "0") for text in digits if text)

    def batches(self, kinds: dict[str, str]) -> Iterator[Batch]:
        """The rows, as Arrow arrays of some columns. UsageError names file, line and value.

        `kinds`: column -> `int`, `number` (float64), `bool` or `text`.
        """
        if self.form is None:
            yield from self._parquet_batches(kinds)
            return
        form = self.form
        found = ordered_map(
            lambda block: _parse(block, form, kinds),
            blocks(self.path, self.options.encoding, form.skipped),
            threads_to_use(),
        )
        done = 0
        for block, columns in found:
            done += len(block.content)
            yield Batch(columns, self.path, 0, block, done, form.delimiter)

    def _parquet_batches(self, kinds: dict[str, str]) -> Iterator[Batch]:
        import pyarrow

        types = {**_arrow_types(), "list": pyarrow.list_(pyarrow.float64())}
        row, done = 1, 0
        try:
            for batch in _parquet(self.path).iter_batches(_PARQUET_ROWS, columns=list(kinds)):
                columns = {}
                for name, kind in kinds.items():
                    columns[name] = _cast(self.path, name, kind, batch.column(name), types[kind])
                done += batch.nbytes
                if batch.num_rows:
                    yield Batch(columns, self.path, row, None, done)
                row += batch.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise refuse(self.path, None, "a whole Parquet file", _first(error)) from None


def _parse(block: Block, form: Form, kinds: dict[str, str]) -> tuple[Block, dict[str, Any]]:
    import pyarrow
    from pyarrow import csv

    types = _arrow_types()
    try:
        table = csv.read_csv(
            pyarrow.py_buffer(block.content),
            read_options=csv.ReadOptions(
                use_threads=False, block_size=len(block.content) + 1, column_names=list(form.names)
            ),
            parse_options=csv.ParseOptions(delimiter=form.delimiter),
            convert_options=csv.ConvertOptions(
                column_types={name: types[kind] for name, kind in kinds.items()},
                include_columns=list(kinds),
                null_values=["", "NA", "N/A", "null", "NULL", "None"],
                true_values=["True", "true", "TRUE", "1"],
                false_values=["False", "false", "FALSE", "0"],
                strings_can_be_null=False,
            ),
        )
    except pyarrow.ArrowException as error:
        found = first_mistake(block, form, kinds)
        raise found or refuse(
            block.path, block.first_line, "rows of a table", _first(error)
        ) from None
    block.require_closed(form.delimiter, table.num_rows)
    columns = {name: table.column(name).combine_chunks() for name in kinds}
    return block, columns


def _arrow_types() -> dict[str, Any]:
    import pyarrow

    return {
        "int": pyarrow.int64(),
        "number": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "text": pyarrow.string(),
    }


def _cast(path: Path, name: str, kind: str, values: Any, wanted: Any) -> Any:
    import pyarrow
    from pyarrow import compute

    if pyarrow.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if kind == "number" and not _is_numeric(values.type):
        raise refuse(path, None, f"numbers in column {name}", f"values of type {values.type}")
    try:
        return compute.cast(values, wanted)
    except pyarrow.ArrowException as error:
        raise refuse(path, None, f"column {name} of type {wanted}", _first(error)) from None


def _is_numeric(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _parquet(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(os.fspath(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise refuse(path, None, "a whole Parquet file", _first(error)) from None


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
