"""PartTopology: the adjacency rows of the parts that a rank holds, and draws from all others.

The rank that owns a node draws its neighbours, with the key of the rank that asks: what is drawn
depends on neither. How many neighbours each node has is known on every rank (`indptr`), so that
only ids are sent: of the nodes asked for, and of their neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.batch import Block
from gnn_core.data.checks import Subject, index_dtype
from gnn_core.data.exchange import Counters, Transport
from gnn_core.data.graph import Graph
from gnn_core.data.partition.folder import Partition, part_name, spans_of
from gnn_core.data.sampler import count_rows, draw_rows
from gnn_core.usage import UsageError

IntArray = npt.NDArray[np.int64]
IdArray = npt.NDArray[np.integer]
_AGAIN = "write the partition again (python -m gnn_core.data.partition, --overwrite)"
_ALL = -1
_NO_KEY = np.uint64(0)  # where all neighbours are taken
_MOST_EDGES = 2**31 - 1  # of a block, whose offsets are int32; and MPI counts in 31 bits
_MARKED_NODES = 1 << 16  # whose neighbours are in memory at once


class PartTopology:
    """Neighbours of any node, drawn by the rank that owns it.

    Args:
        graph: whose `indptr` and ids these are; its `indices` are not read.
        partition: of it, written with its topology.
        held: the parts that this rank reads itself, at least those that it owns.
        rank: this rank.
        bounds: int64 `[ranks + 1]`: rank r owns the places bounds[r] .. bounds[r + 1] - 1.
        window: steps whose neighbours are drawn together.

    Raises:
        UsageError: a part has other numbers of neighbours than the graph.
    """

    def __init__(
        self,
        graph: Graph,
        partition: Partition,
        held: Iterable[int],
        rank: int,
        bounds: IntArray,
        window: int = 8,
    ):
        self.num_nodes, self.window = graph.num_nodes, window
        self.transport: Transport | None = None  # to the ranks that draw for all other parts
        self.counters = Counters()
        self.stands_in = False  # a node of another rank's part stands for its neighbours
        self._name, self._folder = graph.name, partition.folder
        self._indptr, self._place = graph.indptr, partition.place
        self._offsets, self._rank, self._bounds = partition.offsets, rank, bounds
        self._index = index_dtype(graph.num_nodes)
        self._rows = {part: partition.part_topology(part) for part in held}
        self._is_held = np.isin(np.arange(partition.num_parts), list(self._rows))
        for part, (indptr, _) in self._rows.items():
            first = int(self._offsets[part])
            if not _has_degrees(self._indptr, self._place, first, indptr):
                raise self._damaged(part)

    # --- drawing --------------------------------------------------------------------------------

    def draw(
        self, nodes: Sequence[IntArray], fanout: int, keys: Sequence[np.uint64], counters: Counters
    ) -> list[tuple[IntArray, IdArray]]:
        """Neighbours of the nodes of several steps, as `Sampler` draws them.

        Collective where other ranks hold parts: all bring as many steps, and the same fan-out.

        Args:
            nodes: of each step, distinct ids `[n]`.
            fanout: neighbours of a node; -1 takes all.
            keys: of each step, for this hop.
            counters: are added to.

        Returns:
            Of each step, offsets `[n + 1]` and the ids of the neighbours `[offsets[n]]`.

        Raises:
            UsageError: a step draws more than 2**31 - 1 edges, or a file is damaged.
        """
        steps = np.repeat(np.arange(len(nodes)), [len(one) for one in nodes])
        ids = np.concatenate([np.empty(0, np.int64), *nodes])
        counts = self._counts(ids, fanout)
        ends = np.concatenate([[0], np.cumsum(counts)])
        cuts = np.cumsum([0, *(len(one) for one in nodes)])
        self._require_few(np.diff(ends[cuts]), "a hop of one batch")
        found = np.empty(int(ends[-1]), self._index)
        is_held = self._is_held[self._parts_of(self._place[ids].astype(np.int64))]
        for step, key in enumerate(keys):
            own = cuts[step] + np.flatnonzero(is_held[cuts[step] : cuts[step + 1]])
            self._draw_held(ids[own], fanout, key, ends[own], found)
        others = np.flatnonzero(~is_held)
        if self.stands_in:
            alike = np.repeat(ids[others], counts[others])
            _put_runs(alike, ends[others], counts[others], found)
        elif self.transport is not None:
            start = time.perf_counter()
            answer = self._ask(ids[others], steps[others], fanout, keys, counts[others], counters)
            _put_runs(answer, ends[others], counts[others], found)
            counters.sampling_seconds += time.perf_counter() - start
        elif len(others):
            raise RuntimeError("expected all parts, since no ranks are joined that have others")
        return [
            (ends[first : last + 1] - ends[first], found[ends[first] : ends[last]])
            for first, last in zip(cuts[:-1], cuts[1:], strict=True)
        ]

    def _ask(
        self,
        ids: IntArray,
        steps: IntArray,
        fanout: int,
        keys: Sequence[np.uint64],
        counts: IntArray,
        counters: Counters,
    ) -> IdArray:
        """The neighbours of nodes of other ranks, in the order of the nodes, by three collectives.

        The first says how many nodes are asked for in each step, and with which key.
        """
        transport = self.transport
        assert transport is not None
        world, num_steps = transport.world_size, len(keys)
        owners = spans_of(self._place[ids].astype(np.int64), self._bounds)
        order = np.argsort(owners, kind="stable")  # of one owner: step after step, as they are
        table = np.zeros((world, num_steps, 2), np.int64)
        asked = np.bincount(owners * num_steps + steps, minlength=world * num_steps)
        table[:, :, 0] = asked.reshape(world, num_steps)
        table[:, :, 1] = np.array(keys, np.uint64).view(np.int64)
        self._require_few(counts.sum() * world, "what is asked for in a window")
        ones = np.ones(world, np.int64)
        told = self._alltoall(table.reshape(world, -1), ones, ones, counters).view(np.int64)
        told = told.reshape(table.shape)
        sent, wanted = table[:, :, 0].sum(axis=1), told[:, :, 0].sum(axis=1)
        rows = ids[order].astype(self._index).reshape(-1, 1)
        theirs = self._alltoall(rows, sent, wanted, counters).view(self._index).ravel()
        drawn, ends = self._answer(theirs.astype(np.int64), told, fanout)
        mine = np.concatenate([[0], np.cumsum(counts[order])])
        found = self._alltoall(
            drawn.reshape(-1, 1), _sums(ends, wanted), _sums(mine, sent), counters
        )
        answer = np.empty(len(found), self._index)
        # Where the neighbours of each node are to be, in the order of the nodes.
        firsts = (np.cumsum(counts) - counts)[order]
        _put_runs(found.view(self._index).ravel(), firsts, counts[order], answer)
        counters.sampling_rounds += 1
        counters.sampled_nodes += len(ids)
        return answer

    def _answer(self, ids: IntArray, told: IntArray, fanout: int) -> tuple[IdArray, IntArray]:
        """Draw for other ranks: the neighbours, and where those of each node end."""
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.num_nodes:
            raise RuntimeError(f"asked for nodes that are not in 0 .. {self.num_nodes - 1}")
        places = self._place[ids].astype(np.int64)
        first, end = self._bounds[self._rank : self._rank + 2]
        if len(places) and not first <= places.min() <= places.max() < end:
            raise RuntimeError("asked for neighbours of nodes that are not of this rank")
        ends = np.concatenate([[0], np.cumsum(self._counts(ids, fanout))])
        drawn = np.empty(int(ends[-1]), self._index)
        begin = 0
        for count, key in told.reshape(-1, 2):
            asked = slice(begin, begin := begin + int(count))
            self._draw_held(ids[asked], fanout, np.int64(key).view(np.uint64), ends[asked], drawn)
        return drawn, ends

    def _draw_held(
        self, ids: IntArray, fanout: int, key: np.uint64, firsts: IntArray, out: IdArray
    ) -> None:
        """Write neighbours of nodes of held parts to `out`, those of node i from firsts[i] on."""
        places = self._place[ids].astype(np.int64)
        parts = self._parts_of(places)
        for part in np.unique(parts).tolist():
            indptr, indices = self._rows[part]
            where = np.flatnonzero(parts == part)
            starts, degrees = np.empty((2, len(where)), np.int64)
            offsets = np.empty(len(where) + 1, np.int32)
            rows = places[where] - self._offsets[part]
            total, is_damaged = count_rows(
                indptr, len(indices), rows, len(where), fanout, starts, degrees, offsets
            )
            if is_damaged or (degrees != self._counts(ids[where], _ALL)).any():
                raise self._damaged(part)
            picks = np.empty(total, np.int64)
            draw_rows(ids[where], starts, degrees, len(where), key, offsets, picks)
            _put_runs(np.asarray(indices[picks]), firsts[where], np.diff(offsets), out)

    def _counts(self, ids: IntArray, fanout: int) -> IntArray:
        """How many neighbours are drawn for each node."""
        degrees: IntArray = self._indptr[ids + 1] - self._indptr[ids]
        return degrees if fanout < 0 else np.minimum(degrees, fanout)

    def _parts_of(self, places: IntArray) -> IntArray:
        parts: IntArray = spans_of(places, self._offsets)
        return parts

    def _require_few(self, edges: IntArray | np.int64, what: str) -> None:
        if np.max(edges, initial=0) > _MOST_EDGES:
            raise UsageError(
                f"{what} holds {np.max(edges):,} edges, the limit is {_MOST_EDGES:,}: lower "
                "--global-batch-size, --fanouts or --fetch-window"
            )

    def _damaged(self, part: int) -> UsageError:
        subject = Subject(self._name, self._folder / part_name(part), _AGAIN)
        return subject.error("indptr", "as many neighbours of each node as in the graph", "others")

    def _alltoall(
        self, rows: npt.NDArray, sent: IntArray, received: IntArray, counters: Counters
    ) -> npt.NDArray[np.uint8]:
        assert self.transport is not None
        flat = np.ascontiguousarray(rows).view(np.uint8)
        counters.sampling_bytes += int(sent.sum() - sent[self._rank]) * flat.shape[1]
        return self.transport.alltoall(flat, sent, received)

    # --- whole neighbourhoods of nodes of held parts, for exact evaluation -----------------------

    def all_neighbours(self, ids: IntArray) -> tuple[Block, IntArray]:
        """See `gnn_core.data.neighbourhood.all_neighbours`; the nodes are of held parts."""
        offsets, found = self._all(ids)
        nodes = np.concatenate([ids, found.astype(np.int64)])
        columns = np.arange(len(ids), len(nodes), dtype=np.int32)
        return Block(offsets.astype(np.int32), columns, len(nodes)), nodes

    def mark_neighbours(self, ids: IntArray, mask: npt.NDArray[np.bool_]) -> None:
        """Set `mask` `[N]` for all neighbours of those of the nodes that this rank owns."""
        first, end = self._bounds[self._rank : self._rank + 2]
        places = self._place[ids]
        own = ids[(places >= first) & (places < end)]
        for begin in range(0, len(own), _MARKED_NODES):
            mask[self._all(own[begin : begin + _MARKED_NODES])[1]] = True

    def shares(self, ids: IntArray) -> IntArray:
        """Bounds int64 `[ranks + 1]` that cut ids in part order into what each rank owns."""
        cuts: IntArray = np.searchsorted(self._place[ids], self._bounds)
        return cuts

    def _all(self, ids: IntArray) -> tuple[IntArray, IdArray]:
        ends = np.concatenate([[0], np.cumsum(self._counts(ids, _ALL))])
        self._require_few(ends[-1] + len(ids), "a part of the nodes that are evaluated")
        found = np.empty(int(ends[-1]), self._index)
        self._draw_held(ids, _ALL, _NO_KEY, ends, found)
        if len(found) and not 0 <= found.min() <= found.max() < self.num_nodes:
            raise self.wrong_ids()
        return ends, found

    def wrong_ids(self) -> UsageError:
        """The error of ids that no node has."""
        subject = Subject(self._name, self._folder / "part-*", _AGAIN)
        return subject.error("indices", f"node ids from 0 to {self.num_nodes - 1}", "others")


def _sums(ends: IntArray, counts: IntArray) -> IntArray:
    """Of consecutive groups of items, whose numbers are `counts`, what their items add up to.

    `ends` `[items + 1]` are the items' cumulated sizes, from 0.
    """
    sums: IntArray = np.diff(ends[np.concatenate([[0], np.cumsum(counts)])])
    return sums


@njit(cache=True, nogil=True)
def _has_degrees(indptr, place, first, part_indptr):  # type: ignore[no-untyped-def]
    """Whether the rows of a part, whose first place is `first`, are as long as in the graph."""
    for node in range(len(place)):
        row = place[node] - first
        if 0 <= row < len(part_indptr) - 1:
            if part_indptr[row + 1] - part_indptr[row] != indptr[node + 1] - indptr[node]:
                return False
    return True


@njit(cache=True, nogil=True)
def _put_runs(source, firsts, counts, out):  # type: ignore[no-untyped-def]
    """Copy runs of `source`, one after the other, of counts[i] elements, to firsts[i] in `out`."""
    at = 0
    for i in range(len(counts)):
        to = firsts[i]
        for _ in range(counts[i]):
            out[to] = source[at]
            to += 1
            at += 1
