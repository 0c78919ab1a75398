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

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("torch")

from baselines.process_group import ProcessGroup, join
from gnn_core.config import RunConfig, parse_config
from gnn_core.strategies import STRATEGIES
from gnn_core.training.balance import Balancer
from gnn_core.training.job import run_job
from gnn_core.training.preparation import open_graph
from gnn_core.training.tasks import open_store, train_loader
from gnn_core.training.trainer import Trainer
from horovod_gnn.learner import TorchLearner, set_up_torch
from horovod_gnn.models import build_model
from horovod_gnn.update import Allreduce, build_optimizer


def build(config: RunConfig, world: ProcessGroup) -> Trainer:
    """All that a run consists of, in the order in which data flows through it."""
    config, graph = open_graph(config, world, set_up_torch)  # memory-mapped: one copy a host
    store = open_store(config, graph, world)  # the features: a table, or parts of all ranks
    place = (world.rank, world.world_size, config.prefetch)
    balancer = Balancer.of(config, world)  # who computes how much, with --balance
    loader = train_loader(config, graph, *place, store=store, balancer=balancer)
    model = build_model(config, graph, world)  # the same weights on every rank
    update = Allreduce(model, build_optimizer(config, model), world)  # one collective a step
    learner = TorchLearner(config, graph, world, loader, model, update, store, balancer)
    return Trainer("ddp", config, graph, world, learner)


def main() -> int:
    """Read the command line, join the other ranks, train; the exit code."""
    return run_job(lambda: parse_config(None, "ddp", STRATEGIES["ddp"].refuses), join, build)


if __name__ == "__main__":
    code = guarded(main, meets_by_rank=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # On a busy machine torch's Gloo (2.13) now and then aborts an interpreter that ends in order:
    # `terminate called without an active exception`, after the record was written.
    os._exit(code)
