"""PlannedCache: rows in a fixed number of bytes, kept by what the batches drawn ahead will read.

As many batches are drawn ahead as read about as many different rows as the cache holds. Rows that
one of them reads stay; the others give way, those that were asked for least first. Rows that are
lent, to be read where they lie, stay until they are given back.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.row_runs import copy_row

Bytes = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

_NODE_BYTES = 6  # int32 slot, uint8 count and uint8 step of each node
_SLOT_BYTES = 10  # int64 node of each slot, and uint16 how often it is lent
_TRIES = 4  # rows that a new one is compared with before it is not kept
_MOST_TRIES = 64  # if a batch drawn ahead reads it again
_MOST_STEPS = 255  # that are told apart


class PlannedCache:
    """Rows by node id. Not to be used by two threads at a time.

    Steps are numbered from 1 in the order in which `announce` is told of them.

    Args:
        num_rows: N, of which ids are less.
        num_slots: rows that it holds, at least one.
        row_bytes: of one row.
    """

    def __init__(self, num_rows: int, num_slots: int, row_bytes: int):
        self.num_slots = num_slots
        self._announced = self._now = 0  # the last step known, and that asked for last
        self._slot_of = np.full(num_rows, -1, np.int32)
        self._asked = np.zeros(num_rows, np.uint8)  # how often, 255 at most
        # The last step to come that reads it, modulo _MOST_STEPS, and one; 0: none is known.
        self._last_use = np.zeros(num_rows, np.uint8)
        self._node_in = np.empty(num_slots, np.int64)
        self._lent = np.zeros(num_slots, np.uint16)
        self.rows = np.empty((num_slots, row_bytes), np.uint8)
        # Slots in use; the one that is next to be given up; nodes that steps to come read; slots
        # that are lent.
        self._state = np.zeros(4, np.int64)

    @staticmethod
    def slots_in(num_bytes: int, num_rows: int, row_bytes: int) -> int:
        """How many rows fit into so many bytes, their index included."""
        room = num_bytes - _NODE_BYTES * num_rows
        return min(num_rows, 2**31 - 1, max(0, room // (row_bytes + _SLOT_BYTES)))

    @staticmethod
    def bytes_of(num_rows: int, row_bytes: int, num_slots: int) -> int:
        """What a cache of `num_slots` of the `num_rows` rows takes, its index included."""
        return _NODE_BYTES * num_rows + num_slots * (row_bytes + _SLOT_BYTES)

    @property
    def is_planned(self) -> bool:
        """Whether the steps to come are known as far as it has room for what they read."""
        is_long = self._announced - self._now >= _MOST_STEPS - 1
        return is_long or bool(self._state[2] >= self.num_slots)

    def announce(self, ids: IntArray) -> int:
        """Be told of a step that will read these rows; its number."""
        self._announced += 1
        _announce(ids, _code(self._announced), self._last_use, self._state)
        return self._announced

    def forget_steps(self) -> None:
        """The rows of steps announced so far will not be asked for, and none is lent any more."""
        self._now = self._announced
        self._lent.fill(0)
        self._state[3] = 0
        self._last_use.fill(0)
        self._state[2] = 0

    def take(self, ids: IntArray, rows: Bytes, step: int = 0) -> IntArray:
        """Copy what it has of the rows `ids` to `rows` beside them; the positions of all others.

        Args:
            ids: int64 `[k]`.
            rows: uint8 `[k, row_bytes]`.
            step: the announced step that reads them; 0: none.
        """
        self._now = max(self._now, step)
        missing = np.empty(len(ids), np.int64)
        count = _take(
            *(ids, rows, _code(step), missing),
            *(self._slot_of, self._asked, self._last_use, self.rows, self._state),
        )
        return missing[:count]

    def lend(self, ids: IntArray, step: int = 0) -> tuple[IntArray, IntArray] | None:
        """Slots of the rows `ids`, and the positions of those which are to be read into theirs.

        Call `fill` when they are there, and `give_back` when nobody reads the slots any more.

        Args:
            ids: int64 `[k]`, distinct.
            step: as in `take`.

        Returns:
            int64 `[k]` and int64 `[m]`; None if there is no room beside what is lent already.
        """
        self._now = max(self._now, step)
        slots, missing = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
        count = _lend(
            *(ids, _code(step), slots, missing, self._lent),
            *(self._slot_of, self._asked, self._last_use, self._node_in, self._state),
        )
        return None if count < 0 else (slots, missing[:count])

    def fill(self, ids: IntArray, slots: IntArray) -> None:
        """Rows have been read into the slots that `lend` gave to them."""
        _fill(ids, slots, self._slot_of)

    def give_back(self, slots: IntArray) -> None:
        """The slots that `lend` gave may be used for others."""
        _give_back(slots, self._lent, self._state)

    def keep(self, ids: IntArray, positions: IntArray, rows: Bytes) -> None:
        """Keep the best of rows that were read from disk.

        Args:
            ids: int64 `[k]`, distinct or not.
            positions: int64 `[k]`, where in `rows` the row of each is.
            rows: uint8 `[any, row_bytes]`.
        """
        _keep(
            *(ids, positions, rows, self._lent),
            *(self._slot_of, self._asked, self._last_use, self._node_in, self.rows, self._state),
        )


def _code(step: int) -> int:
    return step % _MOST_STEPS + 1 if step else 0


@njit(cache=True, nogil=True)
def _announce(ids, code, last_use, state):  # type: ignore[no-untyped-def]
    for node in ids:
        state[2] += last_use[node] == 0
        last_use[node] = code


@njit(cache=True, nogil=True)
def _count(node, code, asked, last_use, state):  # type: ignore[no-untyped-def]
    """Note that a node was asked for, and whether that was its last announced use."""
    asked[node] += asked[node] < 255
    if code and last_use[node] == code:
        last_use[node] = 0
        state[2] -= 1


@njit(cache=True, nogil=True)
def _take(ids, rows, code, missing, slot_of, asked, last_use, cached, state):  # type: ignore[no-untyped-def]
    count = 0
    for i in range(len(ids)):
        node = ids[i]
        _count(node, code, asked, last_use, state)
        slot = slot_of[node]
        if slot < 0:
            missing[count] = i
            count += 1
            continue
        copy_row(cached, slot, rows, i)
    return count


@njit(cache=True, nogil=True)
def _keep(ids, positions, rows, lent, slot_of, asked, last_use, node_in, cached, state):  # type: ignore[no-untyped-def]
    for i in range(len(ids)):
        node = ids[i]
        if slot_of[node] >= 0:  # the same node as before it, or read by another thread too
            continue
        slot = np.int64(-1)
        if state[0] < len(node_in):
            slot = state[0]
            state[0] += 1
        else:
            slot = _given_up(node, lent, asked, last_use, node_in, state)
            if slot < 0:
                continue
            _empty(slot, slot_of, node_in)
        slot_of[node] = slot
        node_in[slot] = node
        copy_row(rows, positions[i], cached, slot)


@njit(cache=True, nogil=True)
def _given_up(node, lent, asked, last_use, node_in, state):  # type: ignore[no-untyped-def]
    """The slot of a row that is worth less than that of `node`; -1 if none was found."""
    is_wanted = last_use[node] > 0
    tries = _MOST_TRIES if is_wanted else _TRIES
    found, least, left = np.int64(-1), np.int64(256) if is_wanted else np.int64(asked[node]), _TRIES
    while tries and left:
        candidate = state[1]
        state[1] = candidate + 1 if candidate + 1 < len(node_in) else 0
        tries -= 1
        other = node_in[candidate]
        if last_use[other] or lent[candidate]:
            continue
        left -= 1
        if asked[other] < least:
            found, least = candidate, np.int64(asked[other])
    return found


@njit(cache=True, nogil=True)
def _empty(slot, slot_of, node_in):  # type: ignore[no-untyped-def]
    """Forget the row in a slot. The node may have got another one since, by another thread."""
    if slot_of[node_in[slot]] == slot:
        slot_of[node_in[slot]] = -1


@njit(cache=True, nogil=True)
def _lend(ids, code, slots, missing, lent, slot_of, asked, last_use, node_in, state):  # type: ignore[no-untyped-def]
    count = 0
    for i in range(len(ids)):
        node = ids[i]
        _count(node, code, asked, last_use, state)
        slot = slot_of[node]
        slots[i] = slot
        if slot < 0:
            missing[count] = i
            count += 1
        else:
            state[3] += lent[slot] == 0
            lent[slot] += 1
    has_room = count <= len(node_in) - state[3]
    for i in missing[:count]:
        if has_room:
            slots[i] = _free_slot(lent, asked, last_use, node_in, slot_of, state)
            node_in[slots[i]] = ids[i]
            lent[slots[i]] = 1
            state[3] += 1
    if not has_room:
        _give_back(slots, lent, state)
        return -1
    return count


@njit(cache=True, nogil=True)
def _free_slot(lent, asked, last_use, node_in, slot_of, state):  # type: ignore[no-untyped-def]
    """An empty slot, or that of the row which is worth least of some; one at least is not lent."""
    if state[0] < len(node_in):
        state[0] += 1
        return state[0] - 1
    found, least, left, tries = np.int64(-1), np.int64(257), _TRIES, _MOST_TRIES
    while found < 0 or (left and tries > 0):
        candidate = state[1]
        state[1] = candidate + 1 if candidate + 1 < len(node_in) else 0
        tries -= 1
        if lent[candidate]:
            continue
        other = node_in[candidate]
        worth = np.int64(256) if last_use[other] else np.int64(asked[other])
        left = left - 1 if worth < 256 else left
        if worth < least:
            found, least = candidate, worth
    _empty(found, slot_of, node_in)
    return found


@njit(cache=True, nogil=True)
def _fill(ids, slots, slot_of):  # type: ignore[no-untyped-def]
    for i in range(len(ids)):
        if slot_of[ids[i]] < 0:
            slot_of[ids[i]] = slots[i]


@njit(cache=True, nogil=True)
def _give_back(slots, lent, state):  # type: ignore[no-untyped-def]
    for slot in slots:
        if slot >= 0:
            lent[slot] -= 1
            state[3] -= lent[slot] == 0
