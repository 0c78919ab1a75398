"""The loss curve, the weights and the accuracies do not depend on the number of ranks."""

# ruff: noqa: E402
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")


from gnn_core.data.clusters import find_clusters
from gnn_core.data.graph import Graph, write_graph
from gnn_core.training.balance import Balancer
from horovod_gnn.parallel import SingleProcess
from tests.parallel.made_runs import (
    Trained,
    assert_same,
    distance,
    trained,
    trained_once,
    trainer_of,
)
from tests.unit import made_mlp
from tests.unit.second_implementations import assigns_of

pytestmark = pytest.mark.needs_torch
ROUNDING = {"fp64": 1e-10, "fp32": 1e-5}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="mean, dropout"),
        pytest.param({"precision": "fp32"}, id="mean, dropout, fp32"),
        pytest.param({"precision": "fp32", "aggregator": "max"}, id="max, fp32"),
        pytest.param({"aggregator": "sum", "optimizer": "sgd"}, id="sum, sgd"),
        pytest.param({"aggregator": "max"}, id="max"),
        pytest.param({"layers": 3, "fanouts": (2, 3, -1)}, id="three layers"),
        pytest.param({"prefetch": 0, "global_batch_size": 64}, id="one step an epoch"),
        pytest.param({"lr_schedule": "cosine", "warmup_epochs": 1}, id="warm-up and cosine"),
    ],
)
def test_all_ranks_together_train_like_one_process(
    tiny_graph: Graph,
    parallel: SingleProcess,
    same_everywhere: Callable[[object], None],
    changes: dict[str, Any],
) -> None:
    alone = trained_once(tiny_graph, SingleProcess(), **changes)
    together = trained_once(tiny_graph, parallel, **changes)
    assert_same(together, alone, ROUNDING[changes.get("precision", "fp64")])
    same_everywhere([tensor.tolist() for tensor in together.weights.values()])
    same_everywhere(together.record.step_losses)


@pytest.mark.parametrize(
    ("assign", "changes"),
    [
        pytest.param("uneven", {"dropout": 0.0, "input_dropout": 0.0}, id="uneven, no dropout"),
        pytest.param("uneven", {"dropout": 0.3}, id="uneven"),
        pytest.param("by owner", {"dropout": 0.3}, id="by owner"),
        pytest.param("by cluster", {"dropout": 0.3}, id="by cluster"),
        pytest.param("uneven", {"prefetch": 0, "aggregator": "max"}, id="uneven, max"),
        pytest.param("by cluster", {"prefetch": 0, "aggregator": "max"}, id="by cluster, max"),
    ],
)
def test_who_computes_which_target_does_not_matter(
    tiny_graph: Graph, parallel: SingleProcess, changes: dict[str, Any], assign: str
) -> None:
    """Some ranks may get most of a batch's targets, and others none."""
    default = trained_once(tiny_graph, parallel, **changes)
    alone = trained_once(tiny_graph, SingleProcess(), **changes)
    other = trained(tiny_graph, parallel, assigns_of(tiny_graph)[assign], **changes)
    for expected in (default, alone):
        assert distance(other.losses, expected.losses) < 1e-12
    assert_same(other, alone, 1e-11)  # the weights, after so many steps of Adam


def test_a_graph_with_clusters_is_assigned_by_them(
    tiny_graph: Graph, parallel: SingleProcess
) -> None:
    """The record says so, and what each rank read."""
    ranks = parallel.world_size
    clustered = dataclasses.replace(tiny_graph, clusters=find_clusters(tiny_graph))
    runs = [trained(graph, parallel, epochs=1) for graph in (tiny_graph, clustered)]
    assert [run.record.assigned_by for run in runs] == ["slices", "locality"]
    assert distance(runs[1].losses, runs[0].losses) < 1e-12
    for run in runs:
        (epoch,) = run.record.epochs
        assert len(epoch.rank_rows) == len(epoch.rank_edges) == ranks
        assert sum(epoch.rank_edges) == epoch.num_sampled_edges
    reads = [run.record.epochs[0].rank_rows for run in runs]
    assert (reads[0] == reads[1]) == (ranks == 1)


@pytest.mark.parametrize(("cluster", "prefetch"), [(False, 0), (False, 2), (True, 2)])
def test_a_faster_rank_computes_more_of_the_same_batches(
    tiny_graph: Graph,
    parallel: SingleProcess,
    monkeypatch: pytest.MonkeyPatch,
    cluster: bool,
    prefetch: int,
) -> None:
    """Here each rank is faster than the one before it."""
    speed, real = 1.0 + parallel.rank, Balancer.after_step
    monkeypatch.setattr(
        Balancer,
        "after_step",
        lambda self, seconds: real(self, self.shares.values[parallel.rank] / speed),
    )
    graph = tiny_graph
    if cluster:
        graph = dataclasses.replace(graph, clusters=find_clusters(graph))
    alone = trained_once(tiny_graph, SingleProcess(), epochs=3)
    balanced = trained(graph, parallel, epochs=3, balance=1, prefetch=prefetch)
    assert distance(balanced.losses, alone.losses) < 1e-12
    assert_same(balanced, alone, 1e-11)
    edges = balanced.record.epochs[-1].rank_edges
    assert len(edges) == parallel.world_size
    if parallel.world_size > 1:
        assert edges[-1] > 1.3 * edges[0]


