"""GraphSAGE in Keras: the same layers, names and numbers as `horovod_gnn/model.py`.

No `tf.distribute`, no configuration, no input or output. What a layer reads is prepared by
`tf_mirrored.input`: aggregation is a segment operation straight out of the table below, so no row
of a neighbour is ever gathered.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gnn_core.initial import initial_weights, layer_widths
from tf_mirrored.input import BlockInput, StepInput

_DTYPES = {"fp32": "float32", "bf16": "float32", "fp64": "float64"}


class DenseLayer(keras.layers.Layer):
    """Weight `[out, in]` and bias `[out]`, with a product that may round."""

    def __init__(
        self, in_features: int, out_features: int, product: Callable[..., tf.Tensor], **options: Any
    ):
        super().__init__(**options)
        self.product = product
        self.weight = self.add_weight((out_features, in_features), name="weight")
        self.bias = self.add_weight((out_features,), name="bias")
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """`[n, out]` from `[n, in]`."""
        return tf.nn.bias_add(self.product(x, self.weight.value), self.bias.value)


class GraphSAGE(keras.Model):
    """A stack of GraphSAGE layers with ReLU and keyed dropout between them.

    Args:
        in_features: width of the input features.
        hidden: width of every hidden layer.
        num_classes: width of the logits.
        layers: number of layers, which is the number of hops.
        aggregator: `mean`, `sum`, `max`, or `none` to look at no neighbour.
        precision: `fp32`, `bf16` or `fp64`.
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
        precision: str = "fp32",
        seed: int = 0,
    ):
        super().__init__(name="graphsage", dtype=_DTYPES[precision])
        widths = layer_widths(in_features, hidden, num_classes, layers)
        self.real = tf.as_dtype(_DTYPES[precision])
        self.product = rounded_product if precision == "bf16" else plain_product
        self.sage_layers = [  # left half of a weight: the node itself; right: its neighbours
            DenseLayer(2 * ins, outs, self.product, name=f"layers.{i}", dtype=self.real.name)
            for i, (ins, outs) in enumerate(itertools.pairwise(widths))
        ]
        self.aggregate = AGGREGATORS[aggregator]
        self.widths = tuple(widths[1:])
        self.built = True
        self.load(initial_weights(widths, seed))

    @property
    def named(self) -> dict[str, keras.Variable]:
        """The weights by the names that they have in every framework, in the order of layers."""
        return {
            f"{layer.name}.{variable.name}": variable
            for layer in self.sage_layers
            for variable in (layer.weight, layer.bias)
        }

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over weights of the same names and shapes; KeyError or ValueError if they differ."""
        for name, variable in self.named.items():
            variable.assign(weights[name])

    def call(self, table: tf.Tensor, step: StepInput) -> tf.Tensor:
        """Logits of the targets, `[num_targets, num_classes]`.

        Args:
            table: `[num_rows, in_features]`, read unless `step` brings rows of its own.
            step: see `StepInput`; what is dropped stands in it.
        """
        h = table if step.rows is None else step.rows
        if step.nodes is not None:  # of another dtype than the sums, or with dropped features
            h = tf.gather(h, step.nodes)
        h = tf.cast(h, self.real)
        if step.input_factors is not None:
            h *= step.input_factors
        for depth, block in enumerate(step.blocks):
            h = self.layer(depth, h, block)
        return h

    def layer(self, depth: int, h: tf.Tensor, block: BlockInput) -> tf.Tensor:
        """`[num_dst, out]` from `[num_rows, in]`; rectified and dropped unless it is the last."""
        out = self.sage_layers[depth](beside_neighbours(h, block, self.aggregate))
        if depth == len(self.sage_layers) - 1:
            return out
        return tf.nn.relu(out) if block.factors is None else dropped_relu(out, block.factors)


@tf.custom_gradient
def dropped_relu(x: tf.Tensor, factors: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """`relu(x) * factors`, both `[n, width]`, with factors >= 0 and no gradient of their own.

    TensorFlow's own gradient needs `relu(x)`, so that the product cannot be made in its place.
    """
    out = tf.nn.relu(x) * factors

    def backward(grad: tf.Tensor) -> tuple[tf.Tensor, None]:
        # Where a factor is zero so is the gradient: whether `out` or `relu(x)` is positive.
        return tf.raw_ops.ReluGrad(gradients=grad * factors, features=out), None

    return out, backward


def beside_neighbours(
    h: tf.Tensor, block: BlockInput, aggregate: Callable[[tf.Tensor, BlockInput], tf.Tensor]
) -> tf.Tensor:
    """States of the destinations beside those of their neighbours: `[num_dst, 2 * width]`."""

    def join(h: tf.Tensor) -> tf.Tensor:
        own = h[: block.num_dst] if block.rows is None else tf.gather(h, block.rows)
        return tf.concat([own, aggregate(h, block)], axis=1)

    back = block.back
    if back is None:
        return join(h)

    @tf.custom_gradient
    def with_gradient(h: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def backward(grad: tf.Tensor) -> tf.Tensor:
            rows = tf.reshape(grad, [2 * block.num_dst, h.shape[1]])
            rows = rows if back.shares is None else rows * back.shares
            return tf.sparse.segment_sum(rows, back.rows, back.segments, back.num_src)

        return join(h), backward

    return with_gradient(h)


def mean(h: tf.Tensor, block: BlockInput) -> tf.Tensor:
    """Mean over each destination's sampled neighbours; zero where there is none."""
    return tf.sparse.segment_mean(h, block.columns, block.segments, block.num_dst)


def total(h: tf.Tensor, block: BlockInput) -> tf.Tensor:
    """Their sum."""
    return tf.sparse.segment_sum(h, block.columns, block.segments, block.num_dst)


def maximum(h: tf.Tensor, block: BlockInput) -> tf.Tensor:
    """Their maximum; zero where there is none. Ties share the gradient evenly, as in PyG."""
    highest = tf.math.unsorted_segment_max(
        tf.gather(h, block.columns), block.segments, block.num_dst
    )
    degrees = tf.math.bincount(block.segments, minlength=block.num_dst, maxlength=block.num_dst)
    return tf.where(degrees[:, None] > 0, highest, tf.zeros_like(highest))


def nothing(h: tf.Tensor, block: BlockInput) -> tf.Tensor:
    """Zeros: a layer that looks at no neighbour."""
    return tf.zeros([block.num_dst, h.shape[1]], h.dtype)


AGGREGATORS = {"mean": mean, "sum": total, "max": maximum, "none": nothing}


def plain_product(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """`x @ weight.T`."""
    return tf.matmul(x, weight, transpose_b=True)


@tf.custom_gradient
def rounded_product(x: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """`x @ weight.T`, the operands of all three products rounded to bfloat16, sums in float32."""
    x, weight = _rounded(x), _rounded(weight)

    def backward(grad: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        grad = _rounded(grad)
        return tf.matmul(grad, weight), tf.matmul(grad, x, transpose_a=True)

    return tf.matmul(x, weight, transpose_b=True), backward


def _rounded(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(values, tf.bfloat16), values.dtype)


def trainable(model: Any) -> Sequence[keras.Variable]:
    """The weights in the order of their names."""
    return list(model.named.values())
