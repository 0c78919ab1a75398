"""Rows of a file read past the page cache: sorted, merged reads, many at a time, with O_DIRECT.

A memory map reads a page at a time and waits for each; here the disk has a full queue, and the
memory it takes is that of the buffers. One thread queues all reads where the system has
asynchronous ones (`queued_reads`), else each of many threads has a read of its own under way.
`disk_store` asks for rows.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import types

from gnn_core.compiled import njit
from gnn_core.data.queued_reads import QueuedReads
from gnn_core.data.row_runs import copy_run, next_run
from gnn_core.usage import UsageError

IntArray = npt.NDArray[np.int64]

READ_THREADS = 32  # where reads are not queued; more gain little
QUEUE_DEPTH = 128  # reads
MOST_RUN_BYTES = 64 << 10  # one read at most, unless a row is longer
_BLOCKS = (512, 4096)  # to one of which O_DIRECT aligns offsets and sizes
_MOST_GAP_BYTES = 4 << 10  # reading so much in between takes no longer than another read
_LEAST_ROWS = 16  # handed to a thread at a time

_pread = types.ExternalFunction(
    "pread", types.int64(types.int32, types.uintp, types.uint64, types.int64)
)


class RowReader:
    """Reads rows of equal length out of a file. Any thread may call `read`.

    Args:
        path: the file.
        offset: where row 0 begins, in bytes.
        num_rows: rows in the file.
        row_bytes: bytes of a row.
        threads: reads under way at a time, by so many threads; None: queued where that is possible.
        direct: try O_DIRECT; where it is refused, or not wanted, the page cache is used and emptied
            after each call.

    Raises:
        UsageError: the file cannot be opened, or is shorter than its rows.
    """

    def __init__(
        self,
        path: Path,
        offset: int,
        num_rows: int,
        row_bytes: int,
        threads: int | None = None,
        direct: bool = True,
    ):
        self._path, self._offset, self._row_bytes = path, offset, row_bytes
        self._room = max(MOST_RUN_BYTES, (row_bytes // _BLOCKS[-1] + 3) * _BLOCKS[-1])
        self._buffers = threading.local()
        self._lock = threading.Lock()
        self.reads, self.bytes_read = 0, 0  # since it was opened
        try:
            self._plain = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._plain)
            size = os.fstat(self._plain).st_size
        except OSError as error:
            raise UsageError(f"{path}: expected a file of features, got {error}") from None
        if size < offset + num_rows * row_bytes:
            raise self._error(f"{size:,} bytes for {num_rows:,} rows of {row_bytes:,}")
        found = _opened_direct(path) if direct else None
        self.is_direct = found is not None
        self._queue: QueuedReads | None = None
        if found is None:
            self._file, block = self._plain, _BLOCKS[-1]
            self._advise("POSIX_FADV_RANDOM")
        else:
            self._file, block = found
            weakref.finalize(self, os.close, self._file)
            if threads is None:
                self._queue = QueuedReads.of(QUEUE_DEPTH, self._room)
        self._layout = (offset, row_bytes, block, _MOST_GAP_BYTES)  # see `next_run`
        self._threads = threads or READ_THREADS
        self._pool = ThreadPoolExecutor(self._threads, "ringsage-read")

    def read(self, ids: IntArray, positions: IntArray, out: npt.NDArray[np.uint8]) -> None:
        """Copy rows of the file into `out`.

        Args:
            ids: int64 `[k]`, ascending, repeated or not; rows that exist.
            positions: int64 `[k]`, the row of `out` that each goes to.
            out: uint8 `[any, row_bytes]`.

        Raises:
            UsageError: the disk or the file does not give what it should.
        """
        if self._queue is not None:
            counts = np.zeros(2, np.int64)
            is_done = self._queue.read_rows(self._file, ids, positions, self._layout, out, counts)
            self._count(counts)
            if is_done:
                return
        most_parts = 1 if self._threads == 1 else 2 * self._threads
        num_parts = max(1, min(most_parts, len(ids) // _LEAST_ROWS))
        bounds = np.linspace(0, len(ids), num_parts + 1).astype(np.int64).tolist()
        jobs = [
            self._pool.submit(self._read_part, ids, positions, begin, end, out)
            for begin, end in zip(bounds[:-1], bounds[1:], strict=True)
        ]
        for job in jobs:
            job.exception()  # no thread may write to `out` after this call
        for job in jobs:
            job.result()
        if not self.is_direct:
            self._advise("POSIX_FADV_DONTNEED")

    def _read_part(
        self, ids: IntArray, positions: IntArray, begin: int, end: int, out: npt.NDArray[np.uint8]
    ) -> None:
        """Read rows `begin` to `end` of `ids`, in this thread."""
        if not hasattr(self._buffers, "array"):
            memory = mmap.mmap(-1, self._room)  # begins at a page, as O_DIRECT asks for
            self._buffers.array = np.frombuffer(memory, np.uint8)
        buffer = self._buffers.array
        counts = np.zeros(2, np.int64)
        while begin < end:
            begin = _read_runs(
                self._file,
                *(ids, positions, begin, end, self._layout),
                *(buffer, buffer.ctypes.data),
                out,
                counts,
            )
            if begin < end:  # a read failed: try again, without O_DIRECT, to learn why
                out[positions[begin]] = self._read_row(int(ids[begin]))
                begin += 1
        self._count(counts)

    def _count(self, counts: IntArray) -> None:
        with self._lock:
            self.reads += int(counts[0])
            self.bytes_read += int(counts[1])

    def _read_row(self, row: int) -> npt.NDArray[np.uint8]:
        start = self._offset + row * self._row_bytes
        try:
            found = os.pread(self._plain, self._row_bytes, start)
        except OSError as error:
            raise self._error(f"{error} at byte {start:,}") from None
        if len(found) < self._row_bytes:
            size = os.fstat(self._plain).st_size
            raise self._error(f"{size:,} bytes: it was cut while the run read it")
        return np.frombuffer(found, np.uint8)

    def _advise(self, name: str) -> None:
        """Tell the page cache what to do with the file, where the system has a way to."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._plain, 0, 0, getattr(os, name))

    def _error(self, got: str) -> UsageError:
        return UsageError(
            f"{self._path}: expected all rows of the features, got {got}; check the disk, and "
            "prepare the graph again"
        )


