"""The networks: how a paper is known, and the classifier on top. No strategy, no data.

A batch is a dict of tensors; `draws` says what is in it. Its rows are whole papers, and nothing
here looks at the neighbours of one.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from baselines.cora.settings import CoraSettings
from gnn_core.seeding import key

Tensors = Mapping[str, tf.Tensor]
_UNIT_SCALE = 5.0  # unit vectors are short: logits of a few nats must not need large weights


class Encoder:
    """What represents a paper: a row of a table, a tower of dense layers on its words, or both.

    Args:
        settings: which of them, and how wide.
        num_papers: rows of the table.
        num_words: inputs of the tower.
        seed: of the initial weights.
    """

    def __init__(self, settings: CoraSettings, num_papers: int, num_words: int, seed: int):
        self.table = self.tower = None
        self.is_pretrained = settings.model != "words"
        if "graph" in settings.model:
            normal = keras.initializers.RandomNormal(stddev=0.1, seed=_of(seed, "table"))
            self.table = keras.layers.Embedding(
                num_papers, settings.width, embeddings_initializer=normal, name="table"
            )
            self.table.build()
        if "words" in settings.model:
            layers = [_dense(settings.hidden_units, seed, "hidden", activation="relu")]
            if self.is_pretrained:
                layers.append(_dense(settings.width, seed, "words"))
            self.tower = keras.Sequential(layers, name="tower")
            self.tower.build((None, num_words))
        parts = [part for part in (self.table, self.tower) if part is not None]
        self.outputs = settings.width * len(parts) if self.is_pretrained else settings.hidden_units

    @property
    def variables(self) -> list[keras.Variable]:
        """All weights, the table's first."""
        parts = [part for part in (self.table, self.tower) if part is not None]
        return [variable for part in parts for variable in part.trainable_variables]

    def __call__(self, batch: Tensors, role: str = "source") -> list[tf.Tensor]:
        """Float32 `[n, width]` for each way to know the papers `batch[role]`: table, then tower.

        Rows are of length 1 where they were pre-trained, by cosines that know no length.
        """
        rows = []
        if self.table is not None:
            rows.append(self.table(batch[role]))
        if self.tower is not None:
            rows.append(self.tower(batch[f"{role}_words"]))
        if not self.is_pretrained:
            return rows
        return [tf.math.l2_normalize(row, axis=1) for row in rows]


class Classifier:
    """One dense layer on what an encoder gives; `keep` in a batch is its dropout."""

    def __init__(self, encoder: Encoder, num_classes: int, seed: int):
        self.encoder = encoder
        self.scale = _UNIT_SCALE if encoder.is_pretrained else 1.0
        self.head = _dense(num_classes, seed, "head")
        self.head.build((None, encoder.outputs))

    def __call__(self, batch: Tensors) -> tf.Tensor:
        """Logits, float32 `[n, classes]`."""
        inputs = tf.concat(self.encoder(batch), axis=1) * self.scale
        return self.head(inputs * batch["keep"] if "keep" in batch else inputs)


def contrastive_losses(encoder: Encoder, batch: Tensors, temperature: float) -> tf.Tensor:
    """How hard each paper's context is to tell from the negatives, float32 `[n]`, in nats.

    Each way to know the paper has to find each way to know its context: so its row in the table
    finds the words of the papers around it, and its words find their rows.
    """
    sources, there, others = (encoder(batch, role) for role in ("source", "context", "negative"))
    is_context = batch["context"][:, None] == batch["negative"][None, :]
    losses = tf.zeros_like(batch["weights"])
    for source in sources:
        for context, negative in zip(there, others, strict=True):
            hit = tf.reduce_sum(source * context, axis=1, keepdims=True) / temperature
            missed = tf.matmul(source, negative, transpose_b=True) / temperature
            missed = tf.where(is_context, tf.float32.min, missed)
            every = tf.concat([hit, missed], axis=1)
            losses += tf.reduce_logsumexp(every, axis=1) - hit[:, 0]
    return losses


def _dense(units: int, seed: int, name: str, **options: str) -> keras.layers.Dense:
    glorot = keras.initializers.GlorotUniform(_of(seed, name))
    return keras.layers.Dense(units, kernel_initializer=glorot, name=name, **options)


def _of(seed: int, name: str) -> int:
    """The seed of one array of initial weights, as Keras takes it."""
    return key(seed, "initial", name) % 2**31
