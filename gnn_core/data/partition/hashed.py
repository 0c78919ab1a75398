"""Parts by a hash of the node's id: balanced, cheap, and blind to edges; where `refine` begins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.seeding import below, mix, stream

Parts = npt.NDArray[np.unsignedinteger]
"""The part of each node: uint8 `[N]`, uint16 from 257 parts."""


def part_dtype(num_parts: int) -> np.dtype[np.unsignedinteger]:
    """The dtype of `Parts`."""
    return np.dtype(np.uint8 if num_parts <= 256 else np.uint16)


def hash_parts(num_nodes: int, num_parts: int, seed: int) -> Parts:
    """A pseudo-random part for each node, a pure function of (seed, node, num_parts)."""
    parts: Parts = np.empty(num_nodes, part_dtype(num_parts))
    _draw(stream(seed, "partition"), np.uint32(num_parts), parts)
    return parts


@njit(cache=True, nogil=True)
def _draw(key, num_parts, parts):  # type: ignore[no-untyped-def]
    for node in range(len(parts)):
        parts[node] = below(mix(key, np.uint64(node)), num_parts)
