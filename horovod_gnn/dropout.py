"""Keyed dropout: which features of a node are dropped depends on step and node, not on the rank.

With `torch.nn.Dropout` every rank draws its own mask, so a run on four ranks trains on other masks
than a run on one, and on a CPU drawing them takes a third of a training step. Here 16 bits that are
a function of (key, node, feature) decide, so curves agree on any number of ranks with dropout on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gnn_core.seeding import GOLDEN_GAMMA
from horovod_gnn import kernels

_LEVELS = 65536


def dropout_threshold(probability: float) -> int:
    """The probability (0 <= p < 1) in units of 1/65536, to the nearest: 1 .. 65535, 0 for 0."""
    return min(max(1, round(probability * _LEVELS)), _LEVELS - 1) if probability > 0 else 0


def keyed_dropout(h: Tensor, nodes: np.ndarray, key: int, threshold: int) -> Tensor:
    """Drop features of `h` with probability threshold / 65536 and scale up the rest.

    Args:
        h: `[n, width]` on any device.
        nodes: int64 `[n]`, global id of each row.
        key: 64 bits, of this step and layer.
        threshold: 1 .. 65535.
    """
    if h.device.type == "cpu":
        factors = torch.empty(h.shape, dtype=h.dtype)
        kernels.dropout_factors(nodes, np.uint64(key), threshold, factors.numpy())
    else:
        factors = dropout_factors(nodes, key, threshold, h)
    return h * factors


def dropout_factors(nodes: np.ndarray, key: int, threshold: int, like: Tensor) -> Tensor:
    """`kernels.dropout_factors` in torch, for `[n, width]` features on any device."""
    width = like.shape[1]
    ids = torch.from_numpy(nodes).to(like.device)
    state = _splitmix64((ids + 1) * _signed(GOLDEN_GAMMA) + _signed(key))
    counters = torch.arange(1, (width + 3) // 4 + 1, device=ids.device) * _signed(GOLDEN_GAMMA)
    bits = _splitmix64(state[:, None] + counters)
    lanes = torch.stack([bits >> shift & 0xFFFF for shift in (0, 16, 32, 48)], dim=2)
    keep = lanes.reshape(len(ids), -1)[:, :width] >= threshold
    return keep.to(like.dtype) * (_LEVELS / (_LEVELS - threshold))


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
