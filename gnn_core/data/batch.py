"""Block and Batch: the one pair of types that crosses from the data side into a framework."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Block:
    """One bipartite layer of message passing in CSR, its edges grouped by destination.

    The destinations *are* the first `num_dst` sources, so a layer finds a node's own state and its
    neighbours' states in one table, and mean aggregation is a segment operation, never a scatter.
    """

    offsets: npt.NDArray[np.int32]  # [num_dst + 1], offsets[0] == 0, offsets[-1] == num_edges
    columns: npt.NDArray[np.int32]  # [num_edges], positions among the sources
    num_src: int

    @property
    def num_dst(self) -> int:
        """Number of destination nodes."""
        return len(self.offsets) - 1

    @property
    def num_edges(self) -> int:
        """Number of sampled edges."""
        return len(self.columns)


@dataclass(frozen=True)
class Common:
    """Common neighbours of those of n x k pairs, counted row by row, that have any."""

    pairs: npt.NDArray[np.int64]  # [R], ascending: places of such pairs
    segments: npt.NDArray[np.int64]  # [E], ascending: whose each neighbour is, a place in `pairs`
    nodes: npt.NDArray[np.int64]  # [E], global ids; in a batch, positions among the targets
    weights: npt.NDArray[np.float32]  # [E], 1 / logarithm of their links, as Adamic-Adar has it

    def first(self, count: int) -> Common:
        """Those of the first `count` pairs."""
        kept = int(np.searchsorted(self.pairs, count))
        end = int(np.searchsorted(self.segments, kept))
        return Common(self.pairs[:kept], self.segments[:end], self.nodes[:end], self.weights[:end])


@dataclass(frozen=True)
class Pairs:
    """Edges and non-edges to distinguish, by the positions of their ends among the targets."""

    sources: npt.NDArray[np.int64]  # [num_pairs], citing papers
    destinations: npt.NDArray[np.int64]  # [num_pairs], whom they cite
    negatives: npt.NDArray[np.int64]  # [num_pairs, K], other papers for each
    # [num_pairs, 1 + K, S] of each destination and its negatives, if the predictor reads it
    structure: npt.NDArray[np.float32] | None = None
    # Of the pairs [num_pairs, 1], and of those with negatives [num_pairs, K], if it reads them
    common: tuple[Common, Common] | None = None


@dataclass(frozen=True)
class Batch:
    """What one rank computes in one step: blocks from the input layer to the targets.

    Every array describes this rank's share of a *global* batch. The first `num_real` targets (for
    link prediction: pairs) count, maybe none; what follows is padding (no rank is ever without
    work) and must not enter loss or metric.
    """

    blocks: tuple[Block, ...]  # blocks[0] reads the features, blocks[-1] ends at the targets
    input_nodes: npt.NDArray[np.int64]  # [blocks[0].num_src], global ids, targets first
    targets: npt.NDArray[np.int64]  # [blocks[-1].num_dst], global ids
    labels: npt.NDArray[np.int32]  # [len(targets)], -1 where the graph has no label
    num_real: int  # targets, or pairs, of this rank that are not padding
    num_global_real: int  # the same over all ranks: what a gradient is divided by
    epoch: int
    step: int  # within the epoch
    key: int  # 64-bit key of this step, for randomness in the model (dropout)
    sample_seconds: float = 0.0  # time spent drawing this batch, in whichever thread did it
    sampled_at: float = 0.0  # when that had passed, by `time.perf_counter`
    pairs: Pairs | None = None  # of link prediction

    @property
    def num_edges(self) -> int:
        """Sampled edges over all blocks."""
        return sum(block.num_edges for block in self.blocks)

    @property
    def num_bytes(self) -> int:
        """Of the blocks and the input nodes, which are most of it."""
        arrays = [array for block in self.blocks for array in (block.offsets, block.columns)]
        return self.input_nodes.nbytes + sum(array.nbytes for array in arrays)
