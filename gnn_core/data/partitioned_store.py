"""PartitionedStore: rows of the parts that this rank holds, and of all others by exchange.

The batches of the next steps are known before they are needed, so their rows are fetched a window
of steps at a time: each row once a window, and none that the cache has. Every rank has as many
steps as any other, hence as many windows; evaluation agrees on the number of its rounds in the
rounds themselves.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.ahead import Wait, ahead, wait_forever
from gnn_core.data.batch import Batch
from gnn_core.data.exchange import Bytes, Counters, PartExchange, Transport
from gnn_core.data.feature_store import FeatureStore, Lent
from gnn_core.data.features import FEATURE_DTYPES
from gnn_core.data.part_topology import PartTopology
from gnn_core.data.partition.folder import Partition, spans_of
from gnn_core.data.row_cache import RowCache, changes, copy_rows, distinct, find, locate

IntArray = npt.NDArray[np.int64]
_TOO_EARLY = "rows of other parts are asked for before they were fetched"


@dataclass(frozen=True)
class _Window:
    """Batches of consecutive steps, and the remote rows that they read."""

    batches: list[Batch]
    places: IntArray  # of remote rows, sorted and distinct
    next_use: IntArray  # beside them, the first batch that reads the row
    num_read: int  # of the rows, each once a batch
    rows: Bytes | None = None  # [len(places), row_bytes], once they have come


class PartitionedStore(FeatureStore):
    """See `FeatureStore`. `gather` gives rows of the batches that `arriving` has yielded last.

    Args:
        partition: of the graph.
        held: the parts that this rank reads itself, at least those that it owns.
        transport: to the other ranks, for the rows of all other parts; None where each rank holds
            all parts.
        window: batches whose rows are fetched together.
        cache_bytes: for rows of other parts that are kept from window to window.
        wait: how the main thread waits for the one that fetches rows (see `ahead`); None: for ever.
        topology: the adjacency rows, where they lie in parts, too.
    """

    def __init__(
        self,
        partition: Partition,
        held: Iterable[int],
        transport: Transport | None = None,
        *,
        window: int = 8,
        cache_bytes: int = 0,
        wait: Wait | None = None,
        topology: PartTopology | None = None,
    ):
        parts = {part: partition.part_features(part) for part in held}
        dtype, width = feature_dtype(partition), partition.num_features
        super().__init__(len(partition.place), width, dtype, width * dtype.itemsize)
        self.partition = partition
        self._place, self._offsets = partition.place, partition.offsets
        self._is_held = np.isin(np.arange(partition.num_parts), list(parts))
        self._parts = {part: _as_bytes(rows) for part, rows in parts.items()}
        self.exchange: PartExchange | None = None
        if transport is not None:
            bounds = rank_bounds(partition, transport.world_size)
            self.exchange = PartExchange(
                transport, bounds, self._place.dtype, self.row_bytes, self._copy_held
            )
        self.exchanges = self.exchange is not None
        self._window = window
        self._wait_in_main = wait or wait_forever
        self.topology = topology
        self.counters = Counters() if topology is None else topology.counters
        self._sizes = np.diff(self._offsets)
        remote = int(self._sizes[~self._is_held].sum())
        most_rows = min(cache_bytes // self.row_bytes, remote) if self.exchange else 0
        self._cache = RowCache(most_rows, self.row_bytes) if most_rows else None
        self._windows: tuple[_Window, ...] = ()  # whose rows `gather` finds, the newest last
        self._stands_in = False

    def wait(self, done: Callable[[float], bool]) -> None:
        """Wait for a thread that may wait for other ranks."""
        in_main = threading.current_thread() is threading.main_thread()
        try:
            (self._wait_in_main if in_main else wait_forever)(done)
        except BaseException:
            self._give_up()
            raise

    # --- rows of batches and chunks, before they are asked for ------------------------------------

    def arriving(
        self, batches: Generator[Batch], behind: int = 0, counts: bool = False
    ) -> Generator[Batch]:
        """See `FeatureStore`."""
        if self.exchange is None:
            return batches
        return self._arriving(batches, behind, self.counters if counts else Counters())

    def _arriving(
        self, batches: Generator[Batch], behind: int, counters: Counters
    ) -> Generator[Batch]:
        windows = ahead(self._fetched_windows(batches, counters), 1, self.wait)
        earlier = -(-behind // self._window)  # windows
        with contextlib.closing(windows):
            for window in windows:
                self._windows = (*self._windows[len(self._windows) - earlier :], window)
                yield from window.batches

    def _fetched_windows(self, batches: Generator[Batch], counters: Counters) -> Generator[_Window]:
        assert self.exchange is not None
        drawn = self._drawn_windows(batches)
        window, following = next(drawn, None), None  # the first step waits for one window alone
        while window is not None:
            fetched = self._fetch(window, following, counters)
            try:
                yield fetched
            except GeneratorExit:
                given_up = self.exchange.transport.given_up
                if not given_up and (following or next(drawn, None)) is not None:
                    # The others may wait in the round of that window, or are about to leave, too.
                    if self.topology is not None:  # where drawing the window after it is collective
                        next(drawn, None)
                    self.exchange.fetch(np.empty(0, np.int64), Counters(), stops=True)
                raise
            window = following or next(drawn, None)
            following = next(drawn, None)

    def _drawn_windows(self, batches: Generator[Batch]) -> Iterator[_Window]:
        while drawn := list(islice(batches, self._window)):
            remote = [self.remote_places(batch.input_nodes) for batch in drawn]
            # Sorted by place and then by batch, in one sort of numbers, which is the fastest.
            reads = [places * len(drawn) + at for at, places in enumerate(remote)]
            keys = np.sort(np.concatenate(reads))
            places = keys // len(drawn)
            first = changes(places)
            yield _Window(drawn, places[first], keys[first] % len(drawn), len(keys))

    def _fetch(self, window: _Window, following: _Window | None, counters: Counters) -> _Window:
        """The window with its rows, and the best of them in the cache."""
        assert self.exchange is not None
        wanted, cache = window.places, self._cache
        if cache is not None and not len(cache.places):
            wanted = distinct(np.concatenate([wanted, self._hot_places(cache.most_rows)]))
        cached, missing = np.empty(0, np.int64), np.arange(len(wanted))
        if cache is not None:
            cached, missing = cache.split(wanted)
        counters.cached_rows += len(cached)
        counters.steps += len(window.batches)
        counters.input_rows += sum(len(batch.input_nodes) for batch in window.batches)
        counters.remote_rows += window.num_read
        counters.needed_rows += len(window.places)
        answer = self.exchange.fetch(wanted[missing], counters)
        if answer.stops:  # by agreement, and this rank is about to leave, too
            raise RuntimeError("the other ranks have left this epoch, and this one goes on")
        rows = answer.rows
        if cache is not None:
            rows = np.empty((len(wanted), self.row_bytes), np.uint8)
            rows[missing] = answer.rows
            cache.read(wanted[cached], cached, rows)
            places = distinct(np.concatenate([cache.places, wanted]))
            cache.keep_best(places, answer.rows, self._keys(places, following))
        return replace(window, places=wanted, rows=rows)

    def _keys(self, places: IntArray, following: _Window | None) -> npt.NDArray[np.float64]:
        """When each row is read next; where that is unknown, its order within its part.

        Rows that are read most often are stored first.
        """
        parts = self._part_of(places)
        key: npt.NDArray[np.float64] = (places - self._offsets[parts]) / self._sizes[parts]
        key += self._window  # after all batches of the next window
        if following is not None:
            at, known = find(following.places, places)
            key[known] = following.next_use[at[known]]
        return key

    def _hot_places(self, num_rows: int) -> IntArray:
        """Places of the rows of other parts that are stored first, about `num_rows` of them."""
        sizes = self._sizes * ~self._is_held
        counts = sizes * num_rows // max(1, int(sizes.sum()))
        starts = zip(self._offsets, counts, strict=False)
        return np.concatenate([np.arange(start, start + count) for start, count in starts])

    def arriving_chunks(
        self, chunks: Iterable[IntArray], nodes_of: Callable[[IntArray], IntArray]
    ) -> Iterator[IntArray]:
        """See `FeatureStore`."""
        if self.exchange is None:
            yield from chunks
            return
        fetched = ahead(self._fetched_chunks(list(chunks), nodes_of), 1, self.wait)
        with contextlib.closing(fetched):
            for chunk, window in fetched:
                self._windows = (window,)
                if chunk is not None:
                    yield chunk
        self._windows = ()

    def _fetched_chunks(
        self, chunks: list[IntArray], nodes_of: Callable[[IntArray], IntArray]
    ) -> Generator[tuple[IntArray | None, _Window]]:
        """As many as the rank that has most of them has; those beyond one's own are None."""
        assert self.exchange is not None
        has_more, done = True, 0
        while has_more:
            chunk = chunks[done] if done < len(chunks) else None
            places = np.empty(0, np.int64)
            if chunk is not None:
                places = distinct(self.remote_places(nodes_of(chunk)))
            done += 1
            answer = self.exchange.fetch(places, Counters(), has_more=done < len(chunks))
            has_more = answer.has_more
            yield chunk, _Window([], places, places, len(places), answer.rows)

    def in_order(self, ids: IntArray) -> IntArray:
        """The ids in part order: the share of a rank is about what it owns."""
        return ids[np.argsort(self._place[ids])]

    def exchanged(self) -> dict[str, Any]:
        """See `FeatureStore`; the fields of `Counters` and what they are of."""
        transport = self.exchange.transport.name if self.exchange else "none"
        meta = self.partition.meta
        told = {"parts": self.partition.num_parts, "method": meta["method"], "transport": transport}
        told["topology"] = "whole" if self.topology is None else "parts"
        return told | asdict(self.counters)

    def remote_places(self, ids: IntArray) -> IntArray:
        """The places, int64, of those of the nodes whose part this rank does not hold."""
        places = self._place[ids].astype(np.int64)
        return places[~self._is_held[self._part_of(places)]]

    def _part_of(self, places: IntArray) -> IntArray:
        parts: IntArray = spans_of(places, self._offsets)
        return parts

    # --- errors and the warm-up -------------------------------------------------------------------

    @contextlib.contextmanager
    def giving_up_on_errors(self) -> Iterator[None]:
        """See `FeatureStore`."""
        try:
            yield
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        if self.exchange is not None:
            self.exchange.transport.given_up = True

    @contextlib.contextmanager
    def standing_in(self) -> Iterator[None]:
        """See `FeatureStore`."""
        self._set_standing_in(True)
        try:
            yield
        finally:
            self._set_standing_in(False)

    def _set_standing_in(self, stands_in: bool) -> None:
        self._stands_in = stands_in
        if self.topology is not None:
            self.topology.stands_in = stands_in

    # --- rows -------------------------------------------------------------------------------------

    def lend_ahead(self, ids: IntArray) -> Callable[[], Lent] | None:
        """See `FeatureStore`: the rows of the one part that this rank holds, and those fetched."""
        if len(self._parts) != 1 or self._stands_in:
            return None
        start = time.perf_counter()
        self.require_ids(ids)
        ((part, rows),) = self._parts.items()
        bounds = self._offsets[part : part + 2]
        at, nothing = np.empty(len(ids), np.int64), np.empty(0, np.int64)
        for window in reversed(self._windows or (_Window([], nothing, nothing, 0, rows[:0]),)):
            if locate(ids, self._place, bounds, window.places, at):
                break
        else:
            raise RuntimeError(_TOO_EARLY)
        assert window.rows is not None
        lent = Lent(rows.view(self.dtype), at, lambda: None, window.rows.view(self.dtype))
        num_remote = int(np.count_nonzero(at >= len(rows)))
        own_bytes = (len(ids) - num_remote) * self.row_bytes
        self.count_read(time.perf_counter() - start, own_bytes, num_remote)
        return lambda: lent

    def _gather(self, ids: IntArray, out: npt.NDArray) -> int:
        places = self._place[ids].astype(np.int64)
        target = _as_bytes(out)
        remote = np.flatnonzero(~self._is_held[self._copy_held(places, target)])
        if self._stands_in:
            target[remote] = 0
        elif len(remote):
            self._read_window(places[remote], remote, target)
        return len(remote)  # which are counted when they come

    def _read_window(self, places: IntArray, where: IntArray, out: Bytes) -> None:
        for window in reversed(self._windows):
            at, found = find(window.places, places)
            if found.all() and window.rows is not None:
                copy_rows(window.rows, at, where, out)
                return
        raise RuntimeError(_TOO_EARLY)

    def _copy_held(self, places: IntArray, out: Bytes) -> IntArray:
        """Copy rows of the parts that this rank holds to their positions; the part of each place.

        `places` int64 `[n]`, `out` uint8 `[n, row_bytes]`.
        """
        parts = self._part_of(places)
        for part, rows in self._parts.items():
            where = np.flatnonzero(parts == part)
            copy_rows(rows, places[where] - self._offsets[part], where, out)
        return parts


def rank_of_part(part: int, num_parts: int, world_size: int) -> int:
    """The rank that owns a part: a range of parts each, where there are few of them maybe none."""
    return part * world_size // num_parts


def owned_parts(rank: int, num_parts: int, world_size: int) -> range:
    """The parts that a rank owns."""
    first, end = (-(-one * num_parts // world_size) for one in (rank, rank + 1))
    return range(first, end)


def rank_bounds(partition: Partition, world_size: int) -> IntArray:
    """int64 `[world_size + 1]`: rank r owns the places bounds[r] .. bounds[r + 1] - 1."""
    firsts = [-(-rank * partition.num_parts // world_size) for rank in range(world_size + 1)]
    bounds: IntArray = partition.offsets[firsts]
    return bounds


def feature_dtype(partition: Partition) -> np.dtype:
    """Of the rows: float32, float16, or uint16 for bfloat16."""
    return FEATURE_DTYPES[partition.feature_dtype or "float32"]


def _as_bytes(rows: npt.NDArray) -> Bytes:
    return rows.view(np.uint8)
