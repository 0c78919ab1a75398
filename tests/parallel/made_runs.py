"""Short trainings in memory, on any ranks, and how far two of them are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Assign
from gnn_core.measure.resources.resource_sampler import ResourceSampler
from gnn_core.measure.run_record import RunRecord
from gnn_core.training.elastic_state import ElasticState
from gnn_core.training.tasks import train_loader
from gnn_core.training.trainer import Trainer
from horovod_gnn.learner import TorchLearner
from horovod_gnn.parallel import SingleProcess
from tests.known_machine import known_machine

# 64 train targets in batches of 21: the last batch of an epoch holds one, for all ranks together.
SETTINGS: dict[str, Any] = {
    "dataset": "tiny",
    "epochs": 2,
    "hidden": 8,
    "fanouts": (3, 2),
    "global_batch_size": 21,
    "lr": 0.02,
    "dropout": 0.4,
    "input_dropout": 0.2,
    "precision": "fp64",
    "device": "cpu",
    "progress": "off",
    "quiet": True,
    "seed": 5,
}


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    record: RunRecord
    weights: dict[str, Tensor]  # those that did best on the validation split

    @property
    def losses(self) -> Tensor:
        """The mean loss of each step."""
        return torch.tensor(self.record.step_losses, dtype=torch.float64)


class TorchTrainer(Trainer):
    """What the tests look into."""

    learner: TorchLearner


def trainer_of(
    graph: Graph, parallel: SingleProcess, assign: Assign | None = None, **changes: Any
) -> TorchTrainer:
    """A trainer that has not begun."""
    config = RunConfig(**{**SETTINGS, **changes})
    learner = TorchLearner.of(config, graph, parallel)
    place = (parallel.rank, parallel.world_size, config.prefetch)
    if assign is not None:
        learner.loader = train_loader(config, graph, *place, assign, learner.feed.store)
    return TorchTrainer("horovod", config, graph, parallel, learner)


def run(trainer: Trainer) -> RunRecord:
    """The record of its run."""
    with known_machine():
        return trainer.run(ElasticState(ResourceSampler(trainer.config.sample_seconds)))


def trained(
    graph: Graph, parallel: SingleProcess, assign: Assign | None = None, **changes: Any
) -> Trained:
    """Train to the end and evaluate."""
    trainer = trainer_of(graph, parallel, assign, **changes)
    record = run(trainer)
    assert record.status == "ok", record.error
    assert isinstance(trainer.learner, TorchLearner)
    weights = {n: t.clone() for n, t in trainer.learner.model.state_dict().items()}
    return Trained(record, weights)


_ONCE: dict[tuple[str, str, str], Trained] = {}


def trained_once(graph: Graph, parallel: SingleProcess, **changes: Any) -> Trained:
    """The same, remembered: a world trains once on a graph with the same settings.

    All ranks run the same tests in the same order, so either each of them trains or none does.
    """
    key = (type(parallel).__name__, graph.fingerprint, repr(sorted(changes.items())))
    if key not in _ONCE:
        _ONCE[key] = trained(graph, parallel, **changes)
    return _ONCE[key]


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the largest of `theirs`."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def assert_same(ours: Trained, theirs: Trained, tolerance: float) -> None:
    """Both trained alike: each step's loss, the weights, all accuracies and counts."""
    assert len(ours.losses) == len(theirs.losses) > 0
    assert distance(ours.losses, theirs.losses) < tolerance
    assert ours.weights.keys() == theirs.weights.keys()
    for name, tensor in theirs.weights.items():
        assert distance(ours.weights[name], tensor) < tolerance, name
    for mine, other in zip(ours.record.epochs, theirs.record.epochs, strict=True):
        assert mine.train_accuracy == other.train_accuracy
        assert mine.valid_accuracy == other.valid_accuracy
        assert mine.num_targets == other.num_targets
        # A node that the targets of several ranks share is expanded by each of them.
        assert mine.num_sampled_edges >= other.num_sampled_edges
    assert ours.record.final["best_epoch"] == theirs.record.final["best_epoch"]
    assert ours.record.final["test_accuracy"] == theirs.record.final["test_accuracy"]
