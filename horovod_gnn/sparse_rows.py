"""Layer 1 on a sparse table of features: rows are multiplied first, and their products aggregated.

A bag of words has some dozens of numbers in a row of thousands. Its product with the weights costs
as many multiplications as it has numbers, and what is aggregated is as narrow as the layer's output
is. The sums are those of dense features with their terms in another order: they differ by rounding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gnn_core.compiled import njit
from gnn_core.data.batch import Block
from gnn_core.data.features import SparseFeatures
from gnn_core.dropout import LEVELS, lane
from gnn_core.seeding import mix
from horovod_gnn.arithmetic import Arithmetic

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


class SparseInput:
    """The rows of a sparse table that a block reads, and what layer 1 makes of them.

    Args:
        table: `[num_rows, width]`.
        rows: int64 `[num_src]`, the table row of each source.
        nodes: int64 `[num_src]`, the global id of each source, for dropout.
        block: the edges of layer 1.
        mean: average the neighbours (else add them up).
        dropout: threshold, of 65536, and 64-bit key of input dropout; a threshold of 0 drops none.
        arithmetic: in which type it multiplies and adds.
    """

    def __init__(
        self,
        table: SparseFeatures,
        rows: np.ndarray,
        nodes: np.ndarray,
        block: Block,
        mean: bool,
        dropout: tuple[int, int],
        arithmetic: Arithmetic,
    ):
        threshold, key = dropout
        rows, nodes, edge_columns = _distinct(rows, nodes, block)
        stored = table.indptr, table.columns, table.values
        taken = take_rows(*stored, rows, nodes, np.uint64(key), threshold)
        self._offsets, self._columns, kept = taken
        values = torch.from_numpy(kept).to(arithmetic.accumulator) * (LEVELS / (LEVELS - threshold))
        self._values = arithmetic.operand(values).to(arithmetic.accumulator).numpy()
        self._width, self._arithmetic = table.num_columns, arithmetic
        self._edges = (block.offsets, edge_columns, mean)
        self._num_src, self._num_dst = len(rows), block.num_dst

    def product(self, weight: Tensor) -> Tensor:
        """W_self times each destination's row plus W_neigh times its aggregated neighbours.

        Args:
            weight: `[out, 2 * width]`, an operand.

        Returns:
            `[num_dst, out]`, in the accumulator's type.
        """
        dtype, out = self._arithmetic.accumulator, len(weight)
        halves = weight.to(dtype).view(out, 2, self._width).permute(1, 2, 0).contiguous().numpy()
        sums = torch.empty(self._num_dst, out, dtype=dtype)
        products = torch.empty(self._num_src, out, dtype=dtype)
        multiply(self._offsets, self._columns, self._values, halves[0], sums.numpy())
        multiply(self._offsets, self._columns, self._values, halves[1], products.numpy())
        add_neighbours(*self._edges, products.numpy(), sums.numpy())
        return sums

    def weight_gradient(self, grad: Tensor) -> Tensor:
        """The gradient of the weight `[out, 2 * width]` from that of `product`, an operand."""
        dtype, out = self._arithmetic.accumulator, grad.shape[1]
        own = grad.to(dtype).contiguous()
        back = torch.zeros(self._num_src, out, dtype=dtype)
        spread(*self._edges, own.numpy(), back.numpy())
        halves = torch.zeros(2, self._width, out, dtype=dtype)
        for half, rows in zip(halves, (own, back), strict=True):
            add_transposed(self._offsets, self._columns, self._values, rows.numpy(), half.numpy())
        return halves.permute(2, 0, 1).reshape(out, 2 * self._width)


def _distinct(
    rows: np.ndarray, nodes: np.ndarray, block: Block
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and nodes with none twice, destinations first, and which of them each edge comes from.

    Evaluation has a source for every edge; to multiply each row once takes as much less time as
    nodes have neighbours.
    """
    if len(block.columns) != block.num_src - block.num_dst:  # the sampler's are distinct
        return rows, nodes, block.columns
    _, firsts, places = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    kept = firsts[order]
    if not np.array_equal(kept[: block.num_dst], np.arange(block.num_dst)):
        return rows, nodes, block.columns  # a destination that is there twice
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return rows[kept], nodes[kept], ranks[places][block.columns]


