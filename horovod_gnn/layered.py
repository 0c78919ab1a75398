"""LayeredModel: a model of which only one layer has to be written; all else is here.

A subclass gives `make_layer` and `run_layer`, and may be a class of the user (docs/models.md).
Keyed dropout, residual connections, normalisation, jumping knowledge and layer-wise evaluation are
the same for all of them. `fused` is GraphSAGE's own: here are plain torch operations.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_core import seeding
from gnn_core.data.batch import Block
from gnn_core.dropout import dropout_threshold
from gnn_core.initial import drawn_weights
from gnn_core.models import ModelSettings
from horovod_gnn.arithmetic import Arithmetic
from horovod_gnn.dropout import keyed_dropout
from horovod_gnn.edges import Edges
from horovod_gnn.inputs import Inputs, fetch_rows
from horovod_gnn.node_model import NodeModel
from horovod_gnn.norm import NORMS


class Dense(nn.Module):
    """Weight `[out, in]` and bias `[out]` of a dense layer."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))


class LayeredModel(NodeModel):
    """Layers of one kind: each is run, added to its input, normalised, rectified and dropped out.

    Without jumping knowledge the last layer gives the output as it is; with it the last layer is
    like the others, and a dense layer makes the output of the joined states of all layers.
    """

    draws_layers = False  # whether the weights of the layers are drawn here too, or are made ready

    def __init__(self, settings: ModelSettings):
        """Make the layers; see `gnn_core.models.ModelSettings`."""
        super().__init__()
        self.settings = settings
        pairs = settings.layer_widths
        self.layers = nn.ModuleList(self.make_layer(i, a, b) for i, (a, b) in enumerate(pairs))
        self.residuals = nn.ParameterDict()  # an input of the same width is added as it is
        if settings.residual:
            widened = ((i, a, b) for i, (a, b) in enumerate(pairs) if a != b)
            self.residuals.update({str(i): nn.Parameter(torch.empty(b, a)) for i, a, b in widened})
        self.norms = nn.ModuleList()
        if settings.norm != "none":
            kind = NORMS[settings.norm]
            self.norms.extend(kind(settings.hidden) for _ in range(settings.num_hidden))
        if settings.norm == "batch":
            # A bias in front of it has no effect. Its gradient would be rounding alone, out of
            # which Adam makes steps that depend on the number of ranks.
            for layer in self.layers[: settings.num_hidden]:
                if isinstance(bias := getattr(layer, "bias", None), nn.Parameter):
                    bias.requires_grad_(False)
        self.jump = Dense(settings.jump_width, settings.out_features) if settings.jumps else None
        self.widths = self._state_widths()
        self.dropout_threshold = dropout_threshold(settings.dropout)
        self.input_threshold = dropout_threshold(settings.input_dropout)
        self.arithmetic = Arithmetic(settings.precision, settings.native_bf16)
        self._draw_weights()
        self.to(self.arithmetic.accumulator)

    @abstractmethod
    def make_layer(self, depth: int, in_features: int, out_features: int) -> nn.Module:
        """The layer at this depth, from 0. It maps rows of `in_features` to `out_features`."""

    @abstractmethod
    def run_layer(self, layer: nn.Module, h: Tensor, edges: Edges, nodes: Tensor) -> Tensor:
        """What the layer gives, before normalisation and ReLU.

        Args:
            layer: one of those that `make_layer` made.
            h: `[num_src, in_features]`, the states of the sources; the first `num_dst` are those of
                the destinations.
            edges: from sources to destinations.
            nodes: int64 `[num_src]`, the global id of each source. One node may be several.

        Returns:
            `[num_dst, out_features]`.
        """

    def forward(
        self,
        inputs: Inputs,
        nodes: np.ndarray | Tensor,
        blocks: Sequence[Block | Edges],
        key: int = 0,
    ) -> Tensor:
        """Logits of the targets `[blocks[-1].num_dst, out_features]`: see `NodeModel`."""
        depths = range(len(self.layers))
        keys = [seeding.key(key, "layer", depth) for depth in range(len(self.layers) + 1)]
        h = fetch_rows(inputs, nodes, self.arithmetic.accumulator).to(self.device)
        if self.training and self.input_threshold:
            h = keyed_dropout(h, nodes, keys[-1], self.input_threshold)
        ids = torch.as_tensor(nodes).to(self.device)
        outputs = []
        for depth, block in zip(depths, blocks, strict=True):
            h = self._run(depth, h, Edges.of(block, self.device), ids)
            if self.training and self.dropout_threshold and depth < self.settings.num_hidden:
                h = keyed_dropout(h, nodes[: block.num_dst], keys[depth], self.dropout_threshold)
            outputs.append(h)
        if self.jump is None:
            return h
        return self._dense(self.jump, reduce(self._join, (out[: len(h)] for out in outputs)))

    @torch.no_grad()
    def infer_layer(self, depth: int, states: Inputs, nodes: np.ndarray, block: Block) -> Tensor:
        """One layer without dropout: see `NodeModel`.

        With jumping knowledge a state is what the layer gave, then what is joined with it: the
        outputs of all layers below side by side (`cat`), or their maximum (`max`).
        """
        width = self.settings.hidden
        is_joined = self.jump is not None and depth > 0
        below = states
        if is_joined:
            assert isinstance(states, Tensor)
            below = states[:, :width]
        h = fetch_rows(below, nodes, self.arithmetic.accumulator).to(self.device)
        edges = Edges.of(block, self.device)
        out = self._run(depth, h, edges, torch.as_tensor(nodes).to(self.device))
        if self.jump is None:
            return out
        joined = out[:, :0]
        if is_joined:
            own = fetch_rows(states, nodes[: block.num_dst], out.dtype).to(self.device)
            joined = self._join(own[:, width:], own[:, :width])
        if depth < len(self.layers) - 1:
            return torch.cat([out, joined], dim=1)
        return self._dense(self.jump, self._join(joined, out))

    def _run(self, depth: int, h: Tensor, edges: Edges, nodes: Tensor) -> Tensor:
        """One layer with all that follows it but dropout."""
        out = self.run_layer(self.layers[depth], h, edges, nodes[: edges.num_src])
        if self.settings.residual:
            own = h[: edges.num_dst]
            if str(depth) in self.residuals:
                own = self.arithmetic.linear(own, self.residuals[str(depth)])
            out = out + own
        if depth >= self.settings.num_hidden:
            return out
        return functional.relu(self.norms[depth](out) if self.norms else out)

    def _join(self, joined: Tensor, output: Tensor) -> Tensor:
        """What is joined of the layers so far, with the output of another one."""
        if self.settings.jumping_knowledge == "cat" or not joined.shape[1]:
            return torch.cat([joined, output], dim=1)
        return torch.maximum(joined, output)

    def _dense(self, layer: Dense, x: Tensor) -> Tensor:
        return self.arithmetic.linear(x, layer.weight) + layer.bias

    def _state_widths(self) -> tuple[int, ...]:
        """Of what `infer_layer` gives at each depth."""
        settings = self.settings
        if not settings.jumps:
            return tuple(out for _, out in settings.layer_widths)
        most = settings.layers if settings.jumping_knowledge == "cat" else 2
        hidden = [settings.hidden * min(depth + 1, most) for depth in range(settings.layers - 1)]
        return (*hidden, settings.out_features)

    def _draw_weights(self) -> None:
        """Draw the weights that are not ready, as a function of the seed."""
        ready = ("norms.",) if self.draws_layers else ("norms.", "layers.")
        drawn = {n: p for n, p in self.named_parameters() if not n.startswith(ready)}
        arrays = drawn_weights({n: tuple(p.shape) for n, p in drawn.items()}, self.settings.seed)
        with torch.no_grad():
            for name, parameter in drawn.items():
                parameter.copy_(torch.from_numpy(arrays[name]))
