"""Training on sparse rows of features: the numbers of dense ones, to the last bit."""

# ruff: noqa: E402
from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from horovod_gnn import kernels
from horovod_gnn.inputs import fetch_rows
from horovod_gnn.sparse_rows import gather_sparse_rows
from tests.unit.test_learner import assert_equal, made_learner, train
from tests.unit.test_sparse_features import bag_of_words, graph_with

pytestmark = pytest.mark.needs_torch


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", [True, False])
def test_a_gather_adds_in_the_order_of_the_dense_kernel(dtype: type, mean: bool) -> None:
    """Rows share many words here: in another order the last bits would differ."""
    dense = bag_of_words(0.3, words=60)
    sparse = SparseFeatures.of(dense)
    random = np.random.default_rng(2)
    offsets = np.concatenate([[0], np.cumsum(random.integers(0, 9, 50))]).astype(np.int32)
    nodes = random.integers(0, len(dense), 200)
    columns = random.integers(0, 200, offsets[-1]).astype(np.int32)
    ours, theirs = np.full((2, 30, 120), np.nan, dtype)
    options = (nodes, offsets, columns, 20, 50, mean)
    kernels.gather_rows(dense, *options, theirs)
    gather_sparse_rows(sparse.indptr, sparse.columns, sparse.values, *options, ours)
    assert ours.tobytes() == theirs.tobytes()


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


@pytest.mark.parametrize(
    "changes",
    [
        {"input_dropout": 0.0},
        {"input_dropout": 0.2},
        {"aggregator": "max"},
        {"precision": "fp64", "input_dropout": 0.0, "eval": "sampled"},
    ],
    ids=lambda changes: ", ".join(f"{name} {value}" for name, value in changes.items()),
)
def test_the_curve_is_that_of_dense_features(
    graphs: tuple[Graph, Graph], changes: dict[str, Any]
) -> None:
    dense, sparse = (made_learner(graph, global_batch_size=80, **changes) for graph in graphs)
    assert train(sparse, 0) == train(dense, 0)
    assert_equal(sparse.weights(), dense.weights())
    assert sparse.evaluate(("valid",)) == dense.evaluate(("valid",))
