"""Train GraphSAGE with Keras under tf.distribute: the baseline that Horovod is compared with.

    python tf_mirrored/train.py --strategy one                              # one replica
    python tf_mirrored/train.py --strategy mirrored --replicas 2            # two in one process
    mpirun -np 4 python tf_mirrored/train.py --strategy multiworker         # four processes
    TF_CONFIG='{...}' python tf_mirrored/train.py --strategy multiworker    # workers named by hand
    python tf_mirrored/train.py --dataset cora --dry-run                    # what would run
    python tf_mirrored/train.py --checkpoint-dir saved --resume             # go on there

The same batches, model, loss curve, flags, checkpoints and records as `horovod_gnn/train.py`; a
run that one of the two has begun the other can go on with. On a CPU a replica of `mirrored` is a
logical device. `multiworker` makes TF_CONFIG from the MPI world, and respects one that is set.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gnn_core.config import RunConfig, UsageError, parse_config
from gnn_core.launch import guarded
from gnn_core.models import DEFAULT
from gnn_core.strategies import KERAS_REFUSES
from gnn_core.training.job import run_job
from gnn_core.training.preparation import open_graph
from gnn_core.training.tasks import open_store, train_loader
from gnn_core.training.trainer import Trainer
from tf_mirrored.strategy import Replicas, join, require_equal_slices


def build(config: RunConfig, world: Replicas) -> Trainer:
    """All that a run consists of, in the order in which data flows through it."""
    config, graph = open_graph(config, world, require_equal_slices)  # one copy a host
    from tf_mirrored.learner import KerasLearner  # TensorFlow: `join` has asked MPI before
    from tf_mirrored.model import trainable
    from tf_mirrored.models import build_model
    from tf_mirrored.update import Allreduce, build_optimizer

    store = open_store(config, graph, world)  # the features: a table, or parts of all processes
    loaders = [
        train_loader(config, graph, replica, world.num_replicas, prefetch=0, store=store)
        for replica in world.local_replicas
    ]
    with world.noticing_losses(), world.strategy.scope():  # variables are the same everywhere
        model = build_model(config, graph)
        optimizer = build_optimizer(config, model)
        update = Allreduce(trainable(model), optimizer, world)  # one collective a step
    with world.noticing_losses():
        learner = KerasLearner(config, graph, world, loaders, model, update, store)
    return Trainer(config.strategy, config, graph, world, learner)


def read_settings() -> RunConfig:
    """The settings from the command line; raises UsageError."""
    config = parse_config(None, "Keras", KERAS_REFUSES)
    if config.model != DEFAULT:
        raise UsageError(
            f"--model {config.model}: expected {DEFAULT}, the only model in Keras; train this one "
            "with horovod_gnn/train.py"
        )
    return config


def main() -> int:
    """Read the command line, join the other replicas, train; the exit code."""
    return run_job(read_settings, join, build)


if __name__ == "__main__":
    sys.exit(guarded(main))
