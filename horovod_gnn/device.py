"""What torch needs of the machine and of the data before the first step."""

from __future__ import annotations

import warnings

import torch

from gnn_core.config import RunConfig, UsageError
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.training.world import World
from horovod_gnn.sparse_rows import Table


def choose_device(config: RunConfig, world: World) -> torch.device:
    """The device of this rank: one GPU per local rank, or the CPU. Raises UsageError."""
    count = torch.cuda.device_count()
    if config.device == "cpu" or (config.device == "auto" and count == 0):
        return torch.device("cpu")
    if config.device == "cuda" and count == 0:
        raise UsageError("--device cuda: expected a GPU, found none; use --device cpu or auto")
    if world.local_rank >= count:
        raise UsageError(
            f"expected a GPU per rank, got {count} for local rank {world.local_rank}: start at "
            f"most {count} ranks per host, or use --device cpu"
        )
    return torch.device("cuda", world.local_rank)


def feature_table(graph: Graph) -> Table:
    """The features `[N, F]` on their own, memory-mapped and shared, memory: a tensor, or sparse."""
    if isinstance(graph.features, SparseFeatures):
        return graph.features
    with warnings.catch_warnings():
        # The map is read-only, and nothing here writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        table = torch.from_numpy(graph.features)
    return table.view(torch.bfloat16) if graph.feature_dtype == "bfloat16" else table
