"""Keyed dropout on tensors: `gnn_core.dropout` on the CPU, the same bits in torch on a GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gnn_core import dropout
from gnn_core.dropout import LEVELS
from gnn_core.seeding import GOLDEN_GAMMA


def keyed_dropout(h: Tensor, nodes: np.ndarray | Tensor, key: int, threshold: int) -> Tensor:
    """Drop features of `h` with probability threshold / 65536 and scale up the rest.

    Args:
        h: `[n, width]` on any device.
        nodes: int64 `[n]`, global id of each row; on a GPU maybe a tensor there.
        key: 64 bits, of this step and layer.
        threshold: 1 .. 65535.
    """
    if isinstance(nodes, np.ndarray) and h.device.type == "cpu":
        factors = torch.empty(h.shape, dtype=h.dtype)
        dropout.dropout_factors(nodes, np.uint64(key), threshold, factors.numpy())
    else:
        factors = dropout_factors(nodes, key, threshold, h)
    return h * factors


def dropout_factors(nodes: np.ndarray | Tensor, key: int, threshold: int, like: Tensor) -> Tensor:
    """`gnn_core.dropout.dropout_factors` in torch, for `[n, width]` features on any device."""
    width = like.shape[1]
    ids = torch.as_tensor(nodes).to(like.device)
    state = _splitmix64((ids + 1) * _signed(GOLDEN_GAMMA) + _signed(key))
    counters = torch.arange(1, (width + 3) // 4 + 1, device=ids.device) * _signed(GOLDEN_GAMMA)
    bits = _splitmix64(state[:, None] + counters)
    lanes = bits.view(torch.int16)[:, :width]  # the lowest bits first, as bytes lie in memory
    keep = lanes ^ -(2**15) >= threshold - 2**15  # compared as the unsigned numbers that they are
    return keep.to(like.dtype) * (LEVELS / (LEVELS - threshold))


def _signed(value: int) -> int:
    """A uint64 as the int64 of the same bits; products and sums then wrap alike."""
    return value - 2**64 if value >= 2**63 else value


def _splitmix64(value: Tensor) -> Tensor:
    """`gnn_core.seeding.splitmix64` on int64 tensors, whose right shift must be made logical."""

    def shifted(value: Tensor, by: int) -> Tensor:
        return value >> by & (1 << 64 - by) - 1

    value = (value ^ shifted(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ shifted(value, 27)) * _signed(0x94D049BB133111EB)
    return value ^ shifted(value, 31)
