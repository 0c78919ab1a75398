"""Attention along the edges of a block: a softmax over each destination's edges, then a sum.

On a CPU it is two passes over CSR forward and two backward, in Numba: no array has a row for each
edge but the attention itself, and nothing is scattered. On a GPU the same is made of torch
operations over segments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gnn_core.compiled import njit
from horovod_gnn import kernels
from horovod_gnn.edges import Edges

# mypy: disable-error-code="no-untyped-def"

_SLOPE = 0.2  # of the leaky ReLU for negative scores


def attend(
    values: Tensor, sources: Tensor, destinations: Tensor, edges: Edges, fused: bool = True
) -> Tensor:
    """Sum of the neighbours' values, weighted by attention, for each head by itself.

    The attention of an edge is the softmax, over the edges of its destination, of
    leaky_relu(score of its source + score of its destination).

    Args:
        values: `[num_src, heads, width]`.
        sources: score of each source `[num_src, heads]`.
        destinations: score of each destination `[num_dst, heads]`.
        edges: each destination has one at least.
        fused: use the passes for a CPU there.

    Returns:
        `[num_dst, heads, width]`.
    """
    if fused and values.device.type == "cpu":
        out: Tensor = _Attention.apply(values, sources, destinations, edges)
        return out
    scores = _FromSources.apply(sources, edges) + _FromDestinations.apply(destinations, edges)
    scores = functional.leaky_relu(scores, _SLOPE)
    rows = edges.destinations()[:, None].expand_as(scores)
    highest = scores.new_zeros(edges.num_dst, scores.shape[1])  # shifts a softmax, changes nothing
    highest = highest.scatter_reduce(0, rows, scores.detach(), "amax", include_self=False)
    weights = (scores - highest.gather(0, rows)).exp()
    weights = weights / _FromDestinations.apply(_ToDestinations.apply(weights, edges), edges)
    messages = _FromSources.apply(values.flatten(1), edges).view(-1, *values.shape[1:])
    weighted = (messages * weights[:, :, None]).flatten(1)
    total: Tensor = _ToDestinations.apply(weighted, edges)
    return total.view(-1, *values.shape[1:])


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, sources: Tensor, destinations: Tensor, edges: Edges
    ) -> Tensor:
        values, sources = values.contiguous(), sources.contiguous()
        destinations = destinations.contiguous()
        attention = values.new_empty(edges.num_edges, values.shape[1])
        out = values.new_zeros(edges.num_dst, *values.shape[1:])
        _forward(
            values.detach().numpy(),
            sources.detach().numpy(),
            destinations.detach().numpy(),
            edges.offsets.numpy(),
            edges.columns.numpy(),
            _SLOPE,
            attention.numpy(),
            out.numpy(),
        )
        ctx.save_for_backward(values, sources, destinations, attention)
        ctx.edges = edges
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, sources, destinations, attention = (t.detach() for t in ctx.saved_tensors)
        offsets, columns = ctx.edges.offsets.numpy(), ctx.edges.columns.numpy()
        grad = grad.contiguous()
        grad_scores = torch.empty_like(attention)
        grad_destinations = torch.zeros_like(destinations)
        _backward_scores(
            grad.numpy(),
            values.numpy(),
            sources.numpy(),
            destinations.numpy(),
            offsets,
            columns,
            _SLOPE,
            attention.numpy(),
            grad_scores.numpy(),
            grad_destinations.numpy(),
        )
        grad_values, grad_sources = torch.zeros_like(values), torch.zeros_like(sources)
        _backward_values(
            grad.numpy(),
            attention.numpy(),
            grad_scores.numpy(),
            *kernels.transpose_with_order(offsets, columns, len(values)),
            grad_values.numpy(),
            grad_sources.numpy(),
        )
        return grad_values, grad_sources, grad_destinations, None


class _FromSources(torch.autograd.Function):
    """The row `[width]` of each edge's source."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        return rows[edges.columns.long()]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        edges: Edges = ctx.edges
        order = torch.sort(edges.columns, stable=True).indices
        offsets, _ = edges.by_source()
        return _sum_rows(order, grad, offsets), None


