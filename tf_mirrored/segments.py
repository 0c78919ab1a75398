"""A block's edges reversed, as the segments that TensorFlow's kernels want, in Numba.

A layer reads the states of its nodes beside the mean of their neighbours', `[num_dst, 2 * width]`.
Seen as `[2 * num_dst, width]`, row 2i of the gradient belongs to node i itself, row 2i + 1 to its
neighbours, and the gradient of the states below is one segment sum over such rows. TensorFlow has
one of its own, which with the parts cut apart and added up again takes three times as long.
"""

from __future__ import annotations

import numpy as np

from gnn_core.compiled import njit

# mypy: disable-error-code="no-untyped-def"


@njit(nogil=True, cache=True)
def backward_edges(offsets, columns, num_src):
    """For each source the rows of the gradient that it gets.

    Args:
        offsets: int32 `[num_dst + 1]`.
        columns: int32 `[num_edges]`.
        num_src: number of sources, the first of which are the destinations.

    Returns:
        int32 rows `[num_dst + num_edges]` among the 2 * num_dst, and int32 segments beside them:
        sources, ascending.
    """
    num_dst = len(offsets) - 1
    fill = np.zeros(num_src + 1, dtype=np.int64)
    for edge in range(len(columns)):
        fill[columns[edge] + 1] += 1
    for source in range(num_src):
        fill[source + 1] += fill[source] + (1 if source < num_dst else 0)
    rows = np.empty(num_dst + len(columns), dtype=np.int32)
    segments = np.empty(len(rows), dtype=np.int32)
    for source in range(num_src):
        segments[fill[source] : fill[source + 1]] = source
    for i in range(num_dst):
        rows[fill[i]] = 2 * i
        fill[i] += 1
    for i in range(num_dst):
        for edge in range(offsets[i], offsets[i + 1]):
            source = columns[edge]
            rows[fill[source]] = 2 * i + 1
            fill[source] += 1
    return rows, segments


def gradient_shares(offsets, real):
    """What of a row's gradient each of the states gets that it is the mean of: 1 or 1 / degree.

    Args:
        offsets: int32 `[num_dst + 1]`.
        real: NumPy dtype.

    Returns:
        `[2 * num_dst, 1]`.
    """
    found = np.ones((len(offsets) - 1, 2), real)
    found[:, 1] /= np.maximum(np.diff(offsets), 1)
    return found.reshape(-1, 1)
