"""The edges of a block as tensors, on any device, and what a layer does along them.

Both directions are segment operations over CSR: forward over each destination's edges, backward
over each source's. No atomic addition takes part, so sums are made in the same order every time.
`fused` has passes of its own for a CPU; this is what a GPU runs, and a CPU where nothing is fused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gnn_core.data.batch import Block
from horovod_gnn import kernels

AGGREGATORS = ("mean", "sum", "max", "none")


class Edges:
    """What `Block` is, in tensors on one device.

    Args:
        offsets: int32 `[num_dst + 1]`.
        columns: int32 `[num_edges]`, positions among the sources.
        num_src: number of sources, the first of which are the destinations.
    """

    def __init__(self, offsets: Tensor, columns: Tensor, num_src: int):
        self.offsets, self.columns, self.num_src = offsets, columns, num_src
        self._by_source: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, block: Block | Edges, device: torch.device) -> Edges:
        """The edges of a block, copied to `device` without waiting if that is a GPU.

        What a feed has brought there before is given back as it is.
        """
        if isinstance(block, Edges):
            return block
        offsets, columns = (torch.from_numpy(array) for array in (block.offsets, block.columns))
        return cls(to_device(offsets, device), to_device(columns, device), block.num_src)

    @property
    def num_dst(self) -> int:
        """Number of destination nodes."""
        return len(self.offsets) - 1

    @property
    def num_edges(self) -> int:
        """Number of sampled edges."""
        return len(self.columns)

    def degrees(self) -> Tensor:
        """int32 `[num_dst]`."""
        return self.offsets.diff()

    def destinations(self) -> Tensor:
        """int64 `[num_edges]`, in the order of the edges."""
        return torch.repeat_interleave(self.degrees().long(), output_size=self.num_edges)

    def edge_index(self) -> Tensor:
        """int64 `[2, num_edges]`, sources above destinations: as PyTorch Geometric has edges."""
        return torch.stack([self.columns.long(), self.destinations()])

    def counts(self, selected: Tensor) -> Tensor:
        """int64 `[num_dst]`: for each destination, how many of its edges are selected.

        Args:
            selected: bool `[num_edges]`.
        """
        total = functional.pad(selected.cumsum(0), (1, 0))
        return total[self.offsets.long()].diff()

    def self_loops(self, nodes: Tensor) -> Tensor:
        """Bool `[num_edges]`: the edges from a node to itself.

        Args:
            nodes: int64 `[num_src]`, the global id of each source, on the device of the edges. One
                node may be several sources.
        """
        return nodes[self.columns.long()] == nodes[self.destinations()]

    def with_self_loops(self, nodes: Tensor) -> Edges:
        """The same edges and exactly one from each destination to itself, its last.

        Args:
            nodes: as in `self_loops`.
        """
        kept = ~self.self_loops(nodes)
        own = torch.arange(self.num_dst, device=kept.device)
        degrees = self.counts(kept) + 1
        offsets = functional.pad(degrees.cumsum(0), (1, 0))
        columns = torch.empty(int(offsets[-1]), dtype=torch.int32, device=kept.device)
        columns[offsets[1:] - 1] = own.int()
        place = kept.cumsum(0) - 1 + self.destinations()
        columns[place[kept]] = self.columns[kept]
        return Edges(offsets.int(), columns, self.num_src)

    def by_source(self) -> tuple[Tensor, Tensor]:
        """The same edges grouped by source: int32 `[num_src + 1]` offsets, int32 destinations."""
        if self._by_source is None and self.columns.device.type == "cpu":
            arrays = kernels.transpose(self.offsets.numpy(), self.columns.numpy(), self.num_src)
            self._by_source = torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])
        if self._by_source is None:
            columns, order = torch.sort(self.columns, stable=True)
            sources = torch.arange(self.num_src + 1, dtype=torch.int32, device=columns.device)
            offsets = torch.searchsorted(columns, sources, out_int32=True)
            self._by_source = offsets, self.destinations()[order].int()
        return self._by_source

    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        return [self.offsets, self.columns, *(self._by_source or ())]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on `device`; to a GPU by way of page-locked memory, without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def aggregate(h: Tensor, edges: Edges, aggregator: str) -> Tensor:
    """Mean, sum or maximum over each destination's sampled neighbours; zero where there is none.

    Args:
        h: `[num_src, width]`.
        edges: on the device of `h`.
        aggregator: one of `AGGREGATORS`.

    Returns:
        `[num_dst, width]`, of the dtype of `h`.
    """
    if aggregator in ("mean", "sum"):
        out: Tensor = _Reduce.apply(h, edges, aggregator)
        return out
    out = h.new_zeros(edges.num_dst, h.shape[1])
    if aggregator == "none":
        return out
    destinations = edges.destinations()[:, None].expand(-1, h.shape[1])
    # Ties share the gradient evenly, as in PyG's aggregation.
    gathered = h[edges.columns.long()]
    return out.scatter_reduce(0, destinations, gathered, "amax", include_self=False)


class _Reduce(torch.autograd.Function):
    """Sum or mean along edges; autograd's own backward would scatter, in no order."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, edges: Edges, mode: str) -> Tensor:
        ctx.edges, ctx.mode = edges, mode
        return functional.embedding_bag(
            edges.columns, h, edges.offsets, mode=mode, include_last_offset=True
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        edges: Edges = ctx.edges
        if not ctx.needs_input_grad[0]:
            return None, None, None
        if ctx.mode == "mean":
            grad = grad / edges.degrees().clamp(min=1)[:, None]
        offsets, destinations = edges.by_source()
        grad_h = functional.embedding_bag(
            destinations, grad, offsets, mode="sum", include_last_offset=True
        )
        return grad_h, None, None