class _FromDestinations(torch.autograd.Function):
    """The row `[width]` of each edge's destination."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        return rows[edges.destinations()]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _sum_by_destination(grad, ctx.edges), None


class _ToDestinations(torch.autograd.Function):
    """The sum `[num_dst, width]` of the rows of each destination's edges."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        return _sum_by_destination(rows, edges)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad[ctx.edges.destinations()], None


def _sum_by_destination(rows: Tensor, edges: Edges) -> Tensor:
    order = torch.arange(edges.num_edges, device=rows.device)
    return _sum_rows(order, rows, edges.offsets)


def _sum_rows(order: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    """Sums of consecutive ones of `rows[order]`, from each of the offsets to the next."""
    return functional.embedding_bag(
        order, rows, offsets.long(), mode="sum", include_last_offset=True
    )


@njit(nogil=True, cache=True)
def _forward(values, sources, destinations, offsets, columns, slope, attention, out):
    """Fill `attention` `[num_edges, heads]` and add to `out` `[num_dst, heads, width]`."""
    heads, width = values.shape[1], values.shape[2]
    slope = values.dtype.type(slope)
    for i in range(out.shape[0]):
        for head in range(heads):
            highest = values.dtype.type(-np.inf)
            for edge in range(offsets[i], offsets[i + 1]):
                score = sources[columns[edge], head] + destinations[i, head]
                if score < 0:
                    score *= slope
                attention[edge, head] = score
                if score > highest:
                    highest = score
            total = values.dtype.type(0)
            for edge in range(offsets[i], offsets[i + 1]):
                weight = np.exp(attention[edge, head] - highest)
                attention[edge, head] = weight
                total += weight
            for edge in range(offsets[i], offsets[i + 1]):
                attention[edge, head] /= total
        for edge in range(offsets[i], offsets[i + 1]):
            row = values[columns[edge]]
            for head in range(heads):
                weight = attention[edge, head]
                for j in range(width):
                    out[i, head, j] += weight * row[head, j]


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _backward_scores(
    grad,
    values,
    sources,
    destinations,
    offsets,
    columns,
    slope,
    attention,
    grad_scores,
    grad_destinations,
):
    """Fill `grad_scores` `[num_edges, heads]` and `grad_destinations` `[num_dst, heads]`."""
    heads, width = values.shape[1], values.shape[2]
    slope = values.dtype.type(slope)
    for i in range(grad.shape[0]):
        for edge in range(offsets[i], offsets[i + 1]):
            row = values[columns[edge]]
            for head in range(heads):
                product = values.dtype.type(0)
                for j in range(width):
                    product += grad[i, head, j] * row[head, j]
                grad_scores[edge, head] = product
        for head in range(heads):
            mean = values.dtype.type(0)
            for edge in range(offsets[i], offsets[i + 1]):
                mean += attention[edge, head] * grad_scores[edge, head]
            for edge in range(offsets[i], offsets[i + 1]):
                found = attention[edge, head] * (grad_scores[edge, head] - mean)
                if sources[columns[edge], head] + destinations[i, head] < 0:
                    found *= slope
                grad_scores[edge, head] = found
                grad_destinations[i, head] += found


@njit(nogil=True, cache=True)
def _backward_values(
    grad,
    attention,
    grad_scores,
    source_offsets,
    destination_of,
    edge_order,
    grad_values,
    grad_sources,
):
    """Add to `grad_values` `[num_src, heads, width]` and `grad_sources` `[num_src, heads]`."""
    heads, width = grad.shape[1], grad.shape[2]
    for source in range(len(source_offsets) - 1):
        row = grad_values[source]
        for place in range(source_offsets[source], source_offsets[source + 1]):
            edge, i = edge_order[place], destination_of[place]
            for head in range(heads):
                weight = attention[edge, head]
                for j in range(width):
                    row[head, j] += weight * grad[i, head, j]
                grad_sources[source, head] += grad_scores[edge, head]
