"""Measure what an allreduce costs under torch.distributed: seconds by message size.

    torchrun --nproc-per-node 2 baselines/ddp_probe.py --json two.json
    mpirun -np 2 python baselines/ddp_probe.py

Flags and figures are those of `horovod_gnn/probe.py`, its own ranks those of `baselines/ddp.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("torch")

from baselines.process_group import join
from horovod_gnn.probe import main

if __name__ == "__main__":
    sys.exit(guarded(lambda: main(lambda: join(None), "ddp"), meets_by_rank=True))
