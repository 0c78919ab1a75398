"""Link prediction in plain torch: a model that embeds papers, and a predictor of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_core.data.batch import Block
from gnn_core.data.graph import Graph
from gnn_core.initial import initial_predictor
from horovod_gnn.arithmetic import Arithmetic
from horovod_gnn.inputs import Inputs
from horovod_gnn.node_model import NodeModel

if TYPE_CHECKING:
    from horovod_gnn.product_rates import ProductRates


class LinkPredictor(nn.Module):
    """How likely a paper is to cite another: dense layers on the product of their embeddings.

    As in OGB's example for ogbl-citation2 (Hu et al., NeurIPS 2020). Structural features of the
    pair, if they are read, are the first layer's input too, beside the product; so are sums over
    the embeddings of common neighbours (Wang et al., "Neural Common Neighbor with Completion for
    Link Prediction", ICLR 2024).

    Args:
        width: of an embedding, and of the hidden layers.
        layers: number of layers; the last one gives one number.
        seed: of the initial weights.
        arithmetic: of the products.
        structure_width: number of structural features of a pair; 0 reads none.
        reads_common: whether sums over common neighbours are read beside them.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        seed: int,
        arithmetic: Arithmetic,
        structure_width: int = 0,
        reads_common: bool = False,
    ):
        super().__init__()
        stack = nn.ModuleList(
            nn.Linear(width, width if depth < layers - 1 else 1) for depth in range(layers)
        )
        weights = initial_predictor(width, layers, seed, structure_width, reads_common)
        tensors = {name: torch.from_numpy(w) for name, w in weights.items()}
        read = tensors.pop("structure.weight", None)
        of_common = tensors.pop("common.weight", None)
        stack.load_state_dict(tensors)
        self.layers = cast("Sequence[nn.Linear]", stack)  # torch's type knows Modules alone
        self.structure = None
        if read is not None:
            self.structure = nn.Linear(structure_width, len(read), bias=False)
            self.structure.load_state_dict({"weight": read})
        self.common = None
        if of_common is not None:
            self.common = nn.Linear(width, len(of_common), bias=False)
            self.common.load_state_dict({"weight": of_common})
        self.arithmetic = arithmetic
        self.to(arithmetic.accumulator)

    def forward(
        self,
        left: Tensor,
        right: Tensor,
        structure: Tensor | None = None,
        common: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Scores `[n]`, any number, of pairs.

        Args:
            left: embeddings `[n, width]` of the citing papers.
            right: embeddings `[n, width]` of the others.
            structure: `[n, structure_width]`, if the predictor reads it.
            common: of the pairs that have common neighbours, int64 `[R]`, distinct, the sums
                `[R, width]` over the embeddings of these, if the predictor reads them.
        """
        h = left * right
        for depth, layer in enumerate(self.layers):
            h = self.arithmetic.linear(h, layer.weight) + layer.bias
            if depth == 0 and self.structure is not None:
                assert structure is not None
                h = h + self.arithmetic.linear(structure.to(h.dtype), self.structure.weight)
            if depth == 0 and self.common is not None:
                assert common is not None
                pairs, sums = common
                h = h.index_add(0, pairs, self.arithmetic.linear(sums, self.common.weight))
            if depth < len(self.layers) - 1:
                h = functional.relu(h)
        return h.squeeze(1)


class LinkModel(nn.Module):
    """An encoder and a predictor.

    Args:
        encoder: whose outputs are embeddings.
        predictor_layers: number of layers of the predictor.
        seed: of the predictor's initial weights.
        structure_width: as in `LinkPredictor`.
        reads_common: as in `LinkPredictor`.
    """

    def __init__(
        self,
        encoder: NodeModel,
        predictor_layers: int,
        seed: int,
        structure_width: int = 0,
        reads_common: bool = False,
    ):
        super().__init__()
        self.encoder = encoder
        self.predictor = LinkPredictor(
            encoder.widths[-1],
            predictor_layers,
            seed,
            encoder.arithmetic,
            structure_width,
            reads_common,
        )

    def forward(
        self, inputs: Inputs, nodes: np.ndarray, blocks: Sequence[Block], key: int = 0
    ) -> Tensor:
        """Embeddings `[targets, width]`: see `NodeModel`."""
        return self.encoder(inputs, nodes, blocks, key)

    def read_graph(self, graph: Graph) -> None:
        """See `NodeModel`."""
        self.encoder.read_graph(graph)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    @property
    def arithmetic(self) -> Arithmetic:
        """The number formats."""
        return self.encoder.arithmetic

    @property
    def rates(self) -> ProductRates | None:
        """See `NodeModel.rates`."""
        return self.encoder.rates
