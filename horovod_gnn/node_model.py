"""NodeModel: what the trainer, the evaluators and the checkpoints know of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from gnn_core.data.batch import Block
from gnn_core.data.graph import Graph
from horovod_gnn.arithmetic import Arithmetic
from horovod_gnn.edges import Edges
from horovod_gnn.inputs import Inputs

if TYPE_CHECKING:
    from horovod_gnn.product_rates import ProductRates


class NodeModel(nn.Module, ABC):
    """A stack of layers, each of which reads a block: states of its sources to states of its dsts.

    Its parameters are trained, summed over ranks and saved by their names in `state_dict`. All of
    them are of `arithmetic.accumulator`, and equal on every rank for the same seed. What it gives a
    target depends on that target's neighbourhood, on the ids of its nodes and on `key`, never on
    the rest of the batch: else the loss curve would depend on the number of ranks.
    """

    widths: tuple[int, ...]  # of each layer's output; the last one is that of `forward`
    arithmetic: Arithmetic  # in which number formats it multiplies and adds
    rates: ProductRates | None = None  # by which all ranks chose how to multiply bfloat16

    @abstractmethod
    def forward(
        self,
        inputs: Inputs,
        nodes: np.ndarray | Tensor,
        blocks: Sequence[Block | Edges],
        key: int = 0,
    ) -> Tensor:
        """Logits (for link prediction: embeddings) of the targets, for training and evaluation.

        Args:
            inputs: the features `[num_nodes, in_features]`, any float type, or sparse; or the rows
                of `nodes`, as `FetchedRows`. `horovod_gnn.inputs.fetch_rows` reads any of them.
            nodes: int64 `[blocks[0].num_src]`, global ids of the input nodes, targets first; a
                tensor on a GPU if the model is there.
            blocks: input layer first, one a layer; `Edges.of` gives one on the model's device.
            key: 64-bit key of the step, for dropout; ignored in evaluation.

        Returns:
            `[blocks[-1].num_dst, widths[-1]]`, of `arithmetic.accumulator`, on the model's device.
        """

    @abstractmethod
    def infer_layer(self, depth: int, states: Inputs, nodes: np.ndarray, block: Block) -> Tensor:
        """One layer without dropout and gradient, for exact layer-wise evaluation.

        Args:
            depth: which layer, from 0.
            states: `[num_nodes, width]` on the CPU: the input features, as in `forward`, or what
                the layer below gave.
            nodes: int64 `[block.num_src]`, the row of `states` of each source.
            block: which rows to compute, from which.

        Returns:
            `[block.num_dst, widths[depth]]`: what the layer above reads, or the logits.
        """

    def read_graph(self, graph: Graph) -> None:  # noqa: B027 - most models need nothing of it
        """Take from the graph what layers need of it besides blocks, such as degrees."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def can_fuse(self) -> bool:
        """Whether `forward` reads a `StoredTable` in place, faster than rows gathered from it."""
        return False
