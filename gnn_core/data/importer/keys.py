"""Ids of nodes -> 0, 1, 2, ... in the order in which they are first seen: integers, or text.

Both tables take whole arrays of ids. Integers that are not spread too far index an array; others,
and text, are hashed. Memory grows with the number of different ids, not with how large they are.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.store import GraphWriter
from gnn_core.seeding import splitmix64

Nodes = npt.NDArray[np.int64]
_LEAST_DIRECT = 1 << 26  # ids below this always index an array, whose untouched pages cost nothing
_DIRECT_SHARE = 8  # and those below so many times the number of ids seen
_FNV_PRIME, _FNV_START = np.uint64(0x100000001B3), np.uint64(0xCBF29CE484222325)


class Keys(Protocol):
    """Ids, each with a number. Arrays are NumPy's int64 or Arrow's of text."""

    kind: str  # of the column of a table: int | text

    def __len__(self) -> int: ...

    def insert(self, ids: Any) -> Nodes:
        """The numbers of `ids`; new ones get the next numbers."""

    def find(self, ids: Any) -> Nodes:
        """The numbers of `ids`, -1 for unknown ones."""

    def put(self, writer: GraphWriter) -> None:
        """Write the ids into the folder of a graph."""

    def shown(self, number: int) -> object:
        """The id with that number."""


class IntegerKeys:
    """Integers of 64 bits."""

    kind = "int"

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)  # by number, with room for more
        self._count = 0
        self._direct: npt.NDArray[np.int32] | None = np.zeros(0, np.int32)  # number + 1, 0: none
        self._slots = np.zeros(0, np.int32)  # the same, hashed

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> Nodes:
        """The ids by number."""
        return self._keys[: self._count]

    def insert(self, ids: Any) -> Nodes:
        """The numbers of `ids`, int64 [k]."""
        self._keys = _with_room(self._keys, self._count, len(ids))
        numbers = np.empty(len(ids), np.int64)
        if self._direct is not None and len(ids):
            self._make_direct(int(ids.min()), int(ids.max()), len(ids))
        if self._direct is not None:
            self._count = _insert_direct(ids, self._direct, self._keys, self._count, numbers)
            return numbers
        if 2 * (self._count + len(ids)) > len(self._slots):
            self._slots = np.zeros(_power_of_two(4 * (self._count + len(ids))), np.int32)
            _fill_slots(self.ids, self._slots)
        self._count = _insert_hashed(ids, self._slots, self._keys, self._count, numbers)
        return numbers

    def find(self, ids: Any) -> Nodes:
        """The numbers of `ids`, -1 for unknown ones."""
        numbers = np.empty(len(ids), np.int64)
        if self._direct is not None:
            _find_direct(ids, self._direct, numbers)
        else:
            _find_hashed(ids, self._slots, self._keys, numbers)
        return numbers

    def order(self) -> Nodes:
        """The numbers in ascending order of the ids."""
        return np.argsort(self.ids)

    def put(self, writer: GraphWriter) -> None:
        """Write `ids.npy`, unless each id is the number of its node."""
        if not np.array_equal(self.ids, np.arange(self._count)):
            writer.put("ids", self.ids)

    def shown(self, number: int) -> object:
        """The id with that number."""
        return int(self._keys[number])

    def _make_direct(self, low: int, high: int, count: int) -> None:
        """Have the array reach to `high`, or give it up for a table of hashes."""
        assert self._direct is not None
        most = max(_LEAST_DIRECT, _DIRECT_SHARE * (self._count + count))
        if low < 0 or high >= most:
            self._direct = None
        elif high >= len(self._direct):
            larger = np.zeros(min(most, max(high + 1, 2 * len(self._direct))), np.int32)
            larger[: len(self._direct)] = self._direct
            self._direct = larger


class TextKeys:
    """Text, as Arrow arrays of strings."""

    kind = "text"

    def __init__(self) -> None:
        self._offsets = np.zeros(1, np.int64)  # of the ids by number, with room for more
        self._bytes = np.empty(0, np.uint8)
        self._hashes = np.empty(0, np.uint64)
        self._count = 0
        self._slots = np.zeros(0, np.int32)  # number + 1, 0: none

    def __len__(self) -> int:
        return self._count

    def insert(self, ids: Any) -> Nodes:
        """The numbers of `ids`."""
        offsets, content = text_buffers(ids)
        most = self._count + len(ids)
        used = int(self._offsets[self._count])
        self._offsets = _with_room(self._offsets, self._count + 1, len(ids))
        self._hashes = _with_room(self._hashes, self._count, len(ids))
        self._bytes = _with_room(self._bytes, used, int(offsets[-1] - offsets[0]))
        if 2 * most > len(self._slots):
            self._slots = np.zeros(_power_of_two(4 * most), np.int32)
            _fill_text_slots(self._hashes[: self._count], self._slots)
        numbers = np.empty(len(ids), np.int64)
        held = (self._offsets, self._bytes, self._hashes)
        self._count = _insert_text(offsets, content, *held, self._slots, self._count, numbers)
        return numbers

    def find(self, ids: Any) -> Nodes:
        """The numbers of `ids`, -1 for unknown ones."""
        numbers = np.full(len(ids), -1, np.int64)
        if len(self._slots):
            held = (self._offsets, self._bytes, self._hashes, self._slots)
            _find_text(*text_buffers(ids), *held, numbers)
        return numbers

    def put(self, writer: GraphWriter) -> None:
        """Write `ids-offsets.npy` and `ids-bytes.npy`."""
        offsets = self._offsets[: self._count + 1]
        writer.put("ids-offsets", offsets)
        writer.put("ids-bytes", self._bytes[: offsets[-1]])

    def shown(self, number: int) -> object:
        """The id with that number."""
        return self.text(number)

    def text(self, number: int) -> str:
        """The id with that number."""
        low, high = self._offsets[number], self._offsets[number + 1]
        return self._bytes[low:high].tobytes().decode()

    def texts(self) -> list[str]:
        """All ids by number."""
        return [self.text(number) for number in range(self._count)]


def text_buffers(values: Any) -> tuple[Nodes, npt.NDArray[np.uint8]]:
    """Offsets [k + 1] and bytes of an Arrow array of strings."""
    _, offsets, content = values.buffers()
    starts = np.frombuffer(offsets, np.int32, len(values) + 1, 4 * values.offset)
    data = np.empty(0, np.uint8) if content is None else np.frombuffer(content, np.uint8)
    return starts.astype(np.int64), data


def _with_room(array: npt.NDArray, used: int, more: int) -> npt.NDArray:
    if used + more <= len(array):
        return array
    larger = np.empty(max(used + more, 2 * len(array)), array.dtype)
    larger[:used] = array[:used]
    return larger


def _power_of_two(least: int) -> int:
    return 1 << max(10, (least - 1).bit_length())


@njit(cache=True, nogil=True)
def _insert_direct(ids, direct, keys, count, numbers):  # type: ignore[no-untyped-def]
    for i in range(len(ids)):
        number = direct[ids[i]]
        if number == 0:
            keys[count] = ids[i]
            count += 1
            direct[ids[i]] = number = count
        numbers[i] = number - 1
    return count


@njit(cache=True, nogil=True)
def _find_direct(ids, direct, numbers):  # type: ignore[no-untyped-def]
    for i in range(len(ids)):
        is_inside = 0 <= ids[i] < len(direct)
        numbers[i] = direct[ids[i]] - 1 if is_inside else -1


@njit(cache=True, nogil=True)
def _place(key, slots, keys):  # type: ignore[no-untyped-def]
    """The slot that holds `key`, or the free one where it belongs."""
    mask = np.uint64(len(slots) - 1)
    slot = splitmix64(np.uint64(key)) & mask
    while slots[slot] != 0 and keys[slots[slot] - 1] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def _fill_slots(keys, slots):  # type: ignore[no-untyped-def]
    for number in range(len(keys)):
        slots[_place(keys[number], slots, keys)] = number + 1


@njit(cache=True, nogil=True)
def _insert_hashed(ids, slots, keys, count, numbers):  # type: ignore[no-untyped-def]
    for i in range(len(ids)):
        slot = _place(ids[i], slots, keys)
        if slots[slot] == 0:
            keys[count] = ids[i]
            count += 1
            slots[slot] = count
        numbers[i] = slots[slot] - 1
    return count


@njit(cache=True, nogil=True)
def _find_hashed(ids, slots, keys, numbers):  # type: ignore[no-untyped-def]
    for i in range(len(ids)):
        numbers[i] = slots[_place(ids[i], slots, keys)] - 1


@njit(cache=True, nogil=True)
def _hash(content, low, high):  # type: ignore[no-untyped-def]
    state = _FNV_START
    for at in range(low, high):
        state = (state ^ np.uint64(content[at])) * _FNV_PRIME
    return splitmix64(state)


@njit(cache=True, nogil=True)
def _text_place(content, low, high, hashed, offsets, held, hashes, slots):  # type: ignore[no-untyped-def]
    """The slot that holds content[low:high], or the free one where it belongs."""
    mask = np.uint64(len(slots) - 1)
    slot = hashed & mask
    while slots[slot] != 0:
        number = slots[slot] - 1
        start = offsets[number]
        if hashes[number] == hashed and offsets[number + 1] - start == high - low:
            at = 0
            while at < high - low and content[low + at] == held[start + at]:
                at += 1
            if at == high - low:
                break
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def _fill_text_slots(hashes, slots):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    for number in range(len(hashes)):
        slot = hashes[number] & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = number + 1


@njit(cache=True, nogil=True)
def _insert_text(begins, content, offsets, held, hashes, slots, count, numbers):  # type: ignore[no-untyped-def]
    for i in range(len(begins) - 1):
        low, high = begins[i], begins[i + 1]
        hashed = _hash(content, low, high)
        slot = _text_place(content, low, high, hashed, offsets, held, hashes, slots)
        if slots[slot] == 0:
            start = offsets[count]
            for at in range(high - low):
                held[start + at] = content[low + at]
            offsets[count + 1] = start + high - low
            hashes[count] = hashed
            count += 1
            slots[slot] = count
        numbers[i] = slots[slot] - 1
    return count


@njit(cache=True, nogil=True)
def _find_text(begins, content, offsets, held, hashes, slots, numbers):  # type: ignore[no-untyped-def]
    for i in range(len(begins) - 1):
        low, high = begins[i], begins[i + 1]
        hashed = _hash(content, low, high)
        slot = _text_place(content, low, high, hashed, offsets, held, hashes, slots)
        numbers[i] = slots[slot] - 1
