"""Rows of an array written in another order, to several files, in bounded memory.

The target is one sequence of rows that is cut into files, and further into buckets that fit the
memory. A first pass reads the source from its first row to its last and appends each row to its
bucket, at the bucket's own place in its file. A second pass reads a bucket, puts its rows in order
and writes it back. So all reads and writes are long ones, and no other disk space is used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.partition.stream import Piece
from gnn_core.data.progress import Progress, silent

DEFAULT_BUDGET_BYTES = 256 << 20
"""Of a bucket; twice that is held."""
_ROW_BYTES = 32  # that bookkeeping takes for a row of a bucket

Lengths = Callable[[int, int], npt.NDArray[np.int64]]
"""(first, last) -> how many values each of the rows first .. last - 1 of the target has."""


class Target(NamedTuple):
    """A .npy file for the rows first .. last - 1 of the target."""

    path: Path
    first: int
    last: int
    shape: tuple[int, ...]  # of its array


class _Bucket(NamedTuple):
    """Rows first .. last - 1 of the target, which lie together in a file."""

    path: Path
    first: int
    last: int
    offset: int  # of its first byte in the file
    num_bytes: int


def scatter(
    pieces: Iterable[Piece],
    place: npt.NDArray[np.integer],
    lengths: Lengths,
    dtype: np.dtype,
    targets: Sequence[Target],
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    progress: Progress = silent,
) -> dict[Path, str]:
    """Write row i of `pieces` as row place[i] of the target; the SHA-256 of each file.

    Args:
        pieces: all rows in order, their values of that dtype.
        place: `[N]`, a permutation.
        lengths: of the rows of the target.
        dtype: of the values.
        targets: files that together hold all rows, in order.
        budget_bytes: of a bucket, unless a single row takes more.
        progress: is told of rows.
    """
    headers = [_make_file(target.path, dtype, target.shape) for target in targets]
    buckets: list[_Bucket] = []
    for target, header in zip(targets, headers, strict=True):
        buckets += _cut(target, header, lengths, dtype.itemsize, budget_bytes)
    _collect(pieces, place, buckets, progress)
    digests = {}
    for target, header in zip(targets, headers, strict=True):
        with target.path.open("rb") as file:
            digests[target.path] = hashlib.sha256(file.read(header))
    for bucket in buckets:
        progress("ordering rows", bucket.first, len(place))
        rows = _arrange(bucket, place, lengths, dtype)
        digests[bucket.path].update(rows.view(np.uint8).data)
    return {path: digest.hexdigest() for path, digest in digests.items()}


def _make_file(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Write the header of a .npy file and take the disk space of its values; bytes of the header.

    So it is here that a full disk is noticed.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        if size := int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
            os.posix_fallocate(file.fileno(), file.tell(), size)
        return file.tell()


def _cut(
    target: Target, offset: int, lengths: Lengths, itemsize: int, budget: int
) -> list[_Bucket]:
    buckets = []
    low = target.first
    while low < target.last:
        ends = np.cumsum(lengths(low, min(low + max(1, budget // _ROW_BYTES), target.last)))
        count = max(1, int(np.searchsorted(ends, max(1, budget // itemsize), "right")))
        size = int(ends[count - 1]) * itemsize
        buckets.append(_Bucket(target.path, low, low + count, offset, size))
        low, offset = low + count, offset + size
    return buckets


def _collect(
    pieces: Iterable[Piece],
    place: npt.NDArray[np.integer],
    buckets: list[_Bucket],
    progress: Progress,
) -> None:
    """The first pass: each row to its bucket, where rows then lie in the order of the source."""
    firsts = np.array([bucket.first for bucket in buckets], np.int64)
    cursors = [bucket.offset for bucket in buckets]
    for piece in pieces:
        progress("reading rows", piece.first, len(place))
        places = place[piece.first : piece.first + len(piece.starts) - 1]
        numbers = np.searchsorted(firsts, places, "right") - 1
        rows = _gathered(piece.starts, piece.values, np.argsort(numbers, kind="stable"))
        sizes = np.bincount(numbers, np.diff(piece.starts), len(buckets)).astype(np.int64)
        ends = np.cumsum(sizes)
        for at in np.flatnonzero(sizes):
            values = rows[ends[at] - sizes[at] : ends[at]]
            _write_at(buckets[at].path, cursors[at], values)
            cursors[at] += values.nbytes


def _arrange(
    bucket: _Bucket, place: npt.NDArray[np.integer], lengths: Lengths, dtype: np.dtype
) -> npt.NDArray:
    """The second pass: put the rows of a bucket in their order, in the file; its values."""
    with bucket.path.open("rb") as file:
        raw = np.fromfile(file, dtype, bucket.num_bytes // dtype.itemsize, offset=bucket.offset)
    places = _places_within(place, bucket.first, bucket.last)
    starts = np.zeros(len(places) + 1, np.int64)
    np.cumsum(lengths(bucket.first, bucket.last)[places], out=starts[1:])
    order = np.empty(len(places), np.int64)
    order[places] = np.arange(len(places))
    rows: npt.NDArray = _gathered(starts, raw, order)
    _write_at(bucket.path, bucket.offset, rows)
    return rows


def _write_at(path: Path, offset: int, values: npt.NDArray) -> None:
    # Opened each time: there may be more parts than files that a process may have open.
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        data = memoryview(values.view(np.uint8).data)
        while len(data):
            data = data[file.write(data) :]


@njit(cache=True, nogil=True)
def _places_within(place, first, last):  # type: ignore[no-untyped-def]
    """The places first .. last - 1, less `first`, in order of their nodes: int64 [last - first]."""
    found = np.empty(last - first, np.int64)
    count = 0
    for node in range(len(place)):
        if first <= place[node] < last:
            found[count] = place[node] - first
            count += 1
    return found


def _gathered(
    starts: npt.NDArray[np.int64], values: npt.NDArray, order: npt.NDArray[np.int64]
) -> npt.NDArray:
    """The rows of `values`, which begin at `starts`, in another order."""
    bits = values.view(f"u{values.itemsize}")  # Numba has no float16
    rows: npt.NDArray = _gather(starts, bits, order).view(values.dtype)
    return rows


@njit(cache=True, nogil=True)
def _gather(starts, values, order):  # type: ignore[no-untyped-def]
    rows = np.empty(len(values), values.dtype)
    fill = 0
    for row in order:
        for at in range(starts[row], starts[row + 1]):
            rows[fill] = values[at]
            fill += 1
    return rows
