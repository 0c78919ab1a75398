"""Keyed neighbour sampling without replacement: (graph, targets, fan-outs, key) -> Blocks.

Which neighbours a node draws is a pure function of (key, hop, node, slot). The sampler knows
nothing of ranks, batches or epochs: two ranks that meet the same node in the same step draw the
same neighbours for it, so the union of what N ranks draw is exactly what one process draws.

Every destination of a hop is expanded *at that hop*, also when an earlier hop already expanded
it. Otherwise a node's neighbours would depend on which targets share its batch, and ranks would
disagree.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.config import UsageError
from gnn_core.data.batch import Block
from gnn_core.data.checks import Subject
from gnn_core.data.graph import Graph
from gnn_core.data.page_faults import PageFaults
from gnn_core.data.positions import positions_of
from gnn_core.seeding import GOLDEN_GAMMA, below, mix, splitmix64

ALL_NEIGHBOURS = -1
_MAX_POSITION = 2**31 - 1  # offsets and columns are int32
_GAMMA = np.uint64(GOLDEN_GAMMA)
_ONE = np.uint64(1)
_WORD_BITS = 64


@njit(cache=True, nogil=True)
def count_rows(indptr, num_indices, nodes, num_dst, fanout, starts, degrees, offsets):  # type: ignore[no-untyped-def]
    """Look up every destination's row, and cumulate min(degree, fanout) in `offsets`.

    Returns the total, which may exceed int32, and whether a row is not within the `num_indices`
    neighbours there are, as only in a damaged file. The rows are scattered over memory; looked
    up here, all at once, the loads overlap, and no branch of `draw_rows` has to wait for one.
    """
    total = np.int64(0)
    offsets[0] = 0
    signs = np.int64(0)  # negative from the first row on that is not within the neighbours
    for i in range(num_dst):
        start = indptr[nodes[i]]
        degree = indptr[nodes[i] + 1] - start
        signs |= start | degree | (num_indices - start - degree)
        starts[i] = start
        degrees[i] = degree
        total += degree if fanout < 0 or degree < fanout else fanout
        offsets[i + 1] = total
    return total, signs < 0


@njit(cache=True, nogil=True)
def draw_rows(nodes, starts, degrees, num_dst, hop_key, offsets, picks):  # type: ignore[no-untyped-def]
    """Choose, for every destination, the positions in `indices` that it draws.

    Robert Floyd's algorithm (Bentley, "A Sample of Brilliance", CACM 1987): k distinct values out
    of n with k random numbers. What a node of up to 64 neighbours drew is kept in the bits of one
    word; for others the k <= fan-out earlier draws are searched, which stays within a few cache
    lines. Both give the same draws.
    """
    for i in range(num_dst):
        start = starts[i]
        degree = degrees[i]
        first = np.int64(offsets[i])
        count = np.int64(offsets[i + 1]) - first
        if count == degree:
            for slot in range(count):
                picks[first + slot] = start + slot
            continue
        state = mix(hop_key, np.uint64(nodes[i]))
        drawn = np.uint64(0)
        for slot in range(count):
            last = np.uint64(degree - count + slot)
            state += _GAMMA
            choice = np.uint64(below(splitmix64(state), np.uint32(last + _ONE)))
            if degree <= _WORD_BITS:
                choice = last if (drawn >> choice) & _ONE else choice
                drawn |= _ONE << choice
                picks[first + slot] = start + np.int64(choice)
            else:
                pick = start + np.int64(choice)
                taken = False
                for earlier in range(first, first + slot):
                    taken |= picks[earlier] == pick
                picks[first + slot] = start + np.int64(last) if taken else pick


class Sampler:
    """Draws the blocks of one batch. Holds only scratch space, never random state.

    Threads may share one: they take turns.

    Args:
        graph: what to sample from; its arrays may be memory-mapped.
        fanouts: neighbours per node and hop, from the targets outward; -1 takes all of them.
    """

    def __init__(self, graph: Graph, fanouts: tuple[int, ...]):
        self._graph = graph
        self._fanouts = fanouts
        self._positions = positions_of(graph.num_nodes)
        self._nodes = np.empty(0, dtype=np.int64)
        self._starts = np.empty(0, dtype=np.int64)
        self._degrees = np.empty(0, dtype=np.int64)
        self._picks = np.empty(0, dtype=np.int64)
        self._faults = PageFaults.of(graph.indices)
        self._one_at_a_time = threading.Lock()

    def sample(
        self, targets: npt.NDArray[np.int64], key: int
    ) -> tuple[tuple[Block, ...], npt.NDArray[np.int64]]:
        """Blocks (input layer first) and the global ids of the input nodes (targets first).

        Args:
            targets: int64 `[T]`, distinct node ids.
            key: 64 bits; the same key and node give the same neighbours whoever asks.

        Raises:
            UsageError: a block would hold more than 2**31 - 1 edges, or a file is damaged.
        """
        with self._one_at_a_time:
            try:
                return self._sample(targets, key)
            except BaseException:
                self._positions = positions_of(self._graph.num_nodes)  # forgets what was met so far
                raise

    def _sample(
        self, targets: npt.NDArray[np.int64], key: int
    ) -> tuple[tuple[Block, ...], npt.NDArray[np.int64]]:
        num_nodes = len(targets)
        self._nodes = _grown(self._nodes, num_nodes)
        self._nodes[:num_nodes] = targets
        self._positions.start(targets)
        blocks = []
        for hop, fanout in enumerate(self._fanouts):
            hop_key = np.uint64(mix(np.uint64(key), np.uint64(hop)))
            blocks.append(self._expand(num_nodes, hop, fanout, hop_key))
            num_nodes = blocks[-1].num_src
        return tuple(reversed(blocks)), self._nodes[:num_nodes].copy()

    def _expand(self, num_dst: int, hop: int, fanout: int, hop_key: np.uint64) -> Block:
        """The block of one hop; what it reaches joins the first `num_dst` of `self._nodes`."""
        graph = self._graph
        self._starts = _grown(self._starts, num_dst)
        self._degrees = _grown(self._degrees, num_dst)
        offsets = np.empty(num_dst + 1, dtype=np.int32)
        num_edges, is_damaged = count_rows(
            graph.indptr,
            len(graph.indices),
            self._nodes,
            num_dst,
            fanout,
            self._starts,
            self._degrees,
            offsets,
        )
        if num_edges > _MAX_POSITION:
            raise UsageError(
                f"hop {hop + 1} of one batch holds {num_edges:,} edges, the limit is "
                f"{_MAX_POSITION:,}: lower --global-batch-size or --fanouts"
            )
        if is_damaged:
            raise Subject(graph.name, graph.folder).error(
                "indptr", f"rows within the {len(graph.indices):,} neighbours", "others"
            )
        self._nodes = _grown(self._nodes, num_dst + num_edges + 1)
        self._picks = _grown(self._picks, num_edges)
        columns = np.empty(num_edges, dtype=np.int32)
        draw_rows(self._nodes, self._starts, self._degrees, num_dst, hop_key, offsets, self._picks)
        if self._faults is not None:
            self._faults.take(self._picks[:num_edges])
        num_src = self._positions.relabel(
            graph.indices, self._picks, num_edges, self._nodes, num_dst, columns
        )
        if num_src < 0:
            raise Subject(graph.name, graph.folder).error(
                "indices", f"node ids from 0 to {graph.num_nodes - 1}", "others"
            )
        return Block(offsets, columns, num_src)


def _grown(scratch: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """`scratch`, or a larger array that begins with what it holds."""
    if len(scratch) >= size:
        return scratch
    larger = np.empty(size * 5 // 4, dtype=np.int64)
    larger[: len(scratch)] = scratch
    return larger
