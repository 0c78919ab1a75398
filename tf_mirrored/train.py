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

from gnn_core.config import parse_config
from gnn_core.launch import guarded
from gnn_core.strategies import KERAS_REFUSES
from gnn_core.training.run import run
from tf_mirrored.framework import keras_framework


def main() -> int:
    """Read the command line, join the other replicas, train; the exit code."""
    return run(lambda: parse_config(None, "Keras", KERAS_REFUSES), keras_framework())


if __name__ == "__main__":
    sys.exit(guarded(main))
