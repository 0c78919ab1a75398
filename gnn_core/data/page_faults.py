"""Pages of a large memory map, brought into memory by many threads at once.

A thread that reads a page which is not in memory waits for the disk, one page after the other. With
a thread for each of many reads the disk has a full queue. `sampler` asks for neighbours so.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit

LARGE_BYTES = 1 << 30  # a smaller map is in memory after a few steps, and is let be
_THREADS = 32
_LEAST_POSITIONS = 64  # for a thread


class PageFaults:
    """Reads ahead in one array.

    Args:
        array: one-dimensional, memory-mapped.
    """

    def __init__(self, array: npt.NDArray[np.integer]):
        self._array = array
        self._pool = ThreadPoolExecutor(_THREADS, "ringsage-pages")

    @classmethod
    def of(cls, array: npt.NDArray[np.integer]) -> PageFaults | None:
        """For a large memory-mapped array; None for any other, which needs none."""
        is_large = isinstance(array, np.memmap) and array.nbytes >= LARGE_BYTES
        return cls(array) if is_large else None

    def take(self, positions: npt.NDArray[np.int64]) -> None:
        """Return when the pages of these positions, all of which exist, have been in memory."""
        parts = min(_THREADS, 1 + len(positions) // _LEAST_POSITIONS)
        slices = np.array_split(positions, parts)
        list(self._pool.map(lambda part: _touch(self._array, part), slices))


@njit(cache=True, nogil=True)
def _touch(array, positions):  # type: ignore[no-untyped-def]
    """Read those elements; what is returned keeps the compiler from leaving that out."""
    found = np.int64(0)
    for position in positions:
        found ^= array[position]
    return found