def _opened_direct(path: Path) -> tuple[int, int] | None:
    """The file opened with O_DIRECT, and its block in bytes; None where that is refused."""
    flag = getattr(os, "O_DIRECT", None)  # Linux alone has it
    if flag is None:
        return None
    try:
        file = os.open(path, os.O_RDONLY | flag)
    except OSError:  # tmpfs, some network file systems
        return None
    memory = mmap.mmap(-1, _BLOCKS[-1])
    for block in _BLOCKS:
        with contextlib.suppress(OSError):  # another alignment is asked for
            os.preadv(file, [memoryview(memory)[:block]], block)
            return file, block
    os.close(file)
    return None


@njit(cache=True, nogil=True)
def _read_runs(file, ids, positions, begin, end, layout, buffer, address, out, counts):  # type: ignore[no-untyped-def]
    """Read rows `begin` .. `end` - 1 of the ascending `ids` into `out`; the first that failed.

    `layout` is that of `next_run`, `address` that of `buffer`. `counts` is raised by the number of
    reads and of bytes. Returns `end` if none failed.
    """
    block = layout[2]
    while begin < end:
        last, start, stop = next_run(ids[:end], begin, layout, len(buffer))
        size = (stop - start + block - 1) // block * block
        got = _pread(file, address, size, start)
        if got < stop - start:
            return begin
        counts[0] += 1
        counts[1] += got
        copy_run(ids, positions, begin, last, layout[0] - start, buffer, out)
        begin = last
    return end
