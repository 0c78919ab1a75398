"""RowCache: rows of other ranks' parts, in a fixed number of bytes.

What is kept is decided by the next use, which is known as far as batches have been drawn: rows
that the next steps read are kept first, the soonest first; then those that are read most often by
the order within their part. What is in the cache changes what is sent, never what is computed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit

Bytes = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]


class RowCache:
    """Rows by place.

    Args:
        most_rows: that it holds.
        row_bytes: of one row.
    """

    def __init__(self, most_rows: int, row_bytes: int):
        self.most_rows = most_rows
        self.places = np.empty(0, np.int64)  # sorted
        self._slots = np.empty(0, np.int64)  # beside them, where the row is
        self._rows = np.empty((most_rows, row_bytes), np.uint8)

    def split(self, places: IntArray) -> tuple[IntArray, IntArray]:
        """Which of `places` int64 `[n]`, sorted, are cached and which not: positions int64."""
        _, hits = find(self.places, places)
        return np.flatnonzero(hits), np.flatnonzero(~hits)

    def read(self, places: IntArray, where: IntArray, out: Bytes) -> None:
        """Copy rows of cached places to `out[where]`."""
        at, _ = find(self.places, places)
        copy_rows(self._rows, self._slots[at], where, out)

    def keep_best(self, places: IntArray, rows: Bytes, key: npt.NDArray[np.float64]) -> None:
        """Keep those of the least key, of what is cached and of other rows.

        Args:
            places: int64 `[n]`, sorted, with all that is cached.
            rows: uint8 `[m, row_bytes]` of the places that are not cached, in their order.
            key: `[n]`; smaller is kept first.
        """
        at, hits = find(self.places, places)
        kept = np.ones(len(places), np.bool_)
        if len(places) > self.most_rows:
            kept[np.argpartition(key, self.most_rows)[self.most_rows :]] = False
        slots = np.full(len(places), -1, np.int64)
        slots[hits] = self._slots[at[hits]]
        is_free = np.ones(self.most_rows, np.bool_)
        is_free[slots[kept & hits]] = False
        new = kept & ~hits
        slots[new] = np.flatnonzero(is_free)[: np.count_nonzero(new)]
        copy_rows(rows, np.flatnonzero(new[~hits]), slots[new], self._rows)
        self.places, self._slots = places[kept], slots[kept]


def find(table: IntArray, places: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Where each of `places` is in a sorted `table`, int64, and whether it is there at all."""
    if not len(table):
        return np.zeros(len(places), np.int64), np.zeros(len(places), np.bool_)
    at = np.minimum(np.searchsorted(table, places), len(table) - 1)
    return at, table[at] == places


def distinct(values: IntArray) -> IntArray:
    """The sorted distinct values; `np.unique` hashes them, which takes ten times as long."""
    ordered = np.sort(values)
    return ordered[changes(ordered)]


def changes(ordered: IntArray) -> npt.NDArray[np.bool_]:
    """Which of sorted values differ from the one before; the first does."""
    found = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=found[1:])
    return found


def copy_rows(source: Bytes, rows: IntArray, where: IntArray, out: Bytes) -> None:
    """out[where[i]] = source[rows[i]], rows of equal size; the caller has checked the indices."""
    words = np.gcd(source.shape[1], 8) if source.shape[1] else 1  # bytes that are copied together
    dtype = np.dtype(f"u{words}")
    _copy(source.view(dtype), rows, where, out.view(dtype))


@njit(cache=True, nogil=True)
def _copy(source, rows, where, out):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        row, place = rows[i], where[i]
        for j in range(source.shape[1]):  # an assignment of the row takes twice as long
            out[place, j] = source[row, j]


@njit(cache=True, nogil=True)
def locate(ids, place, bounds, fetched, at):  # type: ignore[no-untyped-def]
    """Find each node's row in a part, or, counted on from the part's last, among fetched ones.

    Args:
        ids: int64 `[k]`, which the caller has checked.
        place: `[N]` the place of each node.
        bounds: int64 `[2]`, the part's first place and the one after its last.
        fetched: int64, sorted, the places of the fetched rows.
        at: int64 `[k]`, is filled.

    Returns:
        Whether all of them were found.
    """
    first, end = bounds
    for i in range(len(ids)):
        row = np.int64(place[ids[i]])
        if first <= row < end:
            at[i] = row - first
            continue
        k = np.searchsorted(fetched, row)
        if k == len(fetched) or fetched[k] != row:
            return False
        at[i] = end - first + k
    return True
