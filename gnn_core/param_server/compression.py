"""Smaller pushes: half precision, or the largest entries alone, with error feedback.

What a push leaves out stays in the worker's residual and is added to its next gradient (Stich 2018;
Karimireddy et al., 2019): all that was sent and the residual are the sum of all gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gnn_core.param_server.shards import Shards, Vector, vector_of

NONE = "none"
_INDEX = np.dtype("<u4")
_HALF = np.dtype("<f2")


@dataclass(frozen=True)
class Payload:
    """The gradient of one shard, as it is sent.

    Attributes:
        values: in the dtype of the parameters, or as float16 with fp16.
        indices: uint32 positions of the values in the shard; empty: all.
    """

    values: bytes
    indices: bytes = b""

    @property
    def num_bytes(self) -> int:
        """Of both."""
        return len(self.values) + len(self.indices)


class Compressor:
    """Compresses the gradients of one worker.

    Args:
        kind: of --compress: `none`, `fp16` or `topk:R`.
        residual: `[n]`, what has not been sent; zeros at first.
    """

    def __init__(self, kind: str, residual: Vector):
        self.kind, self.residual = kind, residual

    def compress(self, gradient: Vector, shards: Shards) -> list[Payload]:
        """What is sent of a gradient `[n]` to each shard; the rest is kept."""
        if self.kind == NONE:
            return [Payload(values.tobytes()) for values in shards.cut(gradient)]
        total = gradient + self.residual
        if self.kind == "fp16":
            most = np.finfo(_HALF).max
            halves = np.clip(total, -most, most).astype(_HALF)
            self.residual = total - halves.astype(total.dtype)
            return [Payload(values.tobytes()) for values in shards.cut(halves)]
        chosen = largest(total, float(self.kind.removeprefix("topk:")))
        self.residual = np.where(chosen, 0, total)
        return [
            Payload(values[mask].tobytes(), np.flatnonzero(mask).astype(_INDEX).tobytes())
            for values, mask in zip(shards.cut(total), shards.cut(chosen), strict=True)
        ]


def largest(values: Vector, share: float) -> npt.NDArray[np.bool_]:
    """Which of the values `[n]` are the largest by size: that share of them, one at least."""
    count = max(1, round(share * len(values)))
    chosen = np.zeros(len(values), bool)
    chosen[np.argpartition(np.abs(values), len(values) - count)[len(values) - count :]] = True
    return chosen


def decompress(kind: str, payload: Payload, dtype: str, size: int) -> Vector:
    """The gradient `[size]` of a shard. Raises ValueError for a payload that is none."""
    if kind == "fp16":
        if len(payload.values) != size * _HALF.itemsize:
            raise ValueError(f"expected {size} values of float16, got {len(payload.values)} bytes")
        return np.frombuffer(payload.values, _HALF).astype(dtype)
    if not kind.startswith("topk:"):
        return vector_of(payload.values, dtype, size)
    count, rest = divmod(len(payload.indices), _INDEX.itemsize)
    values = vector_of(payload.values, dtype, count)
    indices = np.frombuffer(payload.indices, _INDEX, count).astype(np.int64)
    ascending = (np.diff(indices) > 0).all()
    if rest or not ascending or (count and indices[-1] >= size):
        raise ValueError(f"expected ascending positions below {size}")
    gradient = np.zeros(size, dtype)
    gradient[indices] = values
    return gradient
