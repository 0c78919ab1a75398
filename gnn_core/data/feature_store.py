"""FeatureStore: where the rows of the input features come from, and what reading them costs.

The feeds (`horovod_gnn.feed`, `tf_mirrored.input`) ask a store for the rows of each batch, and
evaluation asks it for those of each chunk; no model or kernel opens the table by itself.
`TableStore` is the graph's own table, memory-mapped or in memory; `disk_store` reads it from its
file, and `partitioned_store` has rows that lie on several ranks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.ahead import Wait
from gnn_core.data.batch import Batch
from gnn_core.data.features import Features
from gnn_core.data.part_topology import PartTopology
from gnn_core.measure.feature_reads import FeatureReads

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lent:
    """Rows of a batch in memory of the store, which others may not take until they are given back.

    Row i is `rows[at[i]]`, or, if that is beyond them, `more[at[i] - len(rows)]`.
    """

    rows: npt.NDArray  # [any, width], of the store's dtype
    at: IntArray  # int64 [k]
    give_back: Callable[[], None]
    more: npt.NDArray | None = None  # as `rows`


class FeatureStore(ABC):
    """Rows of input features by node id, with counters. Any thread may call any method.

    Args:
        num_rows: N, the number of nodes.
        width: F, the number of features of a node.
        dtype: float32, float16, or uint16 for bfloat16.
        row_bytes: bytes that one row takes where it is stored (the mean, of sparse rows).
    """

    # The whole table [N, F] where it may be read in place; whoever does so reports it with
    # `count_read`. None: rows come from `gather` alone.
    table: Features | None = None
    wait: Wait | None = None  # how a main thread waits for one that reads rows; None: for ever
    exchanges = False  # whether rows come from other ranks, so that reading them is collective
    topology: PartTopology | None = None  # the adjacency rows, where they lie in parts

    def __init__(self, num_rows: int, width: int, dtype: np.dtype, row_bytes: int):
        self.num_rows, self.width, self.dtype = num_rows, width, dtype
        self.row_bytes = row_bytes
        self.bytes_read = 0  # since the store was opened
        self.hits = 0  # rows that a cache of the store had, since it was opened
        self.seconds_waited: float | None = None  # by training steps; None: nobody has counted
        self._seconds = 0.0
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds spent reading rows since the last `lap`, summed over threads."""
        return self._seconds

    def gather(self, ids: IntArray, out: npt.NDArray) -> None:
        """Copy rows into `out`.

        Args:
            ids: int64 `[k]`, node ids in any order, repeated or not.
            out: `[k, width]`, of the store's dtype, C-contiguous.

        Raises:
            IndexError: an id is not in 0 .. num_rows - 1.
        """
        start = time.perf_counter()
        self.require_ids(ids)
        hits = self._gather(ids, out)
        read = (len(ids) - hits) * self.row_bytes
        self.count_read(time.perf_counter() - start, read, hits)

    def require_ids(self, ids: IntArray) -> None:
        """Raise IndexError unless all of them are in 0 .. num_rows - 1."""
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.num_rows:
            raise IndexError(
                f"expected node ids in 0 .. {self.num_rows - 1}, got {ids.min()} .. {ids.max()}"
            )

    def prefetch(self, ids: IntArray) -> None:  # noqa: B027 - a hint, which a store may ignore
        """Announce that the rows `ids` int64 `[k]` will be asked for soon; returns at once."""

    def gather_ahead(self, ids: IntArray, out: npt.NDArray) -> Callable[[], None]:
        """Begin to copy rows into `out`, see `gather`; what is returned waits until they are there.

        It raises what `gather` does. Here all of it is done at once.
        """
        self.gather(ids, out)
        return lambda: None

    def lend_ahead(self, ids: IntArray) -> Callable[[], Lent] | None:
        """Begin to read rows that may be read where they lie, without a copy of them.

        What is returned waits until they are there; it raises what `gather` does. None: this store
        has no such rows, and `gather_ahead` copies them.

        Args:
            ids: int64 `[k]`, distinct node ids.
        """
        return None

    def reads(self) -> FeatureReads | None:
        """What was read from disk since the store was opened; None if it reads none."""
        return None

    def arriving(
        self, batches: Generator[Batch], behind: int = 0, counts: bool = False
    ) -> Generator[Batch]:
        """The batches, each when `gather` can give its rows. Collective if `exchanges`.

        Leaving early, by closing the generator, is collective too: every rank leaves after the same
        batch. Around what may fail on one rank alone put `giving_up_on_errors`.

        Args:
            batches: as many on every rank.
            behind: how many batches after the present one may be drawn before its rows are read.
            counts: whether the store's counters are to count them.
        """
        return batches

    def arriving_chunks(
        self, chunks: Iterable[IntArray], nodes_of: Callable[[IntArray], IntArray]
    ) -> Iterator[IntArray]:
        """The chunks of this rank's evaluation, each when `gather` can give the rows of its nodes.

        Collective if `exchanges`, where each rank may have any number of chunks.

        Args:
            chunks: int64 `[k]` each.
            nodes_of: the ids whose rows are read for a chunk.
        """
        yield from chunks

    def in_order(self, ids: IntArray) -> IntArray:
        """The ids in an order of which consecutive ones lie on one rank; as they are, if all do."""
        return ids

    def giving_up_on_errors(self) -> contextlib.AbstractContextManager[Any]:
        """Around what reads batches: after an error in it this rank waits for no other any more."""
        return contextlib.nullcontext()

    def standing_in(self) -> contextlib.AbstractContextManager[Any]:
        """In here rows of other ranks may be zeros, and neighbours others: to change nothing by."""
        return contextlib.nullcontext()

    def exchanged(self) -> dict[str, Any] | None:
        """What training has asked of other ranks, JSON-able; None where nothing can be."""
        return None

    def count_read(self, seconds: float, bytes_read: int, hits: int = 0) -> None:
        """Add to the counters. `gather` does so itself; a reader of `table` has to call it."""
        with self._lock:
            self._seconds += seconds
            self.bytes_read += bytes_read
            self.hits += hits

    def lap(self) -> float:
        """Return `seconds` and set it to zero."""
        with self._lock:
            seconds, self._seconds = self._seconds, 0.0
        return seconds

    @abstractmethod
    def _gather(self, ids: IntArray, out: npt.NDArray) -> int:
        """Do what `gather` says, for ids that are valid; return how many rows were hits."""


class TableStore(FeatureStore):
    """The rows of a table in memory or memory-mapped, dense or sparse, which may be read in place.

    Args:
        table: `[N, F]`.
    """

    def __init__(self, table: Features):
        num_rows, width = table.shape
        super().__init__(num_rows, width, table.dtype, table.nbytes // max(num_rows, 1))
        self.table: Features = table

    def _gather(self, ids: IntArray, out: npt.NDArray) -> int:
        if isinstance(self.table, np.ndarray):
            np.take(self.table, ids, axis=0, out=out, mode="clip")  # "raise" would copy twice
        else:
            out[:] = self.table[ids]
        return 0
