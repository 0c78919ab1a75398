"""A graph with every odd case in it, blocks sampled from it, and models to run on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnn_core.data.batch import Block
from gnn_core.data.graph import Graph
from gnn_core.data.sampler import Sampler
from horovod_gnn import fused
from horovod_gnn.model import GraphSAGE

WIDTH, CLASSES = 7, 5  # of no vector's length, so that the ends of the kernels' loops are run too
ISOLATED = (3, 11, 40, 59)
LOOPED = (0, 3, 17)  # 3 has no neighbour but itself


def odd_graph(num_nodes: int = 60, seed: int = 0) -> Graph:
    """Nodes without edges, self loops, one node that everybody knows, one-way edges."""
    random = np.random.default_rng(seed)
    linked = random.random((num_nodes, num_nodes)) < 0.07
    linked[:, 5] = True
    linked[ISOLATED, :] = False
    linked[:, ISOLATED] = False
    linked[LOOPED, LOOPED] = True
    indptr = np.concatenate([[0], np.cumsum(linked.sum(axis=1))])
    features = random.normal(size=(num_nodes, WIDTH)).astype(np.float32)
    labels = random.integers(0, CLASSES, num_nodes)
    splits = random.permutation(np.arange(num_nodes) % 4)
    return Graph.from_arrays(
        "odd", indptr, np.nonzero(linked)[1], features, labels, splits, num_classes=CLASSES
    )


def table_of(graph: Graph) -> Tensor:
    """The features, as a tensor of their own."""
    return torch.from_numpy(graph.features.copy())


def sampled(
    graph: Graph, fanouts: tuple[int, ...] = (3, 2), targets: np.ndarray | None = None, key: int = 9
) -> tuple[tuple[Block, ...], np.ndarray]:
    """Blocks and input nodes; every second node is a target unless others are named."""
    if targets is None:
        targets = np.arange(0, graph.num_nodes, 2)[::-1].copy()
        targets = np.union1d(targets, ISOLATED)[::-1].copy()
    return Sampler(graph, fanouts).sample(targets.astype(np.int64), key)


def made_model(
    precision: str = "fp64", layers: int = 2, hidden: int = 9, seed: int = 1, **options: Any
) -> GraphSAGE:
    """A model of the odd graph, in training mode."""
    model = GraphSAGE(
        WIDTH, hidden, CLASSES, layers=layers, precision=precision, seed=seed, **options
    )
    return model.train()


def logits_and_gradients(
    model: GraphSAGE, table: Tensor, nodes: np.ndarray, blocks: tuple[Block, ...], key: int = 77
) -> list[Tensor]:
    """The logits, and the gradient of each parameter for a loss that weights every logit apart."""
    model.zero_grad()
    logits = model(table, nodes, blocks, key)
    weights = torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view_as(logits)
    (logits * weights).sum().backward()
    return [logits.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


@contextlib.contextmanager
def chunks_of(num_rows: int) -> Iterator[None]:
    """Make the fused path work on so few rows at a time that chunks end everywhere."""
    before = fused.CHUNK_ROWS
    fused.CHUNK_ROWS = num_rows
    try:
        yield
    finally:
        fused.CHUNK_ROWS = before


def off_by(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the largest of `theirs`."""
    assert ours.shape == theirs.shape
    scale = float(theirs.detach().double().abs().max())
    return float((ours - theirs).detach().double().abs().max()) / (scale or 1.0)
