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
from gnn_core.seeding import GOLDEN_GAMMA, below, mix, splitmix64

ALL_NEIGHBOURS = -1
_MAX_POSITION = 2**31 - 1  # offsets and columns are int32
_GAMMA = np.uint64(GOLDEN_GAMMA)
_ONE = np.uint64(1)
_WORD_BITS = 64


@njit(cache=True, nogil=True)
def _count(indptr, num_indices, nodes, num_dst, fanout, starts, degrees, offsets):  # type: ignore[no-untyped-def]
    """Look up every destination's row, and cumulate min(degree, fanout) in `offsets`.

    Returns the total, which may exceed int32, and whether a row is not within the `num_indices`
    neighbours there are, as only in a damaged file. The rows are scattered over memory; looked
    up here, all at once, the loads overlap, and no branch of `_draw` has to wait for one.
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
def _draw(nodes, starts, degrees, num_dst, hop_key, offsets, picks):  # type: ignore[no-untyped-def]
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


@njit(cache=True, nogil=True)
def _relabel(indices, picks, num_edges, base, where, nodes, num_nodes, columns):  # type: ignore[no-untyped-def]
    """Turn picked positions into local columns, appending nodes not met before; the new count.

    `where[node] >= base` means the node was met in this batch, at position `where[node] - base`;
    raising `base` from batch to batch forgets all of it without clearing the table. Two loops, and
    no branch in the second: the loads of the first overlap, and nothing is mispredicted. Between
    them the ids wait in `picks`, since `columns` is too narrow for those of a huge graph. -1 for an
    id that no node has, before anything is written where it points.
    """
    last, signs = np.int64(len(where) - 1), np.int64(0)
    for edge in range(num_edges):
        picks[edge] = indices[picks[edge]]
    for edge in range(num_edges):
        signs |= picks[edge] | (last - picks[edge])  # negative once an id is out of range
    if signs < 0:
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
        self._where = np.full(graph.num_nodes, -1, dtype=np.int32)
        self._base = 0
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
                self._base = _MAX_POSITION  # what was met so far is to be forgotten
                raise

    def _sample(
        self, targets: npt.NDArray[np.int64], key: int
    ) -> tuple[tuple[Block, ...], npt.NDArray[np.int64]]:
        num_nodes = len(targets)
        self._nodes = _grown(self._nodes, num_nodes)
        self._nodes[:num_nodes] = targets
        self._start_batch(num_nodes)
        blocks = []
        for hop, fanout in enumerate(self._fanouts):
            hop_key = np.uint64(mix(np.uint64(key), np.uint64(hop)))
            blocks.append(self._expand(num_nodes, hop, fanout, hop_key))
            num_nodes = blocks[-1].num_src
        self._base += num_nodes
        return tuple(reversed(blocks)), self._nodes[:num_nodes].copy()

    def _expand(self, num_dst: int, hop: int, fanout: int, hop_key: np.uint64) -> Block:
        """The block of one hop; what it reaches joins the first `num_dst` of `self._nodes`."""
        graph = self._graph
        self._starts = _grown(self._starts, num_dst)
        self._degrees = _grown(self._degrees, num_dst)
        offsets = np.empty(num_dst + 1, dtype=np.int32)
        num_edges, is_damaged = _count(
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
        _draw(self._nodes, self._starts, self._degrees, num_dst, hop_key, offsets, self._picks)
        if self._faults is not None:
            self._faults.take(self._picks[:num_edges])
        num_src = _relabel(
            graph.indices,
            self._picks,
            num_edges,
            self._base,
            self._where,
            self._nodes,
            num_dst,
            columns,
        )
        if num_src < 0:
            raise Subject(graph.name, graph.folder).error(
                "indices", f"node ids from 0 to {graph.num_nodes - 1}", "others"
            )
        return Block(offsets, columns, num_src)

    def _start_batch(self, num_targets: int) -> None:
        # One batch meets at most num_nodes nodes; start over before positions overflow int32.
        if self._base + self._graph.num_nodes + num_targets >= _MAX_POSITION:
            self._where.fill(-1)
            self._base = 0
        self._where[self._nodes[:num_targets]] = self._base + np.arange(num_targets)


def _grown(scratch: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """`scratch`, or a larger array that begins with what it holds."""
    if len(scratch) >= size:
        return scratch
    larger = np.empty(size * 5 // 4, dtype=np.int64)
    larger[: len(scratch)] = scratch
    return larger
