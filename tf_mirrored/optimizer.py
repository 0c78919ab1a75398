"""Adam and SGD of Keras, made to take the very steps that torch's take.

Keras adds epsilon before it corrects the bias, and its weight decay is decoupled from the gradient;
torch does neither. The gradients arrive summed over the replicas (see `tf_mirrored.update`), so the
sum that Keras would make is left out: it would send every weight's gradient by itself.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops


class _Summed(keras.optimizers.Optimizer):
    """Gradients are the same on every replica already."""

    l2 = 0.0  # pull on the weights, added to the gradient

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:  # Keras 3.15's own hook
        return grads_and_vars

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        if self.l2:
            gradient = gradient + self.l2 * tf.convert_to_tensor(variable)
        super().update_step(gradient, variable, learning_rate)


class _TorchAdam(keras.optimizers.Adam):
    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        """Kingma and Ba, algorithm 1, with the bias corrected before epsilon is added."""
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        step = tf.cast(self.iterations + 1, tf.float64)  # float32 knows 1 - 0.999 to four digits
        biases = [1 - tf.constant(beta, tf.float64) ** step for beta in (self.beta_1, self.beta_2)]
        mean_bias, square_bias = (ops.cast(bias, variable.dtype) for bias in biases)
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (ops.square(gradient) - square) * (1 - self.beta_2))
        scale = ops.sqrt(square) / ops.sqrt(square_bias) + self.epsilon
        rate = ops.cast(learning_rate, variable.dtype) / mean_bias
        self.assign_sub(variable, rate * mean / scale)


class Adam(_Summed, _TorchAdam):
    """Adam."""


class SGD(_Summed, keras.optimizers.SGD):
    """Plain gradient descent."""


def make_optimizer(name: str, lr: float, l2: float) -> keras.optimizers.Optimizer:
    """`adam` or `sgd`, with torch's constants."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")  # of the learning rate; nothing else is made here
    try:
        optimizer = Adam(lr, epsilon=1e-8) if name == "adam" else SGD(lr)
    finally:
        keras.config.set_floatx(before)
    optimizer.l2 = l2
    return optimizer
