"""A Keras model as `gnn_core.training.evaluate` and `link_ranking` run it: NumPy in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from gnn_core.data.batch import Batch, Block
from tf_mirrored.input import Feed, shared_tensor
from tf_mirrored.link import LinkModel
from tf_mirrored.model import GraphSAGE


class Layers:
    """A model for `ExactEvaluator` and, by `logits_of`, `SampledEvaluator`; all of it traced.

    Args:
        model: the model.
        table: as from `feature_table`.
        feed: makes tensors of blocks.
    """

    def __init__(self, model: GraphSAGE, table: tf.Tensor, feed: Feed):
        self._model = model
        self._table = table
        self._feed, self.store = feed, feed.store
        self.widths = model.widths
        self.dtype = np.dtype(feed.real.as_numpy_dtype)
        self._layer = [self._traced(depth) for depth in range(len(model.widths))]
        self._forward = tf.function(model.call, reduce_retracing=True, autograph=False)

    def infer_layer(
        self, depth: int, states: np.ndarray | None, nodes: np.ndarray, block: Block
    ) -> np.ndarray:
        """One layer: see `gnn_core.training.evaluate.LayerwiseModel`."""
        if states is not None:
            table = shared_tensor(states)
        else:
            table, nodes = self._feed.layer_input(self._table, nodes)
        return self._layer[depth](table, self._feed.block(block, nodes)).numpy()

    def logits_of(self, batch: Batch) -> np.ndarray:
        """Logits `[num_real, classes]` of a batch's real targets."""
        return self._forward(self._table, self._feed.step(batch)).numpy()[: batch.num_real]

    def _traced(self, depth: int) -> Any:
        """One layer as a function of tables and blocks of any length."""
        width = self._model.widths[depth - 1] if depth else self._table.shape[1]
        layer = tf.function(
            lambda table, block: self._model.layer(depth, table, block), autograph=False
        )
        return layer.get_concrete_function(
            tf.TensorSpec([None, width], self._feed.real), self._feed.block_signature()
        )


class LinkLayers(Layers):
    """A model's encoder and predictor, for `LinkEvaluator`."""

    def __init__(self, model: LinkModel, table: tf.Tensor, feed: Feed):
        super().__init__(model.encoder, table, feed)
        pairs = tf.TensorSpec([None, self.widths[-1]], feed.real)
        structure = None
        if model.structure is not None:
            structure = tf.TensorSpec([None, model.structure.shape[1]], tf.float32)
        common = None
        if model.common is not None:
            common = (tf.TensorSpec([None], tf.int64), pairs)
        self._scores = tf.function(model.scores, autograph=False).get_concrete_function(
            *(spec for spec in (pairs, pairs, structure, common) if spec is not None)
        )

    def scores(
        self,
        left: np.ndarray,
        right: np.ndarray,
        structure: np.ndarray | None = None,
        common: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Scores of pairs of embeddings: see `gnn_core.training.link_ranking.LinkScorer`."""
        parts = [shared_tensor(part) for part in (left, right, structure) if part is not None]
        if common is not None:
            parts.append(tuple(map(shared_tensor, common)))
        return self._scores(*parts).numpy()
