"""GCN, GAT, GIN and GraphSAGE as layers of a `LayeredModel`, each equal to PyTorch Geometric's.

Sums over neighbours are segment operations over CSR (`edges`, `attention`). GCN and GIN weigh a sum
over drawn neighbours by (neighbours there are) / (neighbours drawn): it is then right on average,
and over whole neighbourhoods, as in exact evaluation, it is the sum itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import count_loops
from gnn_core.initial import initial_weights
from horovod_gnn.attention import attend
from horovod_gnn.edges import Edges, aggregate
from horovod_gnn.layered import Dense, LayeredModel
from horovod_gnn.model import SageLayer


class Sage(LayeredModel):
    """GraphSAGE with what `LayeredModel` adds; `horovod_gnn.model` is faster where it adds nothing.

    W_self h_v + W_neigh aggregate(h_u, u in N(v)) + b.
    """

    draws_layers = True

    def make_layer(self, depth: int, in_features: int, out_features: int) -> nn.Module:
        return SageLayer(in_features, out_features)

    def run_layer(self, layer: Any, h: Tensor, edges: Edges, nodes: Tensor) -> Tensor:
        x = torch.cat([h[: edges.num_dst], aggregate(h, edges, self.settings.aggregator)], dim=1)
        return self._dense(layer, x)

    def _draw_weights(self) -> None:
        super()._draw_weights()
        pairs = self.settings.layer_widths
        weights = initial_weights([pairs[0][0], *(out for _, out in pairs)], self.settings.seed)
        self.load_state_dict({n: torch.from_numpy(w) for n, w in weights.items()}, strict=False)


class DegreeModel(LayeredModel):
    """A model whose layers weigh messages by the degrees that nodes have in the whole graph."""

    draws_layers = True
    degrees: Tensor  # int32 [num_nodes]

    def read_graph(self, graph: Graph) -> None:
        """Count the neighbours of each node of the graph."""
        self._keep(np.diff(graph.indptr))

    def _keep(self, degrees: np.ndarray) -> None:
        table = torch.from_numpy(degrees.astype(np.int32)).to(self.device)
        self.register_buffer("degrees", table, persistent=False)


class Gcn(DegreeModel):
    """Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", 2017.

    W sum(h_u / sqrt(d_u d_v), u in N(v) and v itself) + b, where d is 1 + the number of a node's
    neighbours in the whole graph. Self loops of the graph are left out: each node has the one.
    """

    def read_graph(self, graph: Graph) -> None:
        """Count the neighbours of each node of the graph, other than itself."""
        loops = count_loops(graph)
        self._has_loops = bool(loops.any())
        self._keep(np.diff(graph.indptr) - loops)

    def make_layer(self, depth: int, in_features: int, out_features: int) -> nn.Module:
        return Dense(in_features, out_features)

    def run_layer(self, layer: Any, h: Tensor, edges: Edges, nodes: Tensor) -> Tensor:
        others = self.degrees[nodes].to(h.dtype)
        shares = (others + 1).rsqrt()
        loops: Tensor | int = 0
        if self._has_loops:
            loops = edges.counts(edges.self_loops(nodes))
        own = shares[: edges.num_dst]
        drawn = edges.degrees() - loops
        scale = own * others[: edges.num_dst] / drawn.clamp(min=1)
        total = aggregate(h * shares[:, None], edges, "sum") * scale[:, None]
        itself = own.square() - scale * own * loops  # the sum has its loops in it
        x = total + h[: edges.num_dst] * itself[:, None]
        return self._dense(layer, x)


class GinLayer(nn.Module):
    """Two dense layers."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.first = Dense(in_features, out_features)
        self.second = Dense(out_features, out_features)

    @property
    def bias(self) -> nn.Parameter:
        """What is added to each row of the output."""
        return self.second.bias


class Gin(DegreeModel):
    """Xu, Hu, Leskovec, Jegelka, "How Powerful are Graph Neural Networks?", 2019; epsilon is 0.

    Two dense layers, with ReLU between them, of h_v + sum(h_u, u in N(v)).
    """

    def make_layer(self, depth: int, in_features: int, out_features: int) -> nn.Module:
        return GinLayer(in_features, out_features)

    def run_layer(self, layer: Any, h: Tensor, edges: Edges, nodes: Tensor) -> Tensor:
        neighbours = self.degrees[nodes[: edges.num_dst]].to(h.dtype)
        scale = neighbours / edges.degrees().clamp(min=1)
        x = h[: edges.num_dst] + aggregate(h, edges, "sum") * scale[:, None]
        return self._dense(layer.second, functional.relu(self._dense(layer.first, x)))


class GatLayer(nn.Module):
    """Weight `[heads * width, in]`, attention `[heads, width]` of both ends, bias.

    The bias is `[heads * width]`, or `[width]` where the heads are averaged.
    """

    def __init__(self, in_features: int, width: int, heads: int, averages: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads * width, in_features))
        self.att_src = nn.Parameter(torch.empty(heads, width))
        self.att_dst = nn.Parameter(torch.empty(heads, width))
        self.bias = nn.Parameter(torch.empty(width if averages else heads * width))
        self.averages = averages


class Gat(LayeredModel):
    """Velickovic et al., "Graph Attention Networks", 2018.

    The heads share the width of a hidden layer; the layer that gives the output averages heads of
    the whole width. Each node attends to its neighbours and, once, to itself.
    """

    draws_layers = True

    def make_layer(self, depth: int, in_features: int, out_features: int) -> nn.Module:
        heads, averages = self.settings.heads, depth >= self.settings.num_hidden
        width = out_features if averages else out_features // heads
        return GatLayer(in_features, width, heads, averages)

    def run_layer(self, layer: Any, h: Tensor, edges: Edges, nodes: Tensor) -> Tensor:
        heads, width = layer.att_src.shape
        values = self.arithmetic.linear(h, layer.weight).view(-1, heads, width)
        # (W h) . a is h . (W' a): a product with a few columns.
        matrix = layer.weight.view(heads, width, -1)
        ends = [(att[:, None] @ matrix)[:, 0] for att in (layer.att_src, layer.att_dst)]
        sources = self.arithmetic.linear(h, ends[0])
        destinations = self.arithmetic.linear(h[: edges.num_dst], ends[1])
        out = attend(values, sources, destinations, edges.with_self_loops(nodes))
        joined = out.mean(1) if layer.averages else out.flatten(1)
        return joined.add(layer.bias)
