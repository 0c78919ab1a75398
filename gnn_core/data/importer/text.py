"""Text files of a table in blocks of whole lines, decompressed on the way, and what they look like.

A file is never read whole: a block has about 16 MB. A compressed file that holds one endless line,
or nothing but empty ones, is refused.
"""

from __future__ import annotations

import collections
import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from gnn_core.files import open_regular
from gnn_core.usage import UsageError, shown

_NEWLINE = ord("\n")
_BLOCK_BYTES = 16 << 20
_MOST_EMPTY = 1 << 20  # bytes of empty lines in a block
_HEAD_ROWS = 100
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_UTF8_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16
_DELIMITERS = ("\t", ",", ";", "|", " ")
_COMMENTS = (b"#", b"%")
csv.field_size_limit(2 * _BLOCK_BYTES)  # a field may be as long as a block
_END = "\x01end"  # follows a text that is parsed: a row of its own, unless a quote is open
_INTEGER = re.compile(r"\s*-?[0-9]+\s*")
_COLUMNS_HINT = "correct the file, or give --delimiter if another sign separates columns"
_TEXT_HINT = "save it as UTF-8 (iconv -f LATIN1 -t UTF-8) or give --encoding"


class Row(NamedTuple):
    """A row of a table in text."""

    line: int  # it begins on
    last_line: int
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Whole lines of a file."""

    path: Path
    first_line: int  # counted from 1
    content: bytes

    @property
    def num_lines(self) -> int:
        """Lines, empty ones too."""
        return self.content.count(b"\n") + (not self.content.endswith(b"\n"))

    def rows(self, delimiter: str, after: int = 0) -> Iterator[Row]:
        """Each row that is not empty, of those after the first `after` lines. UsageError.

        A field in quotes may go over several lines; bytes that are no UTF-8 become surrogates.
        """
        text = self.content.decode(errors="surrogateescape")
        lines = itertools.islice(io.StringIO(text, newline="\n"), after, None)
        reader = csv.reader(itertools.chain(lines, ["\n", _END]), delimiter=delimiter)
        base = first = self.first_line + after
        row: list[str] = []
        try:
            for row in reader:
                last = base + reader.line_num - 1
                if row and row != [_END]:
                    if row[-1].endswith(_END):
                        break
                    yield Row(first, last, tuple(row))
                first = last + 1
        except csv.Error as error:
            # csv cannot tell otherwise that a carriage return stands outside of quotes.
            if "new-line" not in str(error):
                got = str(error)
                raise refuse(self.path, first, "fields with delimiters between", got) from None
            remedy = "save it with the line ends of Unix or Windows"
            got = "a carriage return alone"
            raise refuse(self.path, first, "lines that end in a line feed", got, remedy) from None
        if row != [_END]:
            remedy = "close it; of a large file only Parquet may have line breaks in fields"
            got = f"none up to the end of the file or of {_BLOCK_BYTES >> 20} MiB"
            raise refuse(self.path, first, "a closing quote", got, remedy)

    def require_closed(self, delimiter: str, num_rows: int) -> None:
        """Raise UsageError for an open quote or odd line ends, which hide rows.

        `num_rows`: how many rows were read, as many as lines in all but few files.
        """
        end = self.content.rfind(b"\n", 0, -1) + 1
        if num_rows != self.num_lines or self.content.count(b'"', end) % 2:
            collections.deque(self.rows(delimiter), maxlen=0)

    def line_of(self, row: int, delimiter: str) -> int:
        """The number of the line that row `row` (from 0) of this block begins on."""
        rows = itertools.islice(self.rows(delimiter), row, None)
        return next((each.line for each in rows), self.first_line)


@dataclass(frozen=True)
class Form:
    """How a text file is to be read: found in its first lines."""

    delimiter: str
    names: tuple[str, ...]  # of the columns; `0`, `1`, ... without a header
    has_header: bool
    skipped: int  # lines before the first row: comments and the header
    head: tuple[tuple[str, ...], ...]  # the first rows, without the header


def refuse(
    path: Path, line: int | None, expected: str, got: object, remedy: str = ""
) -> UsageError:
    """The error to raise: file, line, what was expected, what came."""
    place = f"{path}, line {line}" if line is not None else f"{path}"
    return UsageError(f"{place}: expected {expected}, got {got}; {remedy or 'correct the file'}")


def blocks(path: Path, encoding: str = "utf-8", skip: int = 0) -> Iterator[Block]:
    """The blocks of a file after its first `skip` lines, as UTF-8. UsageError."""
    with open_regular(path) as raw:
        stream = _decompressed(path, raw)
        rest, line, skipped, is_first = b"", 1, 0, True
        while True:
            data = _read(path, stream)
            if is_first:
                data, is_first = _without_bom(path, data), False
            content, newline, rest = (rest + data).rpartition(b"\n")
            if not data:
                content, newline, rest = rest, b"", b""
            if len(rest) > _BLOCK_BYTES:
                wanted = f"lines of at most {_BLOCK_BYTES:,} bytes"
                raise refuse(path, line, wanted, "a longer one")
            # NumPy counts short lines several times as fast as `bytes.count`.
            is_end = np.frombuffer(content, np.uint8) == _NEWLINE
            num_lines = int(np.count_nonzero(is_end)) + bool(newline)
            while skipped < skip and content:
                content = content.partition(b"\n")[2]
                line, num_lines, skipped = line + 1, num_lines - 1, skipped + 1
            if content.strip(b"\r\n"):
                yield Block(path, line, _encoded(path, content, encoding))
            elif len(content) > _MOST_EMPTY:
                raise refuse(path, line, "rows", f"{len(content):,} bytes of empty lines")
            line += num_lines
            if not data:
                return


def form_of(
    path: Path,
    known_names: Sequence[str],
    encoding: str = "utf-8",
    delimiter: str | None = None,
    header: str = "auto",
) -> Form:
    """Find delimiter, header and column names in the first lines of a file.

    Args:
        path: of the file, compressed or not.
        known_names: a first line with one of these, in any case, is a header. So is one in which
            no field is a number, above one in which some are.
        encoding: of the text.
        delimiter: None finds it.
        header: `auto`, `yes` or `no`.

    Raises:
        UsageError: the file is empty, no text, or names two columns alike.
    """
    first = next(blocks(path, encoding), None)
    if first is None:
        raise refuse(path, None, "rows", "an empty file")
    lines = first.content.split(b"\n", 10 * _HEAD_ROWS)[: 10 * _HEAD_ROWS]
    is_data = [bool(line.strip(b"\r")) and not line.startswith(_COMMENTS) for line in lines]
    if True not in is_data:
        raise refuse(path, None, "rows", "comments alone")
    start = is_data.index(True)
    text = _decoded(path, first.first_line + start, lines[start])
    delimiter = delimiter or next((sign for sign in _DELIMITERS if sign in text), ",")
    found = list(itertools.islice(first.rows(delimiter, start), _HEAD_ROWS + 1))
    for row in found:
        _require_text(path, row, delimiter)
    rows = [row.fields for row in found]
    has_header = header == "yes" or (header == "auto" and _is_header(rows, known_names))
    names = tuple(name.strip() for name in rows[0]) if has_header else ()
    if not has_header:
        names = tuple(str(number) for number in range(len(rows[0])))
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise refuse(path, found[0].line, "each column name once", f"{shown(twice)} twice")
    skipped = found[0].last_line if has_header else found[0].line - 1
    return Form(delimiter, names, has_header, skipped, tuple(rows[has_header:]))


def _decompressed(path: Path, raw: IO[bytes]) -> Any:
    start = raw.read(4)
    raw.seek(0)
    for magic, name in _COMPRESSIONS.items():
        if start.startswith(magic):
            import pyarrow

            return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), name)
    if start.startswith((b"PK", b"\xfd7zX")):
        raise refuse(path, None, "text, gzip, bzip2 or Zstandard", "another archive", "unpack it")
    return raw


def _read(path: Path, stream: Any) -> bytes:
    try:
        data: bytes = stream.read(_BLOCK_BYTES)
    except (OSError, ValueError) as error:  # pyarrow's errors are among these
        got = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise refuse(path, None, "a whole compressed file", got) from None
    return data


def _without_bom(path: Path, data: bytes) -> bytes:
    if data.startswith(_OTHER_BOMS):
        remedy = "save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"
        raise refuse(path, 1, "text in UTF-8", "UTF-16", remedy)
    if b"\0" in data[:4096]:
        raise refuse(path, None, "text", "a zero byte, as in a binary file", "name a table")
    return data.removeprefix(_UTF8_BOM)


def _encoded(path: Path, content: bytes, encoding: str) -> bytes:
    if encoding == "utf-8":
        return content
    try:
        return content.decode(encoding).encode()
    except UnicodeDecodeError as error:
        got = f"byte 0x{content[error.start]:02x}"
        raise refuse(path, None, f"text in {encoding}", got, "correct --encoding") from None


def _decoded(path: Path, number: int, line: bytes) -> str:
    """The text of a line. UsageError names the byte that is no UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        got = f"byte 0x{line[error.start]:02x} in {shown(line.decode('latin-1'))}"
        raise refuse(path, number, "text in UTF-8", got, _TEXT_HINT) from None


