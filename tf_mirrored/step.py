"""A training step of every replica of this process, as one traced function."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_mirrored.input import Feed, StepInput
from tf_mirrored.link import LinkModel
from tf_mirrored.model import GraphSAGE
from tf_mirrored.objective import Objective
from tf_mirrored.strategy import Replicas
from tf_mirrored.update import Allreduce


class TracedStep:
    """Forward, backward and update; traced once, with lengths left open, for a whole run.

    Args:
        model: what is trained.
        objective: its loss.
        update: applies the gradients, with those of the other replicas.
        feed: says what its inputs look like.
        table: `[N, F]` features.
        replicas: those of this process, and the others.
    """

    def __init__(
        self,
        model: GraphSAGE | LinkModel,
        objective: Objective,
        update: Allreduce,
        feed: Feed,
        table: tf.Tensor,
        replicas: Replicas,
    ):
        self._model, self._objective, self._update = model, objective, update
        self._table, self._replicas = table, replicas
        num_local = len(replicas.local_replicas)
        extra = tf.TensorSpec([2], feed.real)
        spec = tf.TensorSpec(table.shape, table.dtype)
        self.traced = tf.function(self._step, autograph=False)
        self._function = self.traced.get_concrete_function(
            spec, [feed.signature()] * num_local, [extra] * num_local
        )

    def __call__(
        self, steps: list[StepInput], extras: list[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Take a step.

        Args:
            steps: of each replica of this process.
            extras: `[2]` of each: sampled edges, and whether training is to end.

        Returns:
            `[4]`, a `StepSums` over all replicas, and the mean seconds of the collective.
        """
        return self._function(self._table, steps, extras)

    def _step(self, table: tf.Tensor, steps: list[StepInput], extras: list[tf.Tensor]) -> Any:
        def work(mine: tuple[StepInput, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            return self._step_of_replica(table, *mine)

        results = self._replicas.on_each(work, list(zip(steps, extras, strict=True)))
        seconds = tf.add_n([seconds for _, seconds in results]) / len(results)
        return results[0][0], seconds

    def _step_of_replica(
        self, table: tf.Tensor, step: StepInput, extra: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        variables = self._update.variables
        with tf.GradientTape() as tape:
            loss_sum, correct = self._objective(self._model, table, step)
            # Divided by the targets of all ranks, so that the sum is the mean over targets.
            loss = loss_sum / step.num_global_real
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        sums = tf.concat([tf.stack([loss_sum, correct]), extra], axis=0)
        return self._update(gradients, sums)
