"""Keyed dropout: which features of a node are dropped depends on step and node, not on the rank.

With a framework's own dropout every rank draws another mask, so a run on four ranks trains on other
masks than a run on one, and on a CPU drawing them takes a third of a training step. Here 16 bits
that are a function of (key, node, feature) decide, so curves agree on any number of ranks, and in
every framework, with dropout on.
"""

from __future__ import annotations

import numpy as np

from gnn_core.compiled import njit
from gnn_core.seeding import GOLDEN_GAMMA, mix, splitmix64

# mypy: disable-error-code="no-untyped-def"

LEVELS = 65536
_GAMMA = np.uint64(GOLDEN_GAMMA)


def dropout_threshold(probability: float) -> int:
    """The probability (0 <= p < 1) in units of 1/65536, to the nearest: 1 .. 65535, 0 for 0."""
    return min(max(1, round(probability * LEVELS)), LEVELS - 1) if probability > 0 else 0


@njit(nogil=True, cache=True, inline="always")
def draw(key, node, bits):
    """Fill `bits` uint64 `[ceil(width / 4)]`: 16 random bits for each feature of a node."""
    state = mix(key, np.uint64(node))
    for k in range(len(bits)):
        bits[k] = splitmix64(state + np.uint64(k + 1) * _GAMMA)


@njit(nogil=True, cache=True, inline="always")
def lane(state, feature):
    """The 16 bits that `draw` has for one feature; `state` is `mix(key, node)`."""
    word = splitmix64(state + np.uint64(feature // 4 + 1) * _GAMMA)
    return np.int32((word >> np.uint64(16 * (feature % 4))) & np.uint64(0xFFFF))


@njit(nogil=True, cache=True)
def dropout_factors(nodes, key, threshold, out):
    """What dropout multiplies features by: 0 or, for those that it keeps, 1 / (1 - p).

    Feature j of node v is kept when 16 bits, a function of (key, v, j), reach `threshold`; so a
    node's mask is the same on every rank that computes it.

    Args:
        nodes: int64 `[n]`, global ids of the rows.
        key: uint64, of this step and layer.
        threshold: 1 .. 65535; a feature is dropped with probability p = threshold / 65536.
        out: `[n, width]`, filled.
    """
    width = out.shape[1]
    bits = np.empty((width + 3) // 4, dtype=np.uint64)
    lanes = bits.view(np.uint16)
    zero = out.dtype.type(0)
    scale = out.dtype.type(65536.0 / (65536.0 - threshold))
    least = np.int32(threshold)
    for i in range(len(nodes)):
        draw(key, nodes[i], bits)
        row = out[i]
        for j in range(width):
            row[j] = zero if np.int32(lanes[j]) < least else scale
