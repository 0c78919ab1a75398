"""DiskStore: features that stay on disk, with the rows that are asked for most often in memory.

Of a table that is larger than memory, a memory map waits for one page after the other and competes
with everything else for the page cache. Here memory is a cache of fixed size, and what is not in it
is read by `disk_reads`. Results are those of `TableStore` to the bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.disk_reads import READ_THREADS, RowReader
from gnn_core.data.feature_store import FeatureStore, IntArray
from gnn_core.measure.feature_reads import FeatureReads

_NODE_BYTES = 5  # of a cache: uint8 count and int32 slot of each node
_SLOT_BYTES = 8  # and of each slot: int64 node
_TRIES = 4  # rows that a new one is compared with before it is not kept


class DiskStore(FeatureStore):
    """The rows of a dense table in a file, read when they are asked for.

    Args:
        table: `[N, F]`, memory-mapped; only its file, dtype and shape are used.
        cache_bytes: what the cache may take, its index included; too little for that is no cache.
        threads: reads under way at a time.
        direct: try O_DIRECT, see `RowReader`.

    Raises:
        UsageError: the file is not there any more, or is not as long as it was.
    """

    def __init__(
        self,
        table: np.memmap,
        cache_bytes: int = 0,
        threads: int = READ_THREADS,
        direct: bool = True,
    ):
        num_rows, width = table.shape
        super().__init__(num_rows, width, table.dtype, width * table.itemsize)
        path = Path(str(table.filename))
        self.reader = RowReader(path, table.offset, num_rows, self.row_bytes, threads, direct)
        room = cache_bytes - _NODE_BYTES * num_rows
        self.num_slots = min(num_rows, 2**31 - 1, max(0, room // (self.row_bytes + _SLOT_BYTES)))
        has_cache = self.num_slots > 0
        self.cache_bytes = 0
        if has_cache:
            self.cache_bytes = self.bytes_of_cache(num_rows, self.row_bytes, self.num_slots)
        self._slot_of = np.full(num_rows * has_cache, -1, np.int32)
        self._asked = np.zeros(num_rows * has_cache, np.uint8)  # how often, 255 at most
        self._node_in = np.empty(self.num_slots, np.int64)
        self._cached = np.empty((self.num_slots, self.row_bytes), np.uint8)
        self._state = np.zeros(2, np.int64)  # slots in use; the one that is next to be given up
        self._cache_lock = threading.Lock()
        self._rows = 0  # asked for, since it was opened
        self._ahead = ThreadPoolExecutor(1, "ringsage-features")

    @staticmethod
    def bytes_of_cache(num_rows: int, row_bytes: int, num_slots: int) -> int:
        """What a cache of `num_slots` of the `num_rows` rows takes, its index included."""
        return _NODE_BYTES * num_rows + num_slots * (row_bytes + _SLOT_BYTES)

    def gather_ahead(self, ids: IntArray, out: npt.NDArray) -> Callable[[], None]:
        """Begin to copy rows into `out`, in another thread: see `FeatureStore`."""
        done = self._ahead.submit(self.gather, ids, out)
        return done.result

    def reads(self) -> FeatureReads:
        """What has been read since the store was opened."""
        return FeatureReads(
            cache_bytes=self.cache_bytes,
            rows=self._rows,
            hits=self.hits,
            reads=self.reader.reads,
            bytes_read=self.reader.bytes_read,
            seconds_waited=self.seconds_waited,
            direct=self.reader.is_direct,
        )

    def _gather(self, ids: IntArray, out: npt.NDArray) -> int:
        rows = out.reshape(-1).view(np.uint8).reshape(len(ids), self.row_bytes)
        missing = np.arange(len(ids))
        if self.num_slots:
            with self._cache_lock:
                num_missing = _take_cached(
                    ids, self._slot_of, self._asked, self._cached, rows, missing
                )
            missing = missing[:num_missing]
        positions = missing[np.argsort(ids[missing], kind="stable")]
        nodes = ids[positions]
        self.reader.read(nodes, positions, rows)
        with self._cache_lock:
            self._rows += len(ids)
            if self.num_slots:
                _keep(
                    *(nodes, positions, rows),
                    *(self._slot_of, self._asked, self._node_in, self._cached, self._state),
                )
        return len(ids) - len(missing)


@njit(cache=True, nogil=True)
def _take_cached(ids, slot_of, asked, cached, rows, missing):  # type: ignore[no-untyped-def]
    """Copy what is in the cache into `rows`; the positions of the others begin `missing`."""
    num_missing = 0
    for i in range(len(ids)):
        node = ids[i]
        if asked[node] < 255:
            asked[node] += np.uint8(1)
        slot = slot_of[node]
        if slot < 0:
            missing[num_missing] = i
            num_missing += 1
            continue
        for byte in range(cached.shape[1]):
            rows[i, byte] = cached[slot, byte]
    return num_missing


@njit(cache=True, nogil=True)
def _keep(nodes, positions, rows, slot_of, asked, node_in, cached, state):  # type: ignore[no-untyped-def]
    """Put rows that were read into free slots, or in place of nodes that are asked for less."""
    for i in range(len(nodes)):
        node = nodes[i]
        if slot_of[node] >= 0:  # the same node as before it, or read by another thread too
            continue
        slot = np.int64(-1)
        if state[0] < len(node_in):
            slot = state[0]
            state[0] += 1
        else:
            for _ in range(_TRIES):
                candidate = state[1]
                state[1] = (candidate + 1) % len(node_in)
                if asked[node_in[candidate]] < asked[node]:
                    slot = candidate
                    slot_of[node_in[slot]] = -1
                    break
        if slot < 0:
            continue
        slot_of[node] = slot
        node_in[slot] = node
        for byte in range(cached.shape[1]):
            cached[slot, byte] = rows[positions[i], byte]
