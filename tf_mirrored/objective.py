"""The loss, as in `horovod_gnn/objective.py`: the sum of losses and how many were right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from gnn_core.models import BCE_SHARE
from tf_mirrored.input import CommonInput, StepInput

# (model, features [N, F], step) -> (sum of the losses, number of right targets), of real targets
Objective = Callable[[Any, tf.Tensor, StepInput], tuple[tf.Tensor, tf.Tensor]]


def node_objective(model: Any, table: tf.Tensor, step: StepInput) -> tuple[tf.Tensor, tf.Tensor]:
    """Cross-entropy of the labels; right is a target whose largest logit is its label."""
    logits = model(table, step)[: tf.shape(step.labels)[0]]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(step.labels, logits)
    right = tf.equal(tf.argmax(logits, 1, tf.int32), step.labels)
    return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, losses.dtype))


def link_objective(
    model: Any, table: tf.Tensor, step: StepInput, loss: str = "bce"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Telling each edge from its negatives; right is one that scores above the first of them."""
    assert step.pairs is not None
    embeddings = model(table, step)
    sources, destinations, negatives, structure, common = step.pairs
    count, per_edge = tf.shape(negatives)[0], negatives.shape[1]
    sizes = [count, count, count * per_edge]
    ends = [sources, destinations, tf.reshape(negatives, [-1])]
    if common is not None:
        ends += [part.nodes for part in common]
        sizes += [tf.shape(part.nodes)[0] for part in common]
    # Read in one go, so that the gradient is added up in one go.
    left, right, others, *near = tf.split(
        tf.gather(embeddings, tf.concat(ends, axis=0)), sizes, num=len(sizes)
    )
    of_edges = of_others = None
    if structure is not None:
        of_edges = structure[:, 0]
        of_others = tf.reshape(structure[:, 1:], [-1, structure.shape[2]])
    sums: list[Any] = [None, None]  # over common neighbours
    if common is not None:
        sums = [_sums(part, states) for part, states in zip(common, near, strict=True)]
    positive = model.scores(left, right, of_edges, sums[0])
    repeated = tf.repeat(left, per_edge, axis=0)
    negative = tf.reshape(model.scores(repeated, others, of_others, sums[1]), [-1, per_edge])
    losses = tf.nn.softplus(-positive) + tf.reduce_mean(tf.nn.softplus(negative), axis=1)
    if loss == "softmax":
        scores = tf.concat([positive[:, None], negative], axis=1)
        losses = tf.reduce_logsumexp(scores, axis=1) - positive + BCE_SHARE * losses
    # Drawn as its own negative a paper has one score twice, but for rounding: that is no win.
    wins = (positive > negative[:, 0]) & (destinations != negatives[:, 0])
    wins = tf.cast(wins, losses.dtype)
    return tf.reduce_sum(losses), tf.reduce_sum(wins)


def _sums(common: CommonInput, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pairs int32 `[R]`, and the weighted sums `[R, width]` over their common neighbours."""
    return common.pairs, tf.math.segment_sum(states * common.weights, common.segments)
