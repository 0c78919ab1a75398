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

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("torch")

from gnn_core.config import RunConfig, parse_config
from gnn_core.strategies import STRATEGIES
from gnn_core.training.balance import Balancer
from gnn_core.training.job import run_job
from gnn_core.training.preparation import open_graph
from gnn_core.training.tasks import open_store, train_loader
from gnn_core.training.trainer import Trainer
from horovod_gnn.learner import TorchLearner, set_up_torch
from horovod_gnn.models import build_model
from horovod_gnn.parallel import HorovodWorld
from horovod_gnn.update import Allreduce, build_optimizer


def build(config: RunConfig, world: HorovodWorld) -> Trainer:
    """All that a run consists of, in the order in which data flows through it."""
    config, graph = open_graph(config, world, set_up_torch)  # memory-mapped: one copy a host
    store = open_store(config, graph, world)  # the features: a table, or parts of all ranks
    place = (world.rank, world.world_size, config.prefetch)
    balancer = Balancer.of(config, world)  # who computes how much, with --balance
    loader = train_loader(config, graph, *place, store=store, balancer=balancer)
    model = build_model(config, graph, world)  # the same weights on every rank
    update = Allreduce(model, build_optimizer(config, model), world)  # one collective a step
    learner = TorchLearner(config, graph, world, loader, model, update, store, balancer)
    return Trainer("horovod", config, graph, world, learner)


def main() -> int:
    """Read the command line, join the other ranks, train; the exit code."""
    return run_job(
        lambda: parse_config(None, "horovod", STRATEGIES["horovod"].refuses), HorovodWorld, build
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