def _require_text(path: Path, row: Row, delimiter: str) -> None:
    """Raise UsageError for a row with bytes that are no UTF-8."""
    line = delimiter.join(row.fields)
    _decoded(path, row.line, line.encode(errors="surrogateescape"))


def _is_header(rows: Sequence[Sequence[str]], known_names: Sequence[str]) -> bool:
    known = {name.lower() for name in known_names}
    if known & {name.strip().lower() for name in rows[0]}:
        return True
    if len(rows) == 1:
        return False
    has_number = [any(map(_is_number, row)) for row in rows[:2]]
    return not has_number[0] and has_number[1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text  # float takes more than Arrow does


def first_mistake(block: Block, form: Form, kinds: dict[str, str]) -> UsageError | None:
    """What is wrong with the first wrong row of a block; None if nothing is found.

    `kinds` says what a column holds: `int` (of 64 bits), `number`, `bool` or `text`.
    """
    columns = [(form.names.index(name), name, kind) for name, kind in kinds.items()]
    for row in block.rows(form.delimiter):
        number, fields = row.line, row.fields
        _require_text(block.path, row, form.delimiter)
        if len(fields) != len(form.names):
            wanted = f"{len(form.names)} columns"
            got = f"{len(fields)}: {shown(form.delimiter.join(fields))}"
            return refuse(block.path, number, wanted, got, _COLUMNS_HINT)
        for at, name, kind in columns:
            if not _CHECKS[kind](fields[at]):
                label = f"column {name}"
                wanted = _WANTED[kind]
                remedy = "correct it, or give --id-type text for ids" if kind == "int" else ""
                return refuse(block.path, number, f"{wanted} in {label}", shown(fields[at]), remedy)
    return None


def is_integer(text: str) -> bool:
    """Whether the text is an integer that fits 64 bits."""
    return bool(_INTEGER.fullmatch(text)) and -(2**63) <= int(text[:40]) < 2**63


_CHECKS = {
    "int": is_integer,
    "number": lambda text: _is_number(text) or not text,
    "bool": lambda text: text.lower() in ("true", "false", "0", "1", ""),
    "text": lambda text: True,
}
_WANTED = {
    "int": "an integer of at most 64 bits",
    "number": "a number",
    "bool": "true or false",
    "text": "text",
}
