"""Link prediction in Keras: encoder, predictor, names and numbers as in `horovod_gnn/link.py`.

No `tf.distribute`, no configuration, no input or output.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from gnn_core.initial import initial_predictor
from tf_mirrored.input import StepInput
from tf_mirrored.model import DenseLayer, GraphSAGE


class LinkModel(keras.Model):
    """An encoder, whose outputs are embeddings, and a predictor of pairs of them.

    Args:
        encoder: a GraphSAGE.
        predictor_layers: dense layers on the product of two embeddings; the last gives one number.
        seed: of the predictor's initial weights.
        structure_width: number of structural features of a pair that are the first layer's input
            beside the product; 0 reads none.
        reads_common: whether sums over common neighbours are its input, too.
    """

    def __init__(
        self,
        encoder: GraphSAGE,
        predictor_layers: int,
        seed: int,
        structure_width: int = 0,
        reads_common: bool = False,
    ):
        super().__init__(name="link", dtype=encoder.real.name)
        self.encoder = encoder
        weights = initial_predictor(
            encoder.widths[-1], predictor_layers, seed, structure_width, reads_common
        )
        self.dense_layers = []
        for depth in range(predictor_layers):
            outs, ins = weights[f"{depth}.weight"].shape
            name = f"predictor.layers.{depth}"
            layer = DenseLayer(ins, outs, encoder.product, name=name, dtype=encoder.real.name)
            layer.weight.assign(weights[f"{depth}.weight"])
            layer.bias.assign(weights[f"{depth}.bias"])
            self.dense_layers.append(layer)
        self.structure = self._beside("structure.weight", weights)
        self.common = self._beside("common.weight", weights)
        self.built = True

    def _beside(self, name: str, weights: Mapping[str, np.ndarray]) -> keras.Variable | None:
        """The weights of another input of the first layer, if it has that one."""
        if name not in weights:
            return None
        read = weights[name]
        variable = self.add_weight(name=name, shape=read.shape, dtype=self.encoder.real.name)
        variable.assign(read)
        return variable

    @property
    def named(self) -> dict[str, keras.Variable]:
        """The weights by the names that they have in every framework."""
        own = {
            f"{layer.name}.{variable.name}": variable
            for layer in self.dense_layers
            for variable in (layer.weight, layer.bias)
        }
        if self.structure is not None:
            own["predictor.structure.weight"] = self.structure
        if self.common is not None:
            own["predictor.common.weight"] = self.common
        return {f"encoder.{name}": v for name, v in self.encoder.named.items()} | own

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over weights of the same names and shapes; KeyError or ValueError if they differ."""
        for name, variable in self.named.items():
            variable.assign(weights[name])

    def call(self, table: tf.Tensor, step: StepInput) -> tf.Tensor:
        """Embeddings of the targets: see `GraphSAGE`."""
        return self.encoder(table, step)

    def scores(
        self,
        left: tf.Tensor,
        right: tf.Tensor,
        structure: tf.Tensor | None = None,
        common: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Scores `[n]`, any number, of pairs: see `horovod_gnn.link.LinkPredictor`."""
        h = left * right
        for depth, layer in enumerate(self.dense_layers):
            h = layer(h)
            if depth == 0 and self.structure is not None:
                h += self.encoder.product(tf.cast(structure, h.dtype), self.structure.value)
            if depth == 0 and self.common is not None:
                assert common is not None
                pairs, sums = common
                of_common = self.encoder.product(sums, self.common.value)
                h = tf.tensor_scatter_nd_add(h, pairs[:, None], of_common)
            if depth < len(self.dense_layers) - 1:
                h = tf.nn.relu(h)
        return tf.squeeze(h, 1)
