"""A second model: dense layers on a node's own features, registered while a test needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_core.config import RunConfig
from gnn_core.data.batch import Block
from gnn_core.models import MODELS
from horovod_gnn import models
from horovod_gnn.arithmetic import Arithmetic
from horovod_gnn.edges import Edges
from horovod_gnn.inputs import Inputs, fetch_rows
from horovod_gnn.node_model import NodeModel


class Mlp(NodeModel):
    """As many dense layers as there are hops; it looks at no neighbour."""

    def __init__(
        self, config: RunConfig, in_features: int, out_features: int, native_bf16: bool | None
    ):
        super().__init__()
        self.widths = (config.hidden,) * (config.layers - 1) + (out_features,)
        self.arithmetic = Arithmetic(config.precision, native_bf16)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            ins = (in_features, *self.widths)
            self.dense = nn.ModuleList(map(nn.Linear, ins, self.widths))
        self.to(self.arithmetic.accumulator)

    def forward(
        self,
        inputs: Inputs,
        nodes: np.ndarray | Tensor,
        blocks: Sequence[Block | Edges],
        key: int = 0,
    ) -> Tensor:
        """Logits of the targets."""
        h = fetch_rows(inputs, nodes, self.arithmetic.accumulator)
        for depth, block in enumerate(blocks):
            h = self._layer(depth, h, block)
        return h

    @torch.no_grad()
    def infer_layer(self, depth: int, states: Inputs, nodes: np.ndarray, block: Block) -> Tensor:
        """One layer."""
        return self._layer(depth, fetch_rows(states, nodes, self.arithmetic.accumulator), block)

    def _layer(self, depth: int, h: Tensor, block: Block | Edges) -> Tensor:
        out = self.dense[depth](h[: block.num_dst])
        return out if depth == len(self.widths) - 1 else functional.relu(out)


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Let `--model mlp` be one of the choices."""
    models.register("mlp", "MLP", Mlp)
    try:
        yield
    finally:
        del MODELS["mlp"], models._BUILDERS["mlp"]
