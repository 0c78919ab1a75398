"""GraphSAGE as one would write it in plain PyTorch: what the fast path is measured against.

Gather with `index_select`, scatter with `index_add_`, two `nn.Linear` a layer, `nn.Dropout`. It
runs on the same trimmed blocks as our model, so what it loses it loses in the step itself, and it
has PyTorch Geometric's names for its weights, so `exchange.to_pyg(model, "layers.")` fits it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gnn_core.data.batch import Block
from horovod_gnn.inputs import Inputs, fetch_rows


class ReferenceLayer(nn.Module):
    """W_l mean(neighbours) + b + W_r self."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.lin_l = nn.Linear(in_features, out_features)
        self.lin_r = nn.Linear(in_features, out_features, bias=False)

    def forward(self, h: Tensor, block: Block) -> Tensor:
        """`[num_src, in]` to `[num_dst, out]`."""
        degrees = torch.from_numpy(np.diff(block.offsets)).long()
        destinations = torch.repeat_interleave(degrees)
        messages = h.index_select(0, torch.from_numpy(block.columns).long())
        total = h.new_zeros(block.num_dst, h.shape[1]).index_add_(0, destinations, messages)
        mean = total / degrees.clamp(min=1)[:, None]
        return self.lin_l(mean) + self.lin_r(h[: block.num_dst])


class ReferenceSAGE(nn.Module):
    """A stack of `ReferenceLayer` with ReLU and dropout between them.

    Args:
        widths: of the input features, of each hidden layer, of the logits.
        dropout: probability of dropping a hidden feature.
        fast_mask: draw the mask as 16 bits a feature out of 64-bit words. On a CPU that takes a
            fraction of `nn.Dropout`'s time: how much of a lead is owed to dropout alone?
    """

    def __init__(self, widths: Sequence[int], dropout: float, fast_mask: bool = False):
        super().__init__()
        pairs = zip(widths, widths[1:], strict=False)
        self.layers = nn.ModuleList(ReferenceLayer(*pair) for pair in pairs)
        self.dropout = FastDropout(dropout) if fast_mask else nn.Dropout(dropout)

    def forward(self, table: Inputs, nodes: np.ndarray, blocks: Sequence[Block]) -> Tensor:
        """Logits of the targets, from `table` `[num_nodes, in]` and blocks, input layer first."""
        h = fetch_rows(table, nodes).float()
        for depth, (layer, block) in enumerate(zip(self.layers, blocks, strict=True)):
            h = layer(h, block)
            if depth < len(self.layers) - 1:
                h = self.dropout(h.relu())
        return h


class FastDropout(nn.Module):
    """Dropout to 1/65536, whose mask is drawn four features at a time."""

    def __init__(self, p: float):
        super().__init__()
        self.threshold = round(p * 65536)

    def forward(self, h: Tensor) -> Tensor:
        """`h` with features dropped and the others scaled up, in training."""
        if not self.training or not self.threshold:
            return h
        words = torch.empty(len(h), -(-h.shape[1] // 4), dtype=torch.int64)
        words.random_(-(2**63), None)  # all 64 bits
        lanes = words.view(torch.int16)[:, : h.shape[1]]
        kept = (lanes >= self.threshold - 32768).view(torch.uint8).to(h.dtype)
        return h * kept.mul_(65536 / (65536 - self.threshold))
