"""Train GraphSAGE in one process: the denominator of every speed-up.

    python baselines/single.py
    python baselines/single.py --dataset cora --records results/runs

The same batches, model and loop as `horovod_gnn/train.py`, without Horovod and without a launcher.
"""

from __future__ import annotations

import gc
import sys
from functools import partial
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    gc.disable()  # until all is imported: collecting garbage meanwhile takes half a second

from gnn_core.launch import guarded, launched_size, require_packages

if __name__ == "__main__":
    require_packages("torch")

from gnn_core.config import RunConfig, parse_config
from gnn_core.strategies import STRATEGIES
from gnn_core.training.job import run_job
from gnn_core.training.preparation import open_graph
from gnn_core.training.tasks import open_store, train_loader
from gnn_core.training.trainer import Trainer
from gnn_core.usage import SharedUsageError
from horovod_gnn.learner import TorchLearner, set_up_torch
from horovod_gnn.models import build_model
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.update import Allreduce, build_optimizer


def build(config: RunConfig, world: SingleProcess) -> Trainer:
    """All that a run consists of, in the order in which data flows through it."""
    config, graph = open_graph(config, world, set_up_torch)  # memory-mapped: one copy a host
    store = open_store(config, graph, world)  # the features: a table, or parts of all ranks
    place = (world.rank, world.world_size, config.prefetch)
    loader = train_loader(config, graph, *place, store=store)
    model = build_model(config, graph, world)  # the same weights on every rank
    update = Allreduce(model, build_optimizer(config, model), world)  # one collective a step
    learner = TorchLearner(config, graph, world, loader, model, update, store)
    return Trainer("single", config, graph, world, learner)


def main() -> int:
    """Read the command line and train; the exit code."""
    if launched_size() > 1:
        raise SharedUsageError(
            f"expected one process, got {launched_size()} copies of it: start it with "
            "`python baselines/single.py`, or several ranks with "
            "`horovodrun -np 4 python horovod_gnn/train.py`"
        )
    refuses = STRATEGIES["single"].refuses
    read = partial(parse_config, None, "single", refuses)
    return run_job(read, lambda config: SingleProcess(), build)


if __name__ == "__main__":
    sys.exit(guarded(main))
