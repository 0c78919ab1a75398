"""Digits in Keras: a training script of one's own under tf.distribute, with Ringsage's records.

    python examples/digits_keras.py --strategy mirrored
    mpirun -np 2 python examples/digits_keras.py --strategy multiworker

Images and settings of `digits_torch.py`; the loss does not depend on the number of replicas.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from gnn_core import seeding
from gnn_core.data.loader import rank_slice
from gnn_core.launch import guarded
from gnn_core.measure.run_record import DatasetInfo
from gnn_core.strategies import keras_strategies
from gnn_core.training.run_log import RunLog
from tf_mirrored.strategy import start

TRAIN, TEST, BATCH, EPOCHS, LR, SEED = 1437, 360, 128, 10, 0.005, 0
DIGITS = DatasetInfo("digits", splits={"train": TRAIN, "test": TEST})


def main() -> int:
    """Train a small network, each replica on its share of each batch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strategy", default="one", choices=keras_strategies())
    strategy = parser.parse_args().strategy
    world = start(strategy, 2 if strategy == "mirrored" else None)  # before TensorFlow is imported
    import keras
    import tensorflow as tf
    from sklearn.datasets import load_digits

    from tf_mirrored.optimizer import make_optimizer
    from tf_mirrored.update import Allreduce

    images, labels = load_digits(return_X_y=True)
    images, split = (images / 16).astype("float32"), seeding.permutation(len(images), SEED, "split")
    keras.utils.set_random_seed(SEED)  # the same weights on every replica
    with world.strategy.scope():
        model = keras.Sequential([keras.layers.Dense(128, "relu"), keras.layers.Dense(10)])
        model.build((None, 64))
        optimizer = make_optimizer("adam", LR, 0.0)
        optimizer.build(model.trainable_variables)
        update = Allreduce(model.trainable_variables, optimizer, world)
    loss_sum = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")

    def step_of_replica(share):  # (images, labels, images of all replicas) -> sums over all
        with tf.GradientTape() as tape:
            loss = loss_sum(share[1], logits := model(share[0])) / share[2]
        right = tf.reduce_sum(tf.cast(tf.argmax(logits, 1) == share[1], tf.float32))
        gradients = tape.gradient(loss, model.trainable_variables)
        return update(gradients, tf.stack([loss, right, 0.0, 0.0]))[0]  # one allreduce

    step = tf.function(lambda shares: world.on_each(step_of_replica, shares)[0], autograph=False)
    log = RunLog(strategy, world, DIGITS, {"epochs": EPOCHS, "global_batch_size": BATCH, "lr": LR})
    for epoch in range(EPOCHS):
        order = split[seeding.permutation(TRAIN, SEED, "order", epoch)]
        for batch in np.array_split(order, range(BATCH, TRAIN, BATCH)):
            slices = [rank_slice(len(batch), i, world.num_replicas) for i in world.local_replicas]
            shares = [(images[batch[s]], labels[batch[s]], float(len(batch))) for s in slices]
            loss, right, *_ = step(shares).numpy().tolist()
            log.step(loss * len(batch), right, len(batch))
        log.epoch(LR)
    right = model(images[split[TRAIN:]]).numpy().argmax(1) == labels[split[TRAIN:]]
    if file := log.finish({"test_accuracy": float(right.mean())}, "results/digits"):
        print(f"last loss {loss:.6f}, test accuracy {right.mean():.4f}, record {file}")
    world.leave()
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
