"""DiskStore: features that stay on disk, with the rows that are read next in memory.

Of a table that is larger than memory, a memory map waits for one page after the other and competes
with everything else for the page cache. Here memory is a cache of fixed size, which knows of the
batches drawn ahead, and what is not in it is read by `disk_reads`. Results are those of
`TableStore` to the bit.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gnn_core.data.batch import Batch
from gnn_core.data.disk_reads import RowReader
from gnn_core.data.feature_store import FeatureStore, IntArray, Lent
from gnn_core.data.planned_cache import PlannedCache
from gnn_core.measure.feature_reads import FeatureReads

_BATCH_SHARE = 8  # of the cache, in bytes: what batches may take that are drawn for its plan
_DRAWN_A_STEP = 3  # batches, until as many as there may be are drawn ahead
_MOST_GIVEN = 8  # batches given out last


class DiskStore(FeatureStore):
    """The rows of a dense table in a file, read when they are asked for.

    Args:
        table: `[N, F]`, memory-mapped; only its file, dtype and shape are used.
        cache_bytes: what the cache may take, its index included; too little for that is no cache.
        threads: reads under way at a time, see `RowReader`.
        direct: try O_DIRECT, see `RowReader`.

    Raises:
        UsageError: the file is not there any more, or is not as long as it was.
    """

    def __init__(
        self,
        table: np.memmap,
        cache_bytes: int = 0,
        threads: int | None = None,
        direct: bool = True,
    ):
        num_rows, width = table.shape
        super().__init__(num_rows, width, table.dtype, width * table.itemsize)
        path = Path(str(table.filename))
        self.reader = RowReader(path, table.offset, num_rows, self.row_bytes, threads, direct)
        slots = PlannedCache.slots_in(cache_bytes, num_rows, self.row_bytes)
        self.cache = PlannedCache(num_rows, slots, self.row_bytes) if slots else None
        self.cache_bytes = PlannedCache.bytes_of(num_rows, self.row_bytes, slots) if slots else 0
        self._cache_lock = threading.Lock()
        self._given: deque[tuple[IntArray, int]] = deque(maxlen=_MOST_GIVEN)  # ids and step
        self._num_planning = 0  # iterators that draw ahead
        self._plan = 0  # how often what was lent and announced has been forgotten
        self._rows = 0  # asked for, since it was opened
        self._ahead = ThreadPoolExecutor(1, "ringsage-features")

    @staticmethod
    def batch_bytes(cache_bytes: int) -> int:
        """What batches take that are drawn ahead to plan a cache of so many bytes."""
        return cache_bytes // _BATCH_SHARE

    def gather_ahead(self, ids: IntArray, out: npt.NDArray) -> Callable[[], None]:
        """Begin to copy rows into `out`, in another thread: see `FeatureStore`."""
        done = self._ahead.submit(self.gather, ids, out)
        return done.result

    def lend_ahead(self, ids: IntArray) -> Callable[[], Lent] | None:
        """See `FeatureStore`: rows in the cache, those that are not there read into it."""
        if self.cache is None:
            return None
        with self._cache_lock:
            step = self._step_of(ids)
        return self._ahead.submit(self._lend, ids, step, self.cache).result

    def _lend(self, ids: IntArray, step: int, cache: PlannedCache) -> Lent:
        start = time.perf_counter()
        self.require_ids(ids)
        with self._cache_lock:
            plan, found = self._plan, cache.lend(ids, step)
        if found is None:  # no room beside what is lent
            rows = np.empty((len(ids), self.width), self.dtype)
            self.gather(ids, rows)
            return Lent(rows, np.arange(len(ids)), lambda: None)
        slots, missing = found
        missing = missing[np.argsort(ids[missing], kind="stable")]
        self.reader.read(ids[missing], slots[missing], cache.rows)
        with self._cache_lock:
            cache.fill(ids[missing], slots[missing])
            self._rows += len(ids)
        read = len(missing) * self.row_bytes
        self.count_read(time.perf_counter() - start, read, len(ids) - len(missing))

        def give_back() -> None:
            with self._cache_lock:
                if plan == self._plan:
                    cache.give_back(slots)

        return Lent(cache.rows.view(self.dtype), slots, give_back)

    def arriving(
        self, batches: Generator[Batch], behind: int = 0, counts: bool = False
    ) -> Generator[Batch]:
        """The same batches, see `FeatureStore`, drawn ahead for the plan of the cache."""
        return batches if self.cache is None else self._planned(batches, self.cache)

    def _planned(self, batches: Generator[Batch], cache: PlannedCache) -> Generator[Batch]:
        drawn: deque[tuple[Batch, int]] = deque()
        num_drawn, num_bytes, most_bytes = 0, 0, self.batch_bytes(self.cache_bytes)
        with self._planning(cache), contextlib.closing(batches):
            for batch in batches:
                with self._cache_lock:
                    drawn.append((batch, cache.announce(batch.input_nodes)))
                    has_room = not cache.is_planned
                num_drawn += 1
                num_bytes += batch.num_bytes
                if has_room and num_bytes < most_bytes and num_drawn % _DRAWN_A_STEP != 1:
                    continue
                num_bytes -= drawn[0][0].num_bytes
                yield self._given_out(*drawn.popleft())
            while drawn:
                yield self._given_out(*drawn.popleft())

    @contextlib.contextmanager
    def _planning(self, cache: PlannedCache) -> Iterator[None]:
        """While batches are drawn; what was announced or lent before is forgotten."""
        self._ahead.submit(self._begin_plan, cache).result()  # after what is being read
        try:
            yield
        finally:
            with self._cache_lock:
                self._num_planning -= 1

    def _begin_plan(self, cache: PlannedCache) -> None:
        with self._cache_lock:
            if not self._num_planning:
                cache.forget_steps()
                self._plan += 1
            self._num_planning += 1

    def _given_out(self, batch: Batch, step: int) -> Batch:
        with self._cache_lock:
            self._given.append((batch.input_nodes, step))
        return batch

    def _step_of(self, ids: IntArray) -> int:
        """The step of a batch that was given out; 0 for any other rows."""
        return next((step for given, step in self._given if given is ids), 0)

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
        if self.cache is not None:
            with self._cache_lock:
                missing = self.cache.take(ids, rows, self._step_of(ids))
        positions = missing[np.argsort(ids[missing], kind="stable")]
        nodes = ids[positions]
        self.reader.read(nodes, positions, rows)
        with self._cache_lock:
            self._rows += len(ids)
            if self.cache is not None:
                self.cache.keep(nodes, positions, rows)
        return len(ids) - len(missing)
