"""Train GraphSAGE in one process: the denominator of every speed-up.

    python baselines/single.py
    python baselines/single.py --dataset cora --records results/runs

The same batches, model and loop as `horovod_gnn/train.py`, without Horovod and without a launcher.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    gc.disable()  # until all is imported: collecting garbage meanwhile takes half a second

from gnn_core.config import parse_config
from gnn_core.launch import guarded, launched_size
from gnn_core.strategies import STRATEGIES
from gnn_core.training.run import run
from gnn_core.usage import SharedUsageError
from horovod_gnn.learner import torch_framework
from horovod_gnn.parallel import SingleProcess


def main() -> int:
    """Read the command line and train; the exit code."""
    if launched_size() > 1:
        raise SharedUsageError(
            f"expected one process, got {launched_size()} copies of it: start it with "
            "`python baselines/single.py`, or several ranks with "
            "`horovodrun -np 4 python horovod_gnn/train.py`"
        )
    framework = torch_framework("single", lambda config: SingleProcess())
    return run(lambda: parse_config(None, "single", STRATEGIES["single"].refuses), framework)


if __name__ == "__main__":
    sys.exit(guarded(main))
