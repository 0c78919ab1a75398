"""Compare the strategies side by side: all of them on the same graph and cores, taking turns.

    python baselines/compare.py                                  # the default graph, three rounds
    python baselines/compare.py --dataset synthetic-arxiv --epochs 2 --rounds 1 --ranks 2
    python baselines/compare.py --only single horovod            # torch alone
    python baselines/compare.py -- --hidden 256 --seed 1         # flags of every run

A round runs each launch once, so that whatever else the machine does meets them alike, and the
speed-ups are made round by round. The first epoch of a run warms up and is not counted. Each
comparison has a folder of its own, with the records, the table and a picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gnn_core.launch import guarded
from gnn_core.sweep.compare import main

if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:], __doc__)))
