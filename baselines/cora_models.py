"""Classify Cora's papers without message passing: by words, place in the graph, or both.

    python baselines/cora_models.py --model words --seeds 0-9        # a dense net on the words
    python baselines/cora_models.py --model graph --seeds 0-9        # embeddings of the graph alone
    python baselines/cora_models.py --model graph+words --seeds 0-9  # pre-trained on both
    python baselines/cora_models.py --strategy mirrored --replicas 2       # two replicas
    mpirun -np 2 python baselines/cora_models.py --strategy multiworker    # in two processes
    python baselines/cora_models.py --help

What GraphSAGE adds on the same split is `baselines/single.py --dataset cora`. Each seed leaves a
record in results/runs; `python -m gnn_core.report.analysis results/` makes a table of them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from baselines.cora.papers import open_graph
from baselines.cora.settings import parse
from gnn_core.launch import guarded, launched_size


def main() -> int:
    """Read the command line, join the other replicas, train; the exit code."""
    settings = parse(sys.argv[1:])
    if launched_size() == 1:  # report at once what is not there: TensorFlow takes long to start
        open_graph(settings)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported, below
    from tf_mirrored.strategy import start

    world = start(settings.strategy, settings.replicas, settings.threads, settings.device)
    from baselines.cora.run import run_all  # imports TensorFlow, which must not precede `start`

    code = run_all(settings, world)
    world.leave()
    return code


if __name__ == "__main__":
    sys.exit(guarded(main))
