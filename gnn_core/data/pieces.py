"""Large files in pieces: gzipped CSV and members of .npz archives, never a whole array at once."""

from __future__ import annotations

import gzip
import lzma
import math
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from gnn_core.usage import UsageError

_TEXT_BYTES = 8 << 20  # of CSV at a time, and of a row at most
_MOST_ROW_BYTES = 64 << 20  # of an array
_KINDS = "iufb"


class Header(NamedTuple):
    """What the .npy header of an archive member says."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype


def csv_pieces(path: Path) -> Iterator[npt.NDArray[np.float64]]:
    """The rows of a gzipped CSV without a header line, as float64 `[k, columns]`.

    About 8 MB of text are decompressed at a time, and no row is longer than that. float64 holds
    whole numbers up to 2**53; the reader makes its own dtype of it (see `casts`).

    Raises:
        UsageError: no gzip, no numbers, rows of different lengths in one piece, a longer row.
    """
    try:
        with gzip.open(path) as file:
            for text in _whole_lines(file):
                yield np.loadtxt(
                    text.decode("ascii").splitlines(),
                    dtype=np.float64,
                    delimiter=",",
                    ndmin=2,
                    comments=None,
                )
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path, "gzipped rows of numbers", error) from None


def _whole_lines(file: gzip.GzipFile) -> Iterator[bytes]:
    """What a stream holds, some MB at a time, each piece of whole lines. ValueError."""
    rest = b""
    while data := file.read(_TEXT_BYTES):
        lines, newline, rest = (rest + data).rpartition(b"\n")
        if len(rest) > _TEXT_BYTES:
            raise ValueError(f"a row of more than {_TEXT_BYTES:,} bytes")
        if newline and not lines.strip():
            if len(lines) > _TEXT_BYTES // 2:
                raise ValueError(f"{len(lines):,} bytes of empty lines")
        elif newline:
            yield lines
    if rest.strip():
        yield rest


# Of Python source, as numpy does it: several threads at once fail at it in CPython 3.11.
_PARSING = threading.Lock()


def read_header(file: IO[bytes]) -> Header:
    """The header of the .npy file that begins where `file` stands. ValueError."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f".npy version {version[0]}.{version[1]}")
    try:
        with _PARSING:
            header = Header(*read(file))
    except ValueError:
        raise
    except Exception as error:  # it is a piece of Python, which may be damaged in any way
        raise ValueError(f"a damaged header ({type(error).__name__})") from None
    if any(length < 0 for length in header.shape):
        raise ValueError(f"shape {list(header.shape)}")
    return header


def npz_members(path: Path) -> list[str]:
    """The names of the arrays in an .npz file. UsageError."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(path, "an .npz file", error) from None


def npz_header(path: Path, member: str) -> Header:
    """Shape, order and dtype of one array of an .npz file. UsageError."""
    with _open_member(path, member) as (header, _):
        return header


def npz_pieces(
    path: Path, member: str, piece_values: int, row: int | None = None
) -> Iterator[npt.NDArray]:
    """One array of an .npz file, as arrays [k, ...] along the first axis. UsageError.

    With `row`, one row of a two-dimensional array, as arrays [k]. A two-dimensional array in
    Fortran order comes transposed, because that is how it lies in the file.
    """
    with _open_member(path, member) as (header, file):
        shape = header.shape[::-1] if header.fortran_order else header.shape
        if header.fortran_order and len(shape) != 2:
            raise _damaged(path, f"{member} in C order", "Fortran order")
        if row is not None:
            file.seek(row * shape[1] * header.dtype.itemsize, 1)
            shape = shape[1:]
        width = math.prod(shape[1:])
        if len(shape) and width * header.dtype.itemsize > _MOST_ROW_BYTES:
            expected = f"{member} with rows of at most {_MOST_ROW_BYTES:,} bytes"
            raise _damaged(path, expected, f"shape {list(header.shape)}")
        step = max(1, piece_values // max(width, 1))
        for start in range(0, shape[0] if shape else 0, step):
            count = min(step, shape[0] - start)
            num_bytes = count * width * header.dtype.itemsize
            data = file.read(num_bytes)
            if len(data) != num_bytes:
                raise _damaged(path, f"{member} of shape {list(header.shape)}", "less")
            yield np.frombuffer(data, header.dtype).reshape(count, *shape[1:])


@contextmanager
def _open_member(path: Path, member: str) -> Iterator[tuple[Header, IO[bytes]]]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as file:
            header = read_header(file)
            size = archive.getinfo(f"{member}.npy").file_size
            claimed = file.tell() + math.prod(header.shape) * header.dtype.itemsize
            if header.dtype.hasobject:
                raise ValueError(f"{member} holds Python objects")
            if header.dtype.kind not in _KINDS:
                raise ValueError(f"{member} with values of type {header.dtype}")
            if claimed != size:
                what = f"{member} of shape {list(header.shape)}"
                raise ValueError(f"{what}, which takes {claimed:,} bytes, in {size:,}")
            yield header, file
    except KeyError:
        raise _damaged(path, f"an array {member}", "none") from None
    except (
        OSError,
        EOFError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise _damaged(path, f"an .npz file with {member}", error) from None


def _damaged(path: Path, expected: str, got: object) -> UsageError:
    reason = str(got).splitlines()[0] if str(got) else type(got).__name__
    return UsageError(f"{path}: expected {expected}, got {reason}; fetch the file again")