@njit(nogil=True, cache=True)
def take_rows(indptr, columns, values, rows, nodes, key, threshold):
    """Copy rows of a sparse table, without what dropout drops; nothing is scaled up.

    Args:
        indptr: int64 `[num_rows + 1]`, of the table as are `columns` and `values`.
        columns: int32 `[K]`, ascending within a row.
        values: float32 `[K]`.
        rows: int64 `[n]`.
        nodes: int64 `[n]`, the global id of each row.
        key: uint64, of this step.
        threshold: a number is dropped with probability threshold / 65536.

    Returns:
        The same three arrays for the rows taken.
    """
    most = 0
    for i in range(len(rows)):
        most += indptr[rows[i] + 1] - indptr[rows[i]]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    kept_columns = np.empty(most, dtype=np.int32)
    kept_values = np.empty(most, dtype=np.float32)
    end = 0
    for i in range(len(rows)):
        state = mix(key, np.uint64(nodes[i]))
        for k in range(indptr[rows[i]], indptr[rows[i] + 1]):
            if threshold == 0 or lane(state, columns[k]) >= threshold:
                kept_columns[end] = columns[k]
                kept_values[end] = values[k]
                end += 1
        offsets[i + 1] = end
    return offsets, kept_columns[:end], kept_values[:end]


@njit(nogil=True, cache=True)
def multiply(offsets, columns, values, weight, out):
    """Fill `out` `[n, width]` with the first n sparse rows times `weight` `[F, width]`."""
    for i in range(out.shape[0]):
        row = out[i]
        row[:] = 0
        for k in range(offsets[i], offsets[i + 1]):
            value = values[k]
            factors = weight[columns[k]]
            for j in range(len(row)):
                row[j] += value * factors[j]


@njit(nogil=True, cache=True)
def add_transposed(offsets, columns, values, rows, total):
    """Add to `total` `[F, width]` the first n sparse rows, transposed, times `rows` `[n, .]`."""
    for i in range(rows.shape[0]):
        row = rows[i]
        for k in range(offsets[i], offsets[i + 1]):
            value = values[k]
            into = total[columns[k]]
            for j in range(len(row)):
                into[j] += value * row[j]


@njit(nogil=True, cache=True)
def add_neighbours(offsets, columns, mean, states, total):
    """Add to each destination's row of `total` the mean (else sum) of its neighbours' `states`.

    Args:
        offsets: int32 `[num_dst + 1]`.
        columns: int32 `[num_edges]`.
        mean: divide by the degree.
        states: `[num_src, width]`.
        total: `[num_dst, width]`.
    """
    real = total.dtype.type
    gathered = np.empty(total.shape[1], dtype=total.dtype)
    for i in range(total.shape[0]):
        gathered[:] = 0
        for edge in range(offsets[i], offsets[i + 1]):
            state = states[columns[edge]]
            for j in range(len(gathered)):
                gathered[j] += state[j]
        degree = offsets[i + 1] - offsets[i]
        scale = real(1) / real(degree) if mean and degree > 1 else real(1)
        row = total[i]
        for j in range(len(gathered)):
            row[j] += gathered[j] * scale


@njit(nogil=True, cache=True)
def spread(offsets, columns, mean, grad, total):
    """The reverse of `add_neighbours`: `grad` `[num_dst, width]` to `total` `[num_src, width]`."""
    real = total.dtype.type
    for i in range(grad.shape[0]):
        degree = offsets[i + 1] - offsets[i]
        scale = real(1) / real(degree) if mean and degree > 1 else real(1)
        row = grad[i]
        for edge in range(offsets[i], offsets[i + 1]):
            into = total[columns[edge]]
            for j in range(len(row)):
                into[j] += row[j] * scale
