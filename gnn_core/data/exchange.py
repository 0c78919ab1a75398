"""Rows of features from the ranks that own them: one exchange of counts, ids and rows a round.

All ranks take part in every round, also those that ask for nothing. A round carries, beside the
counts, what a rank wants all others to know: that it stops, or that it needs further rounds. So
the number of rounds is the same on every rank without a collective of its own.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
_STOPS, _HAS_MORE, _ASKS_AGAIN = 1, 2, 4  # what a rank says with its counts
_MOST_BYTES = 1 << 29  # of rows from one rank to another in one round: MPI counts in 31 bits
_LONGEST_PAUSE = 1e-3  # seconds, between two looks whether a collective has ended


class GivenUp(Exception):
    """The exchange was given up, since this rank waits for the others no more."""


class Transport(ABC):
    """Sends rows of bytes from every rank to every rank. One thread at a time may use it.

    Args:
        rank: of this process.
        world_size: number of ranks.
    """

    name: str  # of what carries the rows

    def __init__(self, rank: int, world_size: int):
        self.rank, self.world_size = rank, world_size
        self.given_up = False  # set by any thread: what waits for other ranks raises GivenUp

    @abstractmethod
    def alltoall(self, rows: Bytes, sent: IntArray, received: IntArray) -> Bytes:
        """Send each rank its rows, and return the rows `[sum(received), width]` that they sent.

        A collective: every rank has to call it, if only with no rows.

        Args:
            rows: uint8 `[sum(sent), width]`, those of rank 0 first; C-contiguous.
            sent: int64 `[world_size]`, how many rows each rank gets.
            received: int64 `[world_size]`, how many rows each rank sends.

        Raises:
            GivenUp: another thread has set `given_up`.
            Lost: some rank answers no more.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to free
        """Free what it holds; no rank may use it any more."""

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until `done()`; raises GivenUp."""
        pause = 50e-6
        while not done():
            if self.given_up:
                raise GivenUp
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


@dataclass
class Counters:
    """What the steps of one rank have asked of other ranks' parts."""

    steps: int = 0
    input_rows: int = 0  # that the steps read, each row once a step
    remote_rows: int = 0  # of them of other ranks' parts
    needed_rows: int = 0  # remote rows, each once a window
    cached_rows: int = 0  # of them found in the cache
    rows_received: int = 0
    bytes_sent: int = 0  # rows, ids and counts
    rounds: int = 0  # of three collectives each
    seconds: float = 0.0  # in the exchange, beside the training where there is a prefetch thread
    # Where the adjacency lies in parts, too:
    sampled_nodes: int = 0  # of other ranks' parts, whose neighbours their ranks drew
    sampling_bytes: int = 0  # sent: ids of nodes and of neighbours, and counts
    sampling_rounds: int = 0  # of three collectives each
    sampling_seconds: float = 0.0  # as `seconds`


class Answer(NamedTuple):
    """What a round has brought."""

    rows: Bytes  # [n, row_bytes], in the order of the places asked for
    stops: bool  # some rank stops
    has_more: bool  # some rank needs further rounds


class PartExchange:
    """Fetches rows by their place in part order.

    Args:
        transport: of this rank.
        bounds: int64 `[world_size + 1]`: rank r owns the places bounds[r] .. bounds[r + 1] - 1.
        index_dtype: of a place on the wire.
        row_bytes: of one row.
        read: copies rows of this rank's own places, int64 `[n]`, into uint8 `[n, row_bytes]`.
    """

    def __init__(
        self,
        transport: Transport,
        bounds: IntArray,
        index_dtype: np.dtype,
        row_bytes: int,
        read: Callable[[IntArray, Bytes], object],
    ):
        self.transport = transport
        self._bounds, self._index, self._row_bytes = bounds, index_dtype, row_bytes
        self._read = read
        self._most_rows = max(1, _MOST_BYTES // row_bytes)
        self._flat = np.ones(transport.world_size, np.int64)

    def fetch(
        self, places: IntArray, counters: Counters, stops: bool = False, has_more: bool = False
    ) -> Answer:
        """Fetch rows of any rank. A collective of at least one round.

        Args:
            places: int64 `[n]`, sorted.
            counters: are added to.
            stops: say to all ranks that this one takes part in no further round.
            has_more: say to all ranks that this one needs further rounds.
        """
        start = time.perf_counter()
        pieces: list[tuple[IntArray, Bytes]] = []  # nearly always one
        cuts = np.searchsorted(places, self._bounds)
        done, said = cuts[:-1].copy(), 0
        while True:
            last = np.minimum(done + self._most_rows, cuts[1:])
            asks_again = bool((last < cuts[1:]).any())
            flags = _STOPS * stops | _HAS_MORE * has_more | _ASKS_AGAIN * asks_again
            wanted = np.concatenate([np.arange(a, b) for a, b in zip(done, last, strict=True)])
            received, heard = self._round(places[wanted], last - done, flags, counters)
            pieces.append((wanted, received))
            done, said = last, said | heard
            if not heard & _ASKS_AGAIN:
                break
        rows = pieces[0][1]
        if len(pieces) > 1:
            rows = np.empty((len(places), self._row_bytes), np.uint8)
            for wanted, received in pieces:
                rows[wanted] = received
        counters.rows_received += len(places)
        counters.seconds += time.perf_counter() - start
        return Answer(rows, bool(said & _STOPS), bool(said & _HAS_MORE))

    def _round(
        self, places: IntArray, wanted: IntArray, flags: int, counters: Counters
    ) -> tuple[Bytes, int]:
        """Counts, ids and rows; the rows asked for, and the flags of all ranks."""
        counts = np.stack([wanted, np.full(len(wanted), flags)], axis=1)
        told = self._alltoall(counts, self._flat, self._flat, counters).view(np.int64)
        asked = np.ascontiguousarray(told[:, 0])
        ids = self._alltoall(
            places.astype(self._index).reshape(-1, 1), wanted, asked, counters
        ).view(self._index)
        theirs = ids.ravel().astype(np.int64)
        first, end = self._bounds[self.transport.rank : self.transport.rank + 2]
        if len(theirs) and not first <= theirs.min() <= theirs.max() < end:
            raise RuntimeError(f"asked for rows that are not in {first} .. {end - 1}")
        mine = np.empty((len(theirs), self._row_bytes), np.uint8)
        self._read(theirs, mine)
        received = self._alltoall(mine, asked, wanted, counters)
        counters.rounds += 1
        return received, int(np.bitwise_or.reduce(told[:, 1]))

    def _alltoall(
        self, rows: npt.NDArray, sent: IntArray, received: IntArray, counters: Counters
    ) -> Bytes:
        flat = np.ascontiguousarray(rows).view(np.uint8)
        found = self.transport.alltoall(flat, sent, received)
        own = self.transport.rank
        counters.bytes_sent += int(sent.sum() - sent[own]) * flat.shape[1]
        return found
