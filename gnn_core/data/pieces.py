"""Large files in pieces: gzipped CSV and members of .npz archives, never a whole array at once."""

from __future__ import annotations

import gzip
import itertools
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from gnn_core.usage import UsageError


class Header(NamedTuple):
    """What the .npy header of an archive member says."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype


def csv_pieces(path: Path, dtype: np.dtype, piece_values: int) -> Iterator[npt.NDArray]:
    """The rows of a gzipped CSV without a header line, as arrays [k, columns]. UsageError."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            first = next(file, None)
            if first is None:
                return
            step = max(1, piece_values // (first.count(",") + 1))
            lines = itertools.chain([first], file)
            while batch := list(itertools.islice(lines, step)):
                if any(line.strip() for line in batch):
                    yield np.loadtxt(batch, dtype=dtype, delimiter=",", ndmin=2, comments=None)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path, "gzipped rows of numbers", error) from None


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
        width = int(np.prod(shape[1:]))
        step = max(1, piece_values // max(width, 1))
        for start in range(0, shape[0], step):
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
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            header = Header(*read(file))
            if header.dtype.hasobject:
                raise ValueError(f"{member} holds Python objects")
            yield header, file
    except KeyError:
        raise _damaged(path, f"an array {member}", "none") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, f"an .npz file with {member}", error) from None


def _damaged(path: Path, expected: str, got: object) -> UsageError:
    reason = str(got).splitlines()[0] if str(got) else type(got).__name__
    return UsageError(f"{path}: expected {expected}, got {reason}; fetch the file again")
