"""GraphSAGE in plain torch: no horovod, no configuration, no input or output.

Hamilton, Ying, Leskovec: "Inductive Representation Learning on Large Graphs", NeurIPS 2017, in the
form most libraries implement: h_v = W_self h_v + W_neigh aggregate(h_u, u in N(v)) + b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_core import seeding
from gnn_core.data.batch import Block
from gnn_core.dropout import dropout_threshold
from gnn_core.initial import initial_weights, layer_widths
from horovod_gnn.arithmetic import Arithmetic
from horovod_gnn.dropout import keyed_dropout
from horovod_gnn.edges import Edges, aggregate
from horovod_gnn.fused import FusedStack, StackOptions
from horovod_gnn.inputs import FetchedRows, Inputs, StoredTable, fetch_rows, is_sparse
from horovod_gnn.node_model import NodeModel


class SageLayer(nn.Module):
    """Weight `[out, 2 * in]` (left half: the node itself; right: its neighbours), bias `[out]`.

    One matrix for both parts, because one product of twice the depth is faster than two.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, 2 * in_features))
        self.bias = nn.Parameter(torch.empty(out_features))


class GraphSAGE(NodeModel):
    """A stack of GraphSAGE layers with ReLU and keyed dropout between them.

    Args:
        in_features: width of the input features.
        hidden: width of every hidden layer.
        num_classes: width of the logits.
        layers: number of layers, which is the number of hops.
        aggregator: `mean`, `sum`, `max`, or `none` to look at no neighbour (what a graph adds).
        dropout: probability of dropping a hidden feature in training.
        input_dropout: the same for input features.
        precision: `fp32`, `bf16` or `fp64`.
        native_bf16: see `Arithmetic`.
        seed: of the initial weights.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        num_classes: int,
        *,
        layers: int = 2,
        aggregator: str = "mean",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        precision: str = "fp32",
        native_bf16: bool | None = None,
        seed: int = 0,
    ):
        super().__init__()
        widths = layer_widths(in_features, hidden, num_classes, layers)
        stack = nn.ModuleList(SageLayer(widths[i], widths[i + 1]) for i in range(layers))
        self.layers = cast("Sequence[SageLayer]", stack)  # torch's type knows Modules alone
        self.widths = tuple(widths[1:])
        weights = initial_weights(widths, seed)
        self.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        self.aggregator = aggregator
        self.dropout_threshold = dropout_threshold(dropout)
        self.input_threshold = dropout_threshold(input_dropout)
        self.arithmetic = Arithmetic(precision, native_bf16)
        self.fused = True  # False forces the plain path, for comparison
        self.to(self.arithmetic.accumulator)

    def forward(
        self,
        inputs: Inputs,
        nodes: np.ndarray | Tensor,
        blocks: Sequence[Block | Edges],
        key: int = 0,
    ) -> Tensor:
        """Logits of the targets `[blocks[-1].num_dst, num_classes]`: see `NodeModel`."""
        keys = [seeding.key(key, "layer", depth) for depth in range(len(self.layers) + 1)]
        input_dropout = (self.input_threshold if self.training else 0, keys[-1])
        if input_dropout[0] and not (self.can_fuse and is_sparse(inputs)):
            rows = fetch_rows(inputs, nodes, self.arithmetic.accumulator)
            inputs = FetchedRows(keyed_dropout(rows, nodes, keys[-1], self.input_threshold))
        threshold = self.dropout_threshold if self.training else 0
        if self.can_fuse:
            mean = self.aggregator == "mean"
            options = StackOptions(mean, threshold, tuple(keys), self.arithmetic, input_dropout)
            return self._fused(self.layers, inputs, nodes, blocks, options)
        h = fetch_rows(inputs, nodes, self.arithmetic.accumulator).to(self.device)
        for depth, block in enumerate(blocks):
            h = self._plain_layer(depth, h, block)
            if threshold and depth < len(self.layers) - 1:
                h = keyed_dropout(h, nodes[: block.num_dst], keys[depth], threshold)
        return h

    @torch.no_grad()
    def infer_layer(self, depth: int, states: Inputs, nodes: np.ndarray, block: Block) -> Tensor:
        """One layer, rectified unless it is the last: see `NodeModel`."""
        if self.can_fuse:
            active = depth < len(self.layers) - 1
            mean = self.aggregator == "mean"
            options = StackOptions(mean, 0, (0,), self.arithmetic, activate_last=active)
            return self._fused([self.layers[depth]], states, nodes, [block], options)
        h = fetch_rows(states, nodes, self.arithmetic.accumulator).to(self.device)
        return self._plain_layer(depth, h, block)

    @property
    def can_fuse(self) -> bool:
        """Whether the fast path applies: a CPU, and an aggregation that is linear."""
        return self.fused and self.aggregator != "max" and self.device.type == "cpu"

    def _fused(
        self,
        layers: Sequence[SageLayer],
        inputs: Inputs,
        nodes: np.ndarray | Tensor,
        blocks: Sequence[Block | Edges],
        options: StackOptions,
    ) -> Tensor:
        table, rows = inputs, nodes
        if isinstance(inputs, StoredTable):
            table, options = inputs.table, replace(options, store=inputs.store)
        elif isinstance(inputs, FetchedRows):
            table = inputs.rows
            rows = np.arange(len(nodes)) if inputs.at is None else inputs.at
            options = replace(options, more=inputs.more)
        seen = [self._seen(block) for block in blocks]
        parameters = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
        out = FusedStack.apply(table, rows, nodes, seen, options, *parameters)
        return out.to(self.arithmetic.accumulator)

    def _seen(self, block: Block | Edges) -> Block:
        """The block, or without `aggregator` its nodes alone."""
        assert isinstance(block, Block)  # on a CPU
        if self.aggregator != "none":
            return block
        return Block(np.zeros_like(block.offsets), block.columns[:0], block.num_src)

    def _plain_layer(self, depth: int, h: Tensor, block: Block | Edges) -> Tensor:
        layer = self.layers[depth]
        edges = Edges.of(block, h.device)
        x = torch.cat([h[: edges.num_dst], aggregate(h, edges, self.aggregator)], dim=1)
        out = self.arithmetic.linear(x, layer.weight) + layer.bias
        return out if depth == len(self.layers) - 1 else functional.relu(out)
