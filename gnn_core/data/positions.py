"""Where the nodes that a batch has met stand in it: relabelling global ids to local columns.

`TablePositions` keeps an int32 for each node of the graph, `HashPositions` 16 bytes for each node
of the batch, at least twice over. They give the same columns and the same order of new nodes; on a
graph of 100 M nodes a table would take 0.4 GB per sampler, and a process has one for each split.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.seeding import GOLDEN_GAMMA

HASHED_FROM = 1 << 24  # nodes of a graph from which on a table would be too large
_MAX_POSITION = 2**31 - 1  # columns are int32
_LEAST_SLOTS = 1 << 14
_SLOT_BYTES = 16
_GAMMA = np.uint64(GOLDEN_GAMMA)

IntArray = npt.NDArray[np.int64]


class Positions(Protocol):
    """The positions of one batch at a time; not to be used again after an error."""

    def start(self, targets: IntArray) -> None:
        """Forget the last batch; `targets` int64 `[T]`, distinct, stand at 0 .. T - 1."""

    def relabel(
        self,
        indices: npt.NDArray[np.integer],
        picks: IntArray,
        num_edges: int,
        nodes: IntArray,
        num_nodes: int,
        columns: npt.NDArray[np.int32],
    ) -> int:
        """Turn picked positions of `indices` into columns; the number of nodes met by then.

        Nodes not met before are appended to the first `num_nodes` of `nodes`, which has room for
        `num_edges` more and one. -1 for an id that no node has, before anything else is written.

        Args:
            indices: the neighbours of all nodes `[E]`.
            picks: int64, of which the first `num_edges` are positions in `indices`; overwritten.
            num_edges: of the block.
            nodes: int64, global ids of the nodes met.
            num_nodes: how many those are.
            columns: int32 `[num_edges]`, to be filled.
        """


def positions_of(num_nodes: int) -> Positions:
    """The kind that suits a graph of so many nodes."""
    return TablePositions(num_nodes) if num_nodes < HASHED_FROM else HashPositions(num_nodes)


def scratch_bytes(num_nodes: int, met: float) -> int:
    """The most that positions take, of a graph of so many nodes and a batch that meets `met`."""
    return 4 * num_nodes if num_nodes < HASHED_FROM else int(8 * _SLOT_BYTES * met)


class TablePositions:
    """One number for each node of the graph, allocated when the first batch starts."""

    def __init__(self, num_nodes: int):
        self._num_nodes = num_nodes
        self._where = np.empty(0, dtype=np.int32)
        self._base = _MAX_POSITION
        self._met = 0

    def start(self, targets: IntArray) -> None:
        """As in `Positions`."""
        self._base += self._met
        self._met = len(targets)
        # One batch meets at most num_nodes nodes; start over before positions overflow int32.
        if self._base + self._num_nodes + len(targets) >= _MAX_POSITION:
            if not len(self._where):
                self._where = np.empty(self._num_nodes, dtype=np.int32)
            self._where.fill(-1)
            self._base = 0
        self._where[targets] = self._base + np.arange(len(targets))

    def relabel(
        self,
        indices: npt.NDArray[np.integer],
        picks: IntArray,
        num_edges: int,
        nodes: IntArray,
        num_nodes: int,
        columns: npt.NDArray[np.int32],
    ) -> int:
        """As in `Positions`."""
        self._met = _relabel(
            indices, picks, num_edges, self._base, self._where, nodes, num_nodes, columns
        )
        return self._met


class HashPositions:
    """A hash table with open addressing, at most half full, that grows with the batch."""

    def __init__(self, num_nodes: int):
        self._num_nodes = num_nodes
        # Of each slot the node, and `base` plus its position; older bases mean an empty slot.
        self._slots = np.zeros((0, 2), dtype=np.int64)
        self._base = 1
        self._met = 0

    def start(self, targets: IntArray) -> None:
        """As in `Positions`."""
        if len(targets) and not 0 <= targets.min() <= targets.max() < self._num_nodes:
            raise IndexError(f"expected node ids in 0 .. {self._num_nodes - 1}")
        self._base += self._met
        self._met = len(targets)
        if 2 * len(targets) > len(self._slots):
            self._grow(targets)
        else:
            _insert(self._slots, self._base, targets)

    def relabel(
        self,
        indices: npt.NDArray[np.integer],
        picks: IntArray,
        num_edges: int,
        nodes: IntArray,
        num_nodes: int,
        columns: npt.NDArray[np.int32],
    ) -> int:
        """As in `Positions`."""
        if not _fetch(indices, picks, num_edges, self._num_nodes - 1):
            return -1
        edge = 0
        while True:
            edge, num_nodes = _relabel_hashed(
                self._slots, self._base, picks, edge, num_edges, nodes, num_nodes, columns
            )
            self._met = num_nodes
            if edge == num_edges:
                return num_nodes
            self._grow(nodes[:num_nodes])

    def _grow(self, met: IntArray) -> None:
        """Make a table with room for four times the nodes `met`, and enter those."""
        size = max(_LEAST_SLOTS, 1 << int(4 * len(met)).bit_length())
        self._slots = np.zeros((size, 2), dtype=np.int64)
        self._base = 1
        _insert(self._slots, self._base, met)


@njit(cache=True, nogil=True, inline="always")
def _fetch(indices, picks, num_edges, last):  # type: ignore[no-untyped-def]
    """Replace picked positions by the ids there; whether all of those are within 0 .. `last`.

    A loop of its own, so that its loads overlap. The ids wait in `picks`, since `columns` is too
    narrow for those of a huge graph.
    """
    signs = np.int64(0)
    for edge in range(num_edges):
        picks[edge] = indices[picks[edge]]
    for edge in range(num_edges):
        signs |= picks[edge] | (last - picks[edge])  # negative once an id is out of range
    return signs >= 0


@njit(cache=True, nogil=True)
def _relabel(indices, picks, num_edges, base, where, nodes, num_nodes, columns):  # type: ignore[no-untyped-def]
    """`TablePositions.relabel`.

    `where[node] >= base` means the node was met in this batch, at position `where[node] - base`;
    raising `base` from batch to batch forgets all of it without clearing the table. There is no
    branch in the loop, so nothing is mispredicted.
    """
    if not _fetch(indices, picks, num_edges, np.int64(len(where) - 1)):
        return -1
    for edge in range(num_edges):
        node = picks[edge]
        position = where[node] - base
        is_new = position < 0
        position = num_nodes if is_new else position
        where[node] = base + position
        nodes[num_nodes] = node
        columns[edge] = position
        num_nodes += is_new
    return num_nodes


@njit(cache=True, nogil=True, inline="always")
def _slot_of(slots, base, node):  # type: ignore[no-untyped-def]
    """Where the node is, or the empty slot where it would be. The size is a power of two."""
    last = np.int64(len(slots) - 1)
    slot = np.int64((np.uint64(node) * _GAMMA) >> np.uint64(32)) & last
    while slots[slot, 1] >= base and slots[slot, 0] != node:
        slot = (slot + 1) & last
    return slot


@njit(cache=True, nogil=True)
def _insert(slots, base, met):  # type: ignore[no-untyped-def]
    for position in range(len(met)):
        slot = _slot_of(slots, base, met[position])
        slots[slot, 0] = met[position]
        slots[slot, 1] = base + position


@njit(cache=True, nogil=True)
def _relabel_hashed(slots, base, picks, edge, num_edges, nodes, num_nodes, columns):  # type: ignore[no-untyped-def]
    """`HashPositions.relabel` from `edge` on, until the table is half full -> (edge, num_nodes)."""
    most = len(slots) // 2
    while edge < num_edges and num_nodes < most:
        node = picks[edge]
        slot = _slot_of(slots, base, node)
        position = slots[slot, 1] - base
        if position < 0:
            slots[slot, 0] = node
            slots[slot, 1] = base + num_nodes
            nodes[num_nodes] = node
            position = num_nodes
            num_nodes += 1
        columns[edge] = position
        edge += 1
    return edge, num_nodes
