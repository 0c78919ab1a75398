"""Predict with a saved model on one rank or many: classes, logits, embeddings, missing citations.

    horovodrun -np 4 python horovod_gnn/predict.py --checkpoint-dir saved --output pred.csv
    python baselines/predict.py --checkpoint-dir saved --output pred.csv         # one process
    ... --dataset grown --output pred.parquet              # a graph with other nodes and edges
    ... --what embeddings --layer 1 --output states.npy    # and states.ids.npy, whose rows they are
    ... --papers 12,99 --top-k 10 --output missing.csv     # of a model of --task link
    ... --export pyg --output model.pt                     # weights for PyTorch Geometric

Every layer is computed for all neighbours, once, split over the ranks, as in evaluation: the number
of ranks does not change the answers. The checkpoint may be of any trainer, Keras included.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    gc.disable()  # until all is imported: collecting garbage meanwhile takes half a second

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("torch")

from horovod_gnn.parallel import HorovodWorld
from horovod_gnn.prediction import run


def main() -> int:
    """Read the command line, join the other ranks, predict; the exit code."""
    return run(__doc__, HorovodWorld)


if __name__ == "__main__":
    sys.exit(guarded(main))
