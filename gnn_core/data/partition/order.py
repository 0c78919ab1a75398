"""The order of a partition's rows: part by part, and within a part the most often read nodes first.

A cache of a part's hottest rows is then its first rows, and pages on disk are dense with them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.checks import index_dtype
from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import damage_reported, require_row

_LEVELS = 256


def degree_heat(graph: Graph) -> npt.NDArray[np.uint8]:
    """How often a node is read, as a level of 0 .. 255 by its degree: uint8 `[N]`."""
    with damage_reported(graph):
        heat: npt.NDArray[np.uint8] = _degree_levels(graph.indptr, len(graph.indices))
    return heat


def places_of(
    parts: npt.NDArray[np.unsignedinteger], heat: npt.NDArray[np.uint8], num_parts: int
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.int64]]:
    """Each node's row in part order, and where the parts begin.

    Args:
        parts: `[N]`, each in 0 .. num_parts - 1.
        heat: `[N]`; within a part larger ones come first, equal ones in order of their ids.
        num_parts: k.

    Returns:
        int32 `[N]` (int64 from 2**31 nodes), a permutation; int64 `[k + 1]`.
    """
    counts = np.zeros((num_parts, _LEVELS), np.int64)
    _count_levels(parts, heat, counts)
    starts = (np.cumsum(counts.ravel()) - counts.ravel()).reshape(counts.shape)
    place = np.empty(len(parts), index_dtype(len(parts)))
    offsets = np.append(starts[:, 0], len(parts))
    _fill_places(parts, heat, starts, place)
    return place, offsets


@njit(cache=True, nogil=True)
def _degree_levels(indptr, num_indices):  # type: ignore[no-untyped-def]
    heat = np.empty(len(indptr) - 1, np.uint8)
    for node in range(len(heat)):
        require_row(indptr[node], indptr[node + 1], num_indices)
        heat[node] = min(255, int(np.log2(indptr[node + 1] - indptr[node] + 1) * 8))
    return heat


@njit(cache=True, nogil=True)
def _count_levels(parts, heat, counts):  # type: ignore[no-untyped-def]
    for node in range(len(parts)):
        counts[parts[node], 255 - heat[node]] += 1


@njit(cache=True, nogil=True)
def _fill_places(parts, heat, starts, place):  # type: ignore[no-untyped-def]
    for node in range(len(parts)):
        part, level = parts[node], 255 - heat[node]
        place[node] = starts[part, level]
        starts[part, level] += 1
