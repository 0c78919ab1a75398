"""Train GraphSAGE with PyTorch on one rank or many; torch.distributed adds up the gradients.

    torchrun --nproc-per-node 4 baselines/ddp.py                    # four ranks, the default graph
    torchrun --nproc-per-node 4 baselines/ddp.py --dataset cora     # a real one
    mpirun -np 4 python baselines/ddp.py                            # the same ranks, started by MPI
    mpirun -np 8 -H one:4,two:4 python baselines/ddp.py             # two hosts
    python baselines/ddp.py --dry-run                               # what would run, and its memory
    torchrun --nproc-per-node 4 baselines/ddp.py --checkpoint-dir saved --resume    # go on there

The same batches, model, loop, loss curve, flags, checkpoints and records as `horovod_gnn/train.py`;
a run that one of the two has begun the other can go on with. Gradients meet over Gloo on CPUs and
over NCCL on GPUs, all of them in one collective a step, as under Horovod.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    gc.disable()  # until all is imported: collecting garbage meanwhile takes half a second

from baselines.process_group import join
from gnn_core.config import parse_config
from gnn_core.launch import guarded
from gnn_core.strategies import STRATEGIES
from gnn_core.training.run import run
from horovod_gnn.learner import torch_framework


def main() -> int:
    """Read the command line, join the other ranks, train; the exit code."""
    return run(
        lambda: parse_config(None, "ddp", STRATEGIES["ddp"].refuses), torch_framework("ddp", join)
    )


if __name__ == "__main__":
    code = guarded(main, meets_by_rank=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # On a busy machine torch's Gloo (2.13) now and then aborts an interpreter that ends in order:
    # `terminate called without an active exception`, after the record was written.
    os._exit(code)
