"""Aggregation along a block's edges: the sums and gradients of plain torch, in a fixed order."""

# ruff: noqa: E402
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.batch import Block
from horovod_gnn import kernels
from horovod_gnn.edges import Edges, aggregate

pytestmark = pytest.mark.needs_torch


@pytest.fixture
def block() -> Block:
    """40 destinations among 90 sources, some of either without an edge, one edge twice."""
    random = np.random.default_rng(3)
    degrees = random.integers(0, 6, 40)
    degrees[:3] = 0, 1, 5
    offsets = np.concatenate([[0], degrees.cumsum()]).astype(np.int32)
    columns = random.integers(0, 80, offsets[-1]).astype(np.int32)
    columns[2] = columns[1]
    return Block(offsets, columns, 90)


def test_edges_by_source_are_those_of_the_kernel(block: Block) -> None:
    offsets, destinations = Edges.of(block, torch.device("cpu")).by_source()
    expected = kernels.transpose(block.offsets, block.columns, block.num_src)
    np.testing.assert_array_equal(offsets.numpy(), expected[0])
    np.testing.assert_array_equal(destinations.numpy(), expected[1])
    assert offsets.dtype == destinations.dtype == torch.int32


@pytest.mark.parametrize("aggregator", ["mean", "sum", "none"])
def test_sums_and_gradients_are_those_of_a_dense_matrix(block: Block, aggregator: str) -> None:
    edges = Edges.of(block, torch.device("cpu"))
    dense = torch.zeros(block.num_dst, block.num_src, dtype=torch.float64)
    for row, column in zip(edges.destinations(), edges.columns, strict=True):
        dense[row, column] += 0 if aggregator == "none" else 1
    if aggregator == "mean":
        dense /= edges.degrees().clamp(min=1)[:, None]
    h = torch.randn(block.num_src, 7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(block.num_dst, 7, dtype=torch.float64)
    out = aggregate(h, edges, aggregator)
    torch.testing.assert_close(out, dense @ h)
    if aggregator != "none":
        (out * weights).sum().backward()
        torch.testing.assert_close(h.grad, dense.t() @ weights)


def test_a_block_without_edges_gives_zeros(block: Block) -> None:
    empty = Block(np.zeros_like(block.offsets), block.columns[:0], block.num_src)
    h = torch.ones(block.num_src, 3, requires_grad=True)
    for aggregator in ("mean", "sum", "max", "none"):
        out = aggregate(h, Edges.of(empty, torch.device("cpu")), aggregator)
        assert not out.any() and out.shape == (block.num_dst, 3)
    aggregate(h, Edges.of(empty, torch.device("cpu")), "mean").sum().backward()
    assert not h.grad.any()
