"""WindowSampler: the blocks of several batches at once, hop by hop, of adjacency in parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnn_core.data.batch import Block
from gnn_core.data.exchange import Counters
from gnn_core.data.part_topology import IdArray, IntArray, PartTopology
from gnn_core.data.positions import positions_of
from gnn_core.seeding import mix

Sampled = tuple[tuple[Block, ...], IntArray]


class WindowSampler:
    """Draws what `Sampler` draws with the same keys; the ranks exchange once a hop.

    Args:
        topology: where the neighbours are.
        fanouts: neighbours per node and hop, from the targets outward; -1 takes all of them.
        counters: what is asked of other ranks is added to them.
    """

    def __init__(self, topology: PartTopology, fanouts: tuple[int, ...], counters: Counters):
        self._topology, self._fanouts, self._counters = topology, fanouts, counters
        self._positions = positions_of(topology.num_nodes)
        self.window = topology.window  # batches that are drawn together

    def sample(self, targets: Sequence[IntArray], keys: Sequence[int]) -> list[Sampled]:
        """Of each batch the blocks (input layer first) and the ids of the input nodes.

        Collective, as `PartTopology.draw` is.

        Args:
            targets: of each batch, int64 `[T]`, distinct ids.
            keys: of each batch, 64 bits.

        Raises:
            UsageError: a block would hold more than 2**31 - 1 edges, or a file is damaged.
        """
        nodes = list(targets)
        blocks: list[list[Block]] = [[] for _ in nodes]
        for hop, fanout in enumerate(self._fanouts):
            hop_keys = [np.uint64(mix(np.uint64(key), np.uint64(hop))) for key in keys]
            drawn = self._topology.draw(nodes, fanout, hop_keys, self._counters)
            for step, (offsets, ids) in enumerate(drawn):
                block, nodes[step] = self._block(nodes[step], offsets, ids)
                blocks[step].append(block)
        return [(tuple(reversed(made)), found) for made, found in zip(blocks, nodes, strict=True)]

    def _block(self, nodes: IntArray, offsets: IntArray, ids: IdArray) -> tuple[Block, IntArray]:
        """The block of one hop, and the nodes that have been met, `nodes` first."""
        met = np.empty(len(nodes) + len(ids) + 1, np.int64)
        met[: len(nodes)] = nodes
        columns = np.empty(len(ids), np.int32)
        self._positions.start(nodes)
        num_src = self._positions.relabel(
            ids, np.arange(len(ids)), len(ids), met, len(nodes), columns
        )
        if num_src < 0:
            raise self._topology.wrong_ids()
        return Block(offsets.astype(np.int32), columns, num_src), met[:num_src].copy()
