"""Train GraphSAGE with PyTorch on one rank or many; Horovod's ring allreduce adds up the gradients.

    horovodrun -np 4 python horovod_gnn/train.py                    # four ranks, the default graph
    horovodrun -np 4 python horovod_gnn/train.py --dataset cora     # a real one
    horovodrun -np 8 -H one:4,two:4 python horovod_gnn/train.py     # two hosts
    mpirun -np 4 python horovod_gnn/train.py --config run.yaml      # straight over MPI
    python horovod_gnn/train.py --dry-run                           # what would run, and its memory
    horovodrun -np 2 python horovod_gnn/train.py --checkpoint-dir saved --resume    # go on there

With `--host-discovery-script ./hosts.sh --slots-per-host 1` horovodrun takes in hosts while the
run goes on, and does without those that are lost. The loss curve is the same on any number of
ranks, and when that changes. `baselines/single.py` is the same program without Horovod, the
denominator of every speed-up. Each run leaves a record in results/runs;
`python -m gnn_core.report.analysis results/` makes a table of them.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    gc.disable()  # until all is imported: collecting garbage meanwhile takes half a second

from gnn_core.config import parse_config
from gnn_core.launch import guarded
from gnn_core.strategies import STRATEGIES
from gnn_core.training.run import run
from horovod_gnn.learner import torch_framework
from horovod_gnn.parallel import HorovodWorld


def main() -> int:
    """Read the command line, join the other ranks, train; the exit code."""
    framework = torch_framework("horovod", HorovodWorld)
    return run(lambda: parse_config(None, "horovod", STRATEGIES["horovod"].refuses), framework)


if __name__ == "__main__":
    sys.exit(guarded(main))
