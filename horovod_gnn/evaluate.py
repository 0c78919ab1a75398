"""A torch model as `gnn_core.training.evaluate` and `link_ranking` run it: NumPy in and out."""

from __future__ import annotations

import numpy as np
import torch

from gnn_core.data.batch import Batch, Block
from gnn_core.data.feature_store import FeatureStore
from horovod_gnn.feed import Feed
from horovod_gnn.link import LinkModel
from horovod_gnn.node_model import NodeModel


class Layers:
    """A model for `ExactEvaluator` and, by `logits_of`, `SampledEvaluator`.

    Args:
        model: the model; in evaluation mode whenever it is evaluated.
        store: of the features that its lowest layer reads.
    """

    def __init__(self, model: NodeModel, store: FeatureStore):
        self._model = model
        self._feed, self.store = Feed(store), store
        self.widths = model.widths
        self.dtype = np.dtype(str(model.arithmetic.accumulator).removeprefix("torch."))

    def infer_layer(
        self, depth: int, states: np.ndarray | None, nodes: np.ndarray, block: Block
    ) -> np.ndarray:
        """One layer: see `gnn_core.training.evaluate.LayerwiseModel`."""
        below = self._feed.inputs(nodes) if states is None else torch.from_numpy(states)
        return self._model.infer_layer(depth, below, nodes, block).cpu().numpy()

    @torch.no_grad()
    def logits_of(self, batch: Batch) -> np.ndarray:
        """Logits `[num_real, classes]` of a batch's real targets."""
        inputs = self._feed.lent_inputs(batch.input_nodes)
        logits = self._model(inputs, batch.input_nodes, batch.blocks)
        return logits[: batch.num_real].cpu().numpy()


class LinkLayers(Layers):
    """A model's encoder and predictor, for `LinkEvaluator`."""

    def __init__(self, model: LinkModel, store: FeatureStore):
        super().__init__(model.encoder, store)
        self._predictor = model.predictor

    @torch.no_grad()
    def scores(
        self,
        left: np.ndarray,
        right: np.ndarray,
        structure: np.ndarray | None = None,
        common: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Scores of pairs of embeddings: see `gnn_core.training.link_ranking.LinkScorer`."""
        device = self._model.device
        ends = [torch.from_numpy(part).to(device) for part in (left, right)]
        of_pairs = None if structure is None else torch.from_numpy(structure).to(device)
        sums = None
        if common is not None:
            sums = tuple(torch.from_numpy(part).to(device) for part in common)
        return self._predictor(*ends, of_pairs, sums).cpu().numpy()
