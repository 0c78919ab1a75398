"""Many reads of a file in one system call: the kernel's own asynchronous reads (`io_submit`).

A thread that waits for each of its reads costs two switches of context and a wake-up a read, which
is most of what a read costs. Here one thread hands over many reads at once and takes back those
that are done. `disk_reads` uses it for files opened with O_DIRECT, for which alone the kernel reads
asynchronously, and falls back to threads where the calls are refused.
"""

from __future__ import annotations

import mmap
import platform
import sys
import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from gnn_core.compiled import njit
from gnn_core.data.row_runs import copy_run, next_run

IntArray = npt.NDArray[np.int64]
# io_setup, io_destroy, io_submit, io_getevents
_CALLS = {"x86_64": (206, 207, 209, 208), "aarch64": (0, 1, 2, 4)}
_CONTROL_WORDS, _EVENT_WORDS = 8, 4  # of 64 bits, of struct iocb and struct io_event
_QUARTER = 4  # of the reads under way are waited for at a time

_syscall: Any = types.ExternalFunction("syscall", types.int64(*[types.int64] * 6))


class QueuedReads:
    """A queue of reads under way. Threads may share one: they take turns.

    Args:
        depth: reads under way at a time.
        room: bytes of one read, at most; a multiple of 4096.
    """

    def __init__(self, depth: int, room: int):
        self._calls = np.array(_CALLS[platform.machine()], np.int64)
        self._memory = mmap.mmap(-1, depth * room)  # begins at a page, as O_DIRECT asks for
        self._buffers = np.frombuffer(self._memory, np.uint8).reshape(depth, room)
        self._controls = np.zeros((depth, _CONTROL_WORDS), np.int64)
        self._pointers = np.zeros(depth, np.int64)
        self._events = np.zeros((depth, _EVENT_WORDS), np.int64)
        self._runs = np.zeros((depth, 4), np.int64)
        self._one_at_a_time = threading.Lock()
        self._context = _set_up(self._calls, depth)
        if self._context:
            weakref.finalize(self, _end, self._calls, self._context)

    @classmethod
    def of(cls, depth: int, room: int) -> QueuedReads | None:
        """A queue, or None where the system has none to give."""
        if sys.platform != "linux" or platform.machine() not in _CALLS:
            return None
        queue = cls(depth, room)
        return queue if queue._context else None

    def read_rows(
        self,
        file: int,
        ids: IntArray,
        positions: IntArray,
        layout: tuple[int, int, int, int],
        out: npt.NDArray[np.uint8],
        counts: IntArray,
    ) -> bool:
        """Copy rows of a file into `out`, see `RowReader.read`; whether all of them were read.

        Args:
            file: opened with O_DIRECT.
            ids: int64 `[k]`, ascending.
            positions: int64 `[k]`.
            layout: bytes before row 0, of a row, of a block, and between two rows of one read.
            out: uint8 `[any, row_bytes]`.
            counts: int64 `[2]`, raised by the number of reads and of bytes.
        """
        with self._one_at_a_time:
            return bool(
                _read_rows(
                    (self._calls[2], self._calls[3], self._context, file),
                    ids,
                    positions,
                    layout,
                    (self._buffers, self._controls, self._pointers, self._events),
                    self._runs,
                    out,
                    counts,
                )
            )


def _set_up(calls: IntArray, depth: int) -> int:
    """A context of the kernel's; 0 where it is refused."""
    context = np.zeros(1, np.int64)
    failed = _call(calls[0], depth, context.ctypes.data, 0, 0, 0) < 0
    return 0 if failed else int(context[0])


def _end(calls: IntArray, context: int) -> None:
    _call(calls[1], context, 0, 0, 0, 0)


@njit(cache=True, nogil=True)
def _call(number, a, b, c, d, e):  # type: ignore[no-untyped-def]
    return _syscall(number, a, b, c, d, e)


@njit(cache=True, nogil=True)
def _read_rows(  # type: ignore[no-untyped-def]
    system, ids, positions, layout, memory, runs, out, counts
):
    """`QueuedReads.read_rows`. After a failure no read is begun, and those under way end."""
    submit, get_events, context, file = system
    block = layout[2]
    buffers, controls, pointers, events = memory
    buffers_address, controls_address = buffers.ctypes.data, controls.ctypes.data
    pointers_address, events_address = pointers.ctypes.data, events.ctypes.data
    depth, room = buffers.shape
    free = np.arange(depth)
    num_free, num_ready, begin, failed = depth, 0, 0, False
    while True:
        while num_free and begin < len(ids) and not failed:
            last, start, stop = next_run(ids, begin, layout, room)
            num_free -= 1
            one = free[num_free]
            runs[one, 0], runs[one, 1], runs[one, 2], runs[one, 3] = begin, last, start, stop
            controls[one, 0] = one
            controls[one, 2] = file << 32
            controls[one, 3] = buffers_address + one * room
            controls[one, 4] = (stop - start + block - 1) // block * block
            controls[one, 5] = start
            pointers[num_ready] = controls_address + one * _CONTROL_WORDS * 8
            num_ready += 1
            begin = last
        if num_ready:
            taken = _syscall(submit, context, num_ready, pointers_address, 0, 0)
            if taken <= 0 and num_ready + num_free == depth:  # and none is under way
                return False
            taken = max(taken, 0)
            for i in range(num_ready - taken):
                pointers[i] = pointers[i + taken]
            num_ready -= taken
        under_way = depth - num_free - num_ready
        if not under_way:
            if failed or begin == len(ids):
                return not failed
            continue
        least = max(1, under_way // _QUARTER)
        done = _syscall(get_events, context, least, depth, events_address, 0)
        for i in range(done):
            one = events[i, 0]
            start, stop, got = runs[one, 2], runs[one, 3], events[i, 2]
            if got < stop - start:
                failed = True
            else:
                counts[0] += 1
                counts[1] += got
                shift = layout[0] - start
                copy_run(ids, positions, runs[one, 0], runs[one, 1], shift, buffers[one], out)
            free[num_free] = one
            num_free += 1
