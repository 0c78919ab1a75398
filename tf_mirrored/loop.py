"""One epoch of training under tf.distribute: batches in, an averaged gradient a step, sums out.

One function is traced once for a whole run and holds a step of every replica of this process.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from gnn_core.data.loader import Loader
from gnn_core.measure.metrics import Tally
from gnn_core.measure.timing import Stopwatch
from gnn_core.schedule import Schedule
from gnn_core.training.learner import RunProgress
from tf_mirrored.input import Feed, Prepared, StepInput, prepared
from tf_mirrored.link import LinkModel
from tf_mirrored.model import GraphSAGE, trainable
from tf_mirrored.objective import Objective
from tf_mirrored.strategy import Replicas

STATISTICS = 4  # loss sum, correct, sampled edges, processes asked to stop


@dataclass
class Training:
    """What one step after the other works on."""

    model: GraphSAGE | LinkModel
    objective: Objective
    optimizer: keras.optimizers.Optimizer
    loaders: list[Loader]  # one for each replica of this process
    feed: Feed
    table: tf.Tensor  # [N, F] features
    schedule: Schedule
    replicas: Replicas
    watch: Stopwatch
    prefetch: int
    interrupted: bool = False  # some process knew a reason to, and all know it
    lr: float = 0.0
    traced: Any = field(init=False)
    step: Any = field(init=False)  # the one trace of it

    def __post_init__(self) -> None:
        """Trace the step, once: lengths are left open, so that no batch makes for another one."""
        steps = [self.feed.signature()] * len(self.loaders)
        extra = tf.TensorSpec([2], self.feed.real)  # sampled edges, whether to stop
        table = tf.TensorSpec(self.table.shape, self.table.dtype)
        self.traced = tf.function(self._step, autograph=False)
        self.step = self.traced.get_concrete_function(table, steps, [extra] * len(steps))

    @property
    def vector_bytes(self) -> int:
        """What a step adds up over the replicas: gradients and statistics in one vector."""
        size = sum(math.prod(v.shape) for v in trainable(self.model))
        return (size + STATISTICS) * self.feed.real.size

    def _step(self, table: tf.Tensor, steps: list[StepInput], extras: list[tf.Tensor]) -> Any:
        def work(mine: tuple[StepInput, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            return self._step_of_replica(table, *mine)

        results = self.replicas.on_each(work, list(zip(steps, extras, strict=True)))
        seconds = tf.add_n([seconds for _, seconds in results]) / len(results)
        return results[0][0], seconds

    def _step_of_replica(
        self, table: tf.Tensor, step: StepInput, extra: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Forward, backward, sum, update; the statistics of all replicas, seconds of the sum."""
        variables = trainable(self.model)
        with tf.GradientTape() as tape:
            loss_sum, correct = self.objective(self.model, table, step)
            # Divided by the targets of all ranks, so that the sum is the mean over targets.
            loss = loss_sum / step.num_global_real
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        flat = [tf.reshape(gradient, [-1]) for gradient in gradients]
        vector = tf.concat([*flat, tf.stack([loss_sum, correct]), extra], axis=0)
        with tf.control_dependencies([vector]):
            began = tf.timestamp()
        vector = self.replicas.add_up(vector)
        with tf.control_dependencies([vector]):
            seconds = tf.timestamp() - began
        sizes = [math.prod(variable.shape) for variable in variables]
        *flat, statistics = tf.split(vector, [*sizes, STATISTICS])
        gradients = [tf.reshape(g, v.shape) for g, v in zip(flat, variables, strict=True)]
        self.optimizer.apply(gradients, variables)
        return statistics, seconds

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step."""
        if rate != self.lr:
            self.optimizer.learning_rate.assign(rate)
            self.lr = rate


def train_epoch(
    training: Training, progress: RunProgress, after_step: Callable[[float], None]
) -> Tally:
    """Train from `progress` to the end of its epoch; the tally of the whole epoch.

    Raises:
        Diverged: the loss is NaN or infinite, on all ranks alike.
    """
    watch, depth = training.watch, training.prefetch
    with contextlib.ExitStack() as stack:
        iterators = [
            stack.enter_context(
                contextlib.closing(
                    prepared(loader, training.feed, progress.epoch, progress.step, depth)
                )
            )
            for loader in training.loaders
        ]
        while True:
            with watch.section("wait"):
                batches = [next(iterator, None) for iterator in iterators]
            if batches[0] is None:
                break
            for found in batches:
                watch.add("sample", found.batch.sample_seconds, out_of=None if depth else "wait")
            statistics = _step(training, batches)
            loss = progress.advance(batches[0].batch, statistics)
            training.interrupted = statistics[-1] > 0
            after_step(loss)
            if training.interrupted:
                break
    return Tally.from_vector(progress.tally)


def _step(training: Training, batches: list[Prepared]) -> list[float]:
    """One step of every replica; its statistics summed over all of them."""
    batch, watch = batches[0].batch, training.watch
    with watch.section("compute"):
        training.set_rate(
            training.schedule.rate(batch.epoch, batch.step, training.loaders[0].num_steps)
        )
        stop = training.replicas.interrupted
        extras = [
            tf.constant([found.batch.num_edges, float(stop)], training.feed.real)
            for found in batches
        ]
        steps = [found.step for found in batches]
        with training.replicas.noticing_losses():
            statistics, seconds = training.step(training.table, steps, extras)
            statistics = statistics.numpy().tolist()
    watch.add("communicate", float(seconds), out_of="compute")
    return statistics
