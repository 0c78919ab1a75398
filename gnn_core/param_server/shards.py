"""The parameters as one flat vector, and the shards of it that servers hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.param_server.placement import CHUNKS, chunk_bounds

Vector = npt.NDArray[np.floating[Any]]
DTYPES = ("float32", "float64")


class Shards:
    """Cuts a flat vector `[n]` into shards, and puts it together again.

    Args:
        num_parameters: n.
        chunks: of each shard, ascending; together each chunk once.
    """

    def __init__(self, num_parameters: int, chunks: Sequence[Sequence[int]]):
        if sorted(chunk for some in chunks for chunk in some) != list(range(CHUNKS)):
            raise ValueError(f"expected each of {CHUNKS} chunks in one shard")
        bounds = chunk_bounds(num_parameters)
        self.num_parameters = num_parameters
        self._slices = [
            [slice(bounds[chunk], bounds[chunk + 1]) for chunk in some] for some in chunks
        ]
        self.sizes = [sum(one.stop - one.start for one in some) for some in self._slices]

    def cut(self, flat: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """The values of each shard, `[sizes[i]]`, copied."""
        return [np.concatenate([flat[one] for one in some]) for some in self._slices]

    def join(self, shards: Sequence[Vector], into: Vector) -> None:
        """Write the values of all shards to their places in a flat vector."""
        for some, values in zip(self._slices, shards, strict=True):
            start = 0
            for one in some:
                length = one.stop - one.start
                into[one] = values[start : start + length]
                start += length


def vector_of(data: bytes, dtype: str, size: int) -> Vector:
    """The read-only vector `[size]` in the bytes of a message. ValueError for other bytes."""
    if dtype not in DTYPES:
        raise ValueError(f"expected one of {', '.join(DTYPES)}, got {dtype[:20]!r}")
    expected = np.dtype(dtype).newbyteorder("<")
    if len(data) != size * expected.itemsize:
        raise ValueError(f"expected {size} values of {dtype}, got {len(data)} bytes")
    return np.frombuffer(data, expected)
