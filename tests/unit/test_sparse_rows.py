"""Training on sparse rows of features: the numbers of dense ones, but for rounding."""

# ruff: noqa: E402
from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import all_neighbours
from horovod_gnn.inputs import fetch_rows
from tests.unit.made_models import (
    logits_and_gradients,
    made_model,
    odd_graph,
    off_by,
    sampled,
    table_of,
)
from tests.unit.test_learner import made_learner, train
from tests.unit.test_sparse_features import bag_of_words, graph_with

pytestmark = pytest.mark.needs_torch


def test_rows_are_fetched_alike() -> None:
    dense, rows = bag_of_words(), np.array([3, 7, 3, 200])
    ours = fetch_rows(SparseFeatures.of(dense), rows)
    assert torch.equal(ours, fetch_rows(torch.from_numpy(dense), rows))


@pytest.fixture(scope="module")
def graphs() -> tuple[Graph, Graph]:
    """The same graph with dense and with sparse features."""
    dense = bag_of_words()
    sparse = graph_with(dense)
    return dataclasses.replace(sparse, features=dense), sparse


@pytest.mark.parametrize(("precision", "most"), [("fp64", 1e-13), ("fp32", 2e-6), ("bf16", 3e-2)])
@pytest.mark.parametrize("input_dropout", [0.0, 0.6])
@pytest.mark.parametrize("aggregator", ["mean", "sum", "none"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_step_on_sparse_rows_is_that_on_dense_ones(
    layers: int, aggregator: str, input_dropout: float, precision: str, most: float
) -> None:
    graph = odd_graph()
    table = torch.relu(table_of(graph))
    sparse = SparseFeatures.of(table.numpy())
    blocks, nodes = sampled(graph, (3, 2)[:layers])
    options = {"aggregator": aggregator, "dropout": 0.4, "input_dropout": input_dropout}
    model = made_model(precision, layers, **options)
    theirs = logits_and_gradients(model, table, nodes, blocks)
    for number, ours in enumerate(logits_and_gradients(model, sparse, nodes, blocks)):
        assert ours.dtype == theirs[number].dtype
        assert off_by(ours, theirs[number]) < most
    assert len(theirs) == 1 + 2 * layers and theirs[1].any()
    whole, sources = all_neighbours(graph, np.arange(0, 60, 2))
    assert len(np.unique(sources)) < len(sources) / 2
    twice, repeated = all_neighbours(graph, np.array([3, 3, 5]))
    for block, ids in ((blocks[0], nodes), (whole, sources), (twice, repeated)):
        ours = model.infer_layer(0, sparse, ids, block)
        assert off_by(ours, model.infer_layer(0, table, ids, block)) < most


def test_a_rank_without_targets_has_no_gradient() -> None:
    graph, model = odd_graph(), made_model()
    sparse = SparseFeatures.of(graph.features)
    blocks, nodes = sampled(graph, targets=np.empty(0))
    logits, *gradients = logits_and_gradients(model, sparse, nodes, blocks)
    assert len(logits) == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    "changes",
    [{"input_dropout": 0.0}, {"input_dropout": 0.2}, {"aggregator": "max"}, {"eval": "sampled"}],
    ids=lambda changes: ", ".join(f"{name} {value}" for name, value in changes.items()),
)
def test_the_curve_is_that_of_dense_features(
    graphs: tuple[Graph, Graph], changes: dict[str, Any]
) -> None:
    changes = {"precision": "fp64", "global_batch_size": 80, **changes}
    dense, sparse = (made_learner(graph, **changes) for graph in graphs)
    assert train(sparse, 0) == pytest.approx(train(dense, 0), rel=1e-11)
    theirs = dense.weights()
    for name, array in sparse.weights().items():
        assert np.allclose(array, theirs[name], rtol=1e-9, atol=1e-12), name
    ours, theirs_too = (one.evaluate(("valid",))["valid"].loss_sum for one in (sparse, dense))
    assert ours == pytest.approx(theirs_too, rel=1e-10)
