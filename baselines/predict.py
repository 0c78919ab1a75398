"""Predict with a saved model in one process: classes, logits, embeddings, missing citations.

    python baselines/predict.py --checkpoint-dir saved --output pred.csv
    python baselines/predict.py --checkpoint-dir saved --dataset grown --output pred.parquet

The same flags and answers as `horovod_gnn/predict.py`, without Horovod and without a launcher.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    gc.disable()  # until all is imported: collecting garbage meanwhile takes half a second

from gnn_core.launch import guarded, launched_size, require_packages

if __name__ == "__main__":
    require_packages("torch")

from gnn_core.usage import SharedUsageError
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.prediction import run


def main() -> int:
    """Read the command line and predict; the exit code."""
    if launched_size() > 1:
        raise SharedUsageError(
            f"expected one process, got {launched_size()} copies of it: start it with "
            "`python baselines/predict.py`, or several ranks with "
            "`horovodrun -np 4 python horovod_gnn/predict.py`"
        )
    return run(__doc__, lambda config: SingleProcess())


if __name__ == "__main__":
    sys.exit(guarded(main))
