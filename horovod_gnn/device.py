"""The device that a rank computes on."""

from __future__ import annotations

import torch

from gnn_core.config import RunConfig, UsageError
from gnn_core.training.world import World


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
