"""Keras for `gnn_core.training`. TensorFlow is imported when a run starts, not before.

Importing it takes seconds, which neither `--help` nor a slip in the flags should cost; and the MPI
world must be asked first (see `tf_mirrored.cluster`).
"""

from __future__ import annotations

from typing import Any

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.training.learner import Framework
from gnn_core.training.world import World
from gnn_core.usage import UsageError


def keras_framework() -> Framework:
    """Keras, with its replicas joined as `--strategy` says."""
    return Framework(lambda config: config.strategy, _start, _prepare, _learn)


def _start(config: RunConfig | None) -> World:
    from tf_mirrored.strategy import start

    if config is None:  # the others are to hear of it, and only workers have others
        return start("multiworker")
    return start(
        config.strategy,
        config.replicas,
        config.threads,
        config.device,
        config.start_timeout,
        config.collective_timeout,
    )


def _prepare(config: RunConfig, world: World) -> None:
    replicas = world.num_replicas
    if rest := config.global_batch_size % replicas:
        nearest = config.global_batch_size - rest
        raise UsageError(
            f"--global-batch-size: expected a multiple of {replicas}, one slice of equal size for "
            f"each replica, got {config.global_batch_size}: use {nearest or replicas} or another "
            "number of replicas"
        )


def _learn(config: RunConfig, graph: Graph, world: World) -> Any:
    from tf_mirrored.learner import KerasLearner
    from tf_mirrored.strategy import Replicas

    assert isinstance(world, Replicas)
    with world.noticing_losses():  # variables are the same everywhere: all workers have to come
        return KerasLearner(config, graph, world)
