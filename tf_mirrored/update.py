"""How a step's gradients become new weights: summed over the replicas by one allreduce."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from gnn_core.config import RunConfig
from gnn_core.training.state import StepSums
from tf_mirrored.link import LinkModel
from tf_mirrored.model import GraphSAGE, trainable
from tf_mirrored.optimizer import make_optimizer
from tf_mirrored.strategy import Replicas


class Allreduce:
    """Synchronous data parallelism: the replicas add up their gradients and take the same step.

    Args:
        variables: what is trained.
        optimizer: applies the gradients; built for these variables.
        replicas: those of this process, and the others.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        optimizer: keras.optimizers.Optimizer,
        replicas: Replicas,
    ):
        self.optimizer = optimizer
        self.variables = list(variables)
        self._replicas = replicas
        self._sizes = [math.prod(variable.shape) for variable in self.variables]
        self._lr: float | None = None

    def bytes_per_step(self, real: tf.DType) -> int:
        """What a step adds up over the replicas: gradients and sums in one vector."""
        return (sum(self._sizes) + len(StepSums._fields)) * real.size

    def set_rate(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        if lr != self._lr:
            self.optimizer.learning_rate.assign(lr)
            self._lr = lr

    def __call__(
        self, gradients: Sequence[tf.Tensor], sums: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Traced: take the optimizer's step with the gradients of all replicas.

        Args:
            gradients: of this replica's share of the mean loss, one for each variable.
            sums: `[4]`, a `StepSums` of this replica's targets.

        Returns:
            The sums over all replicas, and the seconds of the collective.
        """
        vector = tf.concat([*(tf.reshape(gradient, [-1]) for gradient in gradients), sums], axis=0)
        with tf.control_dependencies([vector]):
            began = tf.timestamp()
        vector = self._replicas.add_up(vector)
        with tf.control_dependencies([vector]):
            seconds = tf.timestamp() - began
        *flat, sums = tf.split(vector, [*self._sizes, len(StepSums._fields)])
        shaped = [tf.reshape(g, v.shape) for g, v in zip(flat, self.variables, strict=True)]
        self.optimizer.apply(shaped, self.variables)
        return sums, seconds


def build_optimizer(config: RunConfig, model: GraphSAGE | LinkModel) -> keras.optimizers.Optimizer:
    """The optimizer that `--optimizer` names, with its variables."""
    optimizer = make_optimizer(config.optimizer, config.lr, config.weight_decay)
    optimizer.build(trainable(model))
    return optimizer
