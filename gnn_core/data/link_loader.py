"""The shared loader of link prediction: training edges as targets, each with keyed negatives.

It is the loader of node classification with edges for nodes: the same order, the same slices, the
same neighbours whoever asks. The negatives of an edge are a pure function of the step and of the
edge, and which edges are hidden one of the step, so that ranks agree here too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gnn_core import seeding
from gnn_core.compiled import njit
from gnn_core.data.batch import Batch, Block, Common, Pairs
from gnn_core.data.checks import index_dtype
from gnn_core.data.feature_store import FeatureStore
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Assign, IdArray, IntArray, Loader, equal_slices
from gnn_core.data.pair_structure import PairStructure
from gnn_core.seeding import below, mix

_MOST_DRAWS = 64  # of one negative: among the oldest papers few are not newer


class LinkLoader(Loader):
    """Iterates `Batch` with `pairs` for one rank over the training edges of a graph.

    Args:
        graph: with `train_edges`.
        fanouts: as in `Loader`, and so are all that are not explained here.
        global_batch_size: edges per step over all ranks.
        negatives: papers that each edge's own destination is distinguished from.
        shared_negatives: all edges of a step have the same ones, which costs less.
        hide_targets: no message passes along an edge of the step, in either direction: what is
            to be predicted is then not to be seen.
        pool: the negatives of a step are drawn from this many papers, drawn anew in each step, so
            that it has fewer targets; 0: from all.
        dated: the negatives of an edge are not newer than its citing paper, where years are known.
        structure: of pairs, if each batch is to have it.
        edges_per_epoch: of this many edges, drawn anew each time, an epoch consists; 0 is all.
    """

    def __init__(
        self,
        graph: Graph,
        fanouts: tuple[int, ...],
        global_batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 2,
        assign: Assign = equal_slices,
        store: FeatureStore | None = None,
        negatives: int = 1,
        shared_negatives: bool = False,
        pool: int = 0,
        hide_targets: bool = False,
        dated: bool = False,
        structure: PairStructure | None = None,
        edges_per_epoch: int = 0,
    ):
        super().__init__(
            graph,
            "train",
            fanouts,
            global_batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            prefetch=prefetch,
            assign=assign,
            store=store,
        )
        assert graph.train_edges is not None
        self._edges = graph.train_edges
        self._negatives = negatives
        self._shared = shared_negatives
        self._pool = pool
        self._hide = hide_targets
        self._structure = structure
        years = graph.years if dated else None
        self._years = np.zeros(graph.num_nodes, np.int32) if years is None else np.asarray(years)
        self._per_epoch = min(edges_per_epoch or len(self._edges), len(self._edges))

    @property
    def num_targets(self) -> int:
        """Edges in one epoch, over all ranks."""
        return self._per_epoch

    def _find_items(self) -> IdArray:
        assert self._graph.train_edges is not None
        count = len(self._graph.train_edges)
        return np.arange(count, dtype=index_dtype(count))

    def _order(self, epoch: int) -> IdArray:
        return super()._order(epoch)[: self._per_epoch]

    def _made(
        self, mine: IntArray, everyones: IntArray, num_real: int, epoch: int, step: int
    ) -> Batch:
        ends = np.asarray(self._edges[mine], np.int64)
        key = np.uint64(seeding.key(self._seed, "negatives", epoch, step))
        drawn = np.empty((1 if self._shared else len(mine), self._negatives), np.int64)
        pool = np.empty((1, self._pool), np.int64)
        if self._pool:
            of_pool = np.uint64(seeding.key(self._seed, "pool of negatives", epoch, step))
            _draw_negatives(mine, ends[:, 0], of_pool, True, pool[0, :0], self._years, pool)
        _draw_negatives(mine, ends[:, 0], key, self._shared, pool[0], self._years, drawn)
        everyone = np.broadcast_to(drawn, (len(mine), self._negatives))
        common = self._common(ends, everyone)
        met = [ends[:, 0], ends[:, 1], drawn.ravel(), *(part.nodes for part in common)]
        targets, places = np.unique(np.concatenate(met), return_inverse=True)
        cuts = np.cumsum([len(part) for part in met])[:-1]
        sources, destinations, negatives, *nodes = np.split(places, cuts)
        blocks, input_nodes = self._sampler.sample(targets, self._sampling_key(epoch, step))
        if self._hide:
            hidden = np.asarray(self._edges[everyones], np.int64)
            blocks = without_edges(blocks, input_nodes, hidden, self._graph.num_nodes)
        structure = None
        if self._structure is not None:
            others = np.concatenate([ends[:, 1:], everyone], axis=1)
            structure = self._structure.of(ends[:, 0], others, hides_first=True)
        return Batch(
            blocks=blocks,
            input_nodes=input_nodes,
            targets=targets,
            labels=np.full(len(targets), -1, np.int32),
            num_real=num_real,
            num_global_real=len(everyones),
            epoch=epoch,
            step=step,
            key=self._dropout_key(epoch, step),
            pairs=Pairs(
                sources=sources,
                destinations=destinations,
                negatives=np.broadcast_to(
                    negatives.reshape(drawn.shape), (len(mine), self._negatives)
                ),
                structure=structure,
                common=(
                    (replace(common[0], nodes=nodes[0]), replace(common[1], nodes=nodes[1]))
                    if common
                    else None
                ),
            ),
        )

    def _common(self, ends: IntArray, negatives: IntArray) -> tuple[Common, ...]:
        """Common neighbours of the pairs and of those with negatives, if they are read."""
        if self._structure is None or self._structure.common is None:
            return ()
        find, sources, hidden = self._structure.common.of, ends[:, 0], ends[:, 1]
        return find(sources, ends[:, 1:]), find(sources, negatives, hidden)


def without_edges(
    blocks: tuple[Block, ...], nodes: IntArray, edges: IntArray, num_nodes: int
) -> tuple[Block, ...]:
    """The blocks without `edges` `[n, 2]` (global ids), in whichever direction a message passes.

    Their sources stay, also those that nobody reads any more.
    """
    table = _hashed(edges, num_nodes)
    found = []
    for block in blocks:
        columns = np.empty_like(block.columns)
        offsets = np.empty_like(block.offsets)
        kept = _filter(block.offsets, block.columns, nodes, num_nodes, table, offsets, columns)
        found.append(Block(offsets, columns[:kept], block.num_src))
    return tuple(found)


@njit(cache=True, nogil=True)
def _draw_negatives(edges, sources, key, shared, pool, years, drawn):  # type: ignore[no-untyped-def]
    """Uniform over all papers, for each edge (or once for all) by its number and the slot's.

    Over the `pool` if it is not empty. A paper that is newer than the source is drawn again, a
    bounded number of times.
    """
    pooled = len(pool) > 0
    bound = np.uint32(len(pool) if pooled else len(years))
    for row in range(len(drawn)):
        state = key if shared else mix(key, np.uint64(edges[row]))
        for slot in range(drawn.shape[1]):
            bits = mix(state, np.uint64(slot))
            paper = np.int64(below(bits, bound))
            paper = pool[paper] if pooled else paper
            for _ in range(0 if shared else _MOST_DRAWS):
                if years[paper] <= years[sources[row]]:
                    break
                bits = mix(bits, np.uint64(slot))
                paper = np.int64(below(bits, bound))
                paper = pool[paper] if pooled else paper
            drawn[row, slot] = paper


@njit(cache=True, nogil=True)
def _pair(a, b, num_nodes):  # type: ignore[no-untyped-def]
    """One number for two nodes in either order; never 0, since an edge has two ends."""
    return a * num_nodes + b if a < b else b * num_nodes + a


@njit(cache=True, nogil=True)
def _place(pair, table):  # type: ignore[no-untyped-def]
    """Where the pair is in the hash table (open addressing), or would have to be put."""
    mask = len(table) - 1
    place = np.int64(mix(np.uint64(0), np.uint64(pair))) & mask
    while table[place] != 0 and table[place] != pair:
        place = (place + 1) & mask
    return place


@njit(cache=True, nogil=True)
def _hashed(edges, num_nodes):  # type: ignore[no-untyped-def]
    """A hash table of pairs, at most a quarter full; 0 marks a free place."""
    size = 16
    while size < 4 * len(edges):
        size *= 2
    table = np.zeros(size, np.int64)
    for i in range(len(edges)):
        pair = _pair(edges[i, 0], edges[i, 1], num_nodes)
        table[_place(pair, table)] = pair
    return table


@njit(cache=True, nogil=True)
def _filter(offsets, columns, nodes, num_nodes, table, new_offsets, new_columns):  # type: ignore[no-untyped-def]
    kept = np.int32(0)
    new_offsets[0] = 0
    for dst in range(len(offsets) - 1):
        for edge in range(offsets[dst], offsets[dst + 1]):
            pair = _pair(nodes[dst], nodes[columns[edge]], num_nodes)
            if table[_place(pair, table)] == 0:
                new_columns[kept] = columns[edge]
                kept += 1
        new_offsets[dst + 1] = kept
    return kept
