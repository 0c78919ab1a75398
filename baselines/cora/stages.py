"""The two stages of training, in one custom loop that is the same under every strategy.

Gradients are summed over replicas (Keras' optimizers do so in a replica's context), so each replica
divides its own sum of losses by the number of real papers in the *global* batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from baselines.cora.draws import BatchArrays, Draw
from baselines.cora.networks import Classifier, Encoder, Tensors, contrastive_losses
from baselines.cora.settings import CoraSettings
from gnn_core.measure.metrics import SPLITS, Tally
from gnn_core.measure.timing import Stopwatch
from gnn_core.training.evaluate import tally_of
from gnn_core.training.state import Diverged
from tf_mirrored.strategy import Replicas

Losses = Callable[[Tensors], tuple[tf.Tensor, tf.Tensor]]
CompiledStep = Callable[[list[BatchArrays]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Group:
    """Variables that one optimizer moves. To be made in the strategy's scope."""

    variables: Sequence[keras.Variable]
    optimizer: keras.Optimizer
    decay: float = 0.0  # L2 pull

    def __post_init__(self) -> None:
        """Make the optimizer's own variables now: a traced step may not."""
        self.optimizer.build(self.variables)


def compiled_step(world: Replicas, losses: Losses, groups: Sequence[Group]) -> CompiledStep:
    """One step over all replicas, and what it returns: sums of losses and of right answers, [2].

    Args:
        world: the replicas.
        losses: a batch's loss and whether it was right, float32 `[n]` each.
        groups: what is moved.
    """

    def on_replica(batch: Tensors) -> tf.Tensor:
        with tf.GradientTape() as tape:
            each, right = losses(batch)
            loss = tf.reduce_sum(each * batch["weights"])
            mean = loss / batch["total"]
        moved = [variable.value for group in groups for variable in group.variables]
        gradients = iter(tape.gradient(mean, moved))
        for group in groups:
            pull = group.decay / world.num_replicas  # the replicas' pulls are added up, too
            dense = [tf.convert_to_tensor(next(gradients)) + v * pull for v in group.variables]
            group.optimizer.apply_gradients(zip(dense, group.variables, strict=True))
        return world.add_up(tf.stack([loss, tf.reduce_sum(right * batch["weights"])]))

    @tf.function(reduce_retracing=True, autograph=False)
    def step(batches: list[Tensors]) -> tf.Tensor:
        return world.on_each(on_replica, batches)[0]

    def met(batches: list[BatchArrays]) -> npt.NDArray[np.float32]:
        with world.noticing_losses():
            return step(batches).numpy()

    return met


def pretrain(
    encoder: Encoder, draw: Draw, world: Replicas, after_epoch: Callable[[float], None]
) -> None:
    """Teach the encoder which papers lie around which; no label is read."""
    settings = draw.settings
    with world.strategy.scope():
        group = Group(encoder.variables, keras.optimizers.Adam(settings.pretrain_lr))

    def losses(batch: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        each = contrastive_losses(encoder, batch, settings.temperature)
        return each, tf.zeros_like(each)

    step = compiled_step(world, losses, [group])
    for epoch in range(settings.pretrain_epochs):
        falling = (1 + math.cos(math.pi * epoch / settings.pretrain_epochs)) / 2
        group.optimizer.learning_rate = settings.pretrain_lr * falling
        parts = [
            draw.pretraining(epoch, replica, world.num_replicas) for replica in world.local_replicas
        ]
        total = sum(step(list(batches))[0] for batches in zip(*parts, strict=True))
        after_epoch(_finite(total / draw.papers.num_papers, "pre-training", epoch))


@dataclass
class Course:
    """How the training of a classifier went."""

    tallies: list[Tally] = field(default_factory=list)  # of each epoch, while training
    valid: list[float | None] = field(default_factory=list)  # accuracy after each epoch
    laps: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    scores: dict[str, Tally] = field(default_factory=dict)  # of each split after the best epoch


def classify(classifier: Classifier, draw: Draw, world: Replicas) -> Course:
    """Teach the classifier the training papers' labels, and what lies below it along with it.

    The best epoch is the first of the best on the validation papers. Only then is the test looked
    at; nothing depends on it.
    """
    settings, course, watch = draw.settings, Course(), Stopwatch()
    step = _classifier_step(classifier, settings, world)
    forward = tf.function(classifier.__call__, autograph=False)

    def score(split: str) -> Tally:
        nodes = draw.papers.nodes[split]
        return tally_of(forward(draw.whole(nodes)).numpy(), draw.papers.labels[nodes])

    for epoch in range(settings.epochs):
        with watch.section("fetch"):
            batches = [
                draw.training(epoch, replica, world.num_replicas, classifier.encoder.outputs)
                for replica in world.local_replicas
            ]
        with watch.section("compute"):
            loss, right = map(float, step(batches))
        count = len(draw.papers.nodes["train"])
        course.tallies.append(Tally(_finite(loss, "training", epoch), round(right), count))
        with watch.section("evaluate"):
            valid = score("valid")
            best = course.scores.get("valid", Tally()).correct
            if not course.scores or valid.correct > best:
                course.best_epoch = epoch
                course.scores = {split: score(split) for split in SPLITS[1:]}
        course.valid.append(valid.accuracy)
        course.laps.append(watch.lap())
    return course


def _classifier_step(
    classifier: Classifier, settings: CoraSettings, world: Replicas
) -> CompiledStep:
    adam, encoder, head = keras.optimizers.Adam, classifier.encoder, classifier.head
    # What was pre-trained stays where it is unless a label pulls: with Adam, a decay however small
    # would move the rows of papers without labels as fast as those with one.
    decay = 0.0 if encoder.is_pretrained else settings.decay
    with world.strategy.scope():
        groups = [
            Group(encoder.variables, adam(settings.tuning_lr), decay),
            Group(head.trainable_variables, adam(settings.head_lr), settings.decay),
        ]

    def losses(batch: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        logits, labels = classifier(batch), batch["labels"]
        right = tf.argmax(logits, axis=1, output_type=labels.dtype) == labels
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return each, tf.cast(right, tf.float32)

    return compiled_step(world, losses, groups)


def _finite(loss: float, stage: str, epoch: int) -> float:
    if not math.isfinite(loss):
        raise Diverged(f"the loss of {stage} epoch {epoch + 1} is {loss}: lower the learning rate")
    return float(loss)