def test_ranks_are_measured_and_train_alike(tiny_graph: Graph, parallel: SingleProcess) -> None:
    alone = trained_once(tiny_graph, SingleProcess())
    assert_same(trained(tiny_graph, parallel, balance=2), alone, 1e-11)


@pytest.mark.parametrize("cache", ["0", "1KiB", "1MiB"])
def test_features_on_disk_train_like_those_in_memory(
    tiny_graph: Graph, parallel: SingleProcess, shared_path: Path, cache: str
) -> None:
    """Whatever is cached, on any number of ranks."""
    folder = shared_path / f"tiny {cache} {parallel.rank}"
    graph = write_graph(tiny_graph, folder)
    plain = trained_once(tiny_graph, SingleProcess())
    on_disk = trained(graph, parallel, feature_store="disk", disk_cache=cache)
    assert distance(on_disk.losses, plain.losses) < 1e-12
    assert_same(on_disk, plain, 1e-11)  # the weights, after so many steps of Adam
    reads = on_disk.record.feature_reads
    assert len(reads) == parallel.world_size
    assert all(one.reads > 0 and (one.hits > 0) == (cache != "0") for one in reads)


def test_another_model_trains_alike(tiny_graph: Graph, parallel: SingleProcess) -> None:
    with made_mlp.registered():
        alone = trained(tiny_graph, SingleProcess(), model="mlp")
        together = trained(tiny_graph, parallel, model="mlp")
    assert_same(together, alone, ROUNDING["fp64"])


@pytest.mark.parametrize("evaluation", ["exact", "sampled"])
def test_either_evaluation_gives_what_one_process_gives(
    tiny_graph: Graph, parallel: SingleProcess, evaluation: str
) -> None:
    runs = [
        trained_once(tiny_graph, world, eval=evaluation) for world in (SingleProcess(), parallel)
    ]
    finals = [run.record.final for run in runs]
    assert finals[0].keys() == finals[1].keys()
    for name, value in finals[0].items():
        assert finals[1][name] == pytest.approx(value, rel=1e-10), name
    assert finals[0]["test_accuracy"] is not None


def test_a_target_weighs_the_same_on_whatever_rank_it_is(
    tiny_graph: Graph, parallel: SingleProcess
) -> None:
    """Against autograd over the whole batch at once; ranks have shares of different sizes."""
    trainer = trainer_of(
        tiny_graph, parallel, global_batch_size=63, fanouts=(-1, -1), dropout=0.0, input_dropout=0.0
    )
    learner = trainer.learner
    batch = trainer_of(
        tiny_graph, SingleProcess(), global_batch_size=63, fanouts=(-1, -1)
    ).learner.loader.batch(0, 0)
    model = trainer_of(tiny_graph, SingleProcess(), dropout=0.0, input_dropout=0.0).learner.model
    logits = model(learner.feed.table, batch.input_nodes, batch.blocks, batch.key)
    labels = torch.from_numpy(batch.labels).long()
    expected = torch.autograd.grad(
        torch.nn.functional.cross_entropy(logits, labels), list(model.parameters())
    )
    found: list[Any] = []

    def keep_gradients(loss: float) -> None:
        if not found:  # of the first step alone
            found.extend(p.grad.clone() for p in learner.model.parameters())

    learner.train_epoch(trainer.progress, keep_gradients)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert distance(ours, theirs) < 1e-10


def test_the_curve_is_one_that_learns(tiny_graph: Graph, parallel: SingleProcess) -> None:
    run = trained(tiny_graph, parallel, epochs=15, dropout=0.2, input_dropout=0.0)
    assert _mean_of_epoch(run, -1) < 0.75 * _mean_of_epoch(run, 0)
    assert run.record.final["test_accuracy"] > 0.6  # four classes: chance is a quarter


def test_the_seed_and_only_the_seed_decides(tiny_graph: Graph, parallel: SingleProcess) -> None:
    first, again = (trained(tiny_graph, parallel, epochs=1) for _ in range(2))
    other = trained(tiny_graph, parallel, epochs=1, seed=6)
    assert torch.equal(first.losses, again.losses)
    assert distance(other.losses, first.losses) > 1e-3


def _mean_of_epoch(run: Trained, epoch: int) -> float:
    loss = run.record.epochs[epoch].train_loss
    assert loss is not None
    return loss
