"""Content of pairs, against dense cosines, one pair after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gnn_core.config import RunConfig
from gnn_core.data.features import SparseFeatures
from gnn_core.data.pair_content import CONTENT, PairContent
from gnn_core.data.pair_structure import WIDTH, pair_structure, structure_width
from gnn_core.usage import UsageError
from tests.unit.made_links import linked_graph


@pytest.mark.parametrize("years", [True, False], ids=["years", "no years"])
@pytest.mark.parametrize("is_sparse", [True, False], ids=["sparse", "dense"])
def test_content_is_that_of_dense_rows(tmp_path: Path, years: bool, is_sparse: bool) -> None:
    graph = linked_graph(tmp_path, "newest" if years else "random", years=years)
    random = np.random.default_rng(3)
    words = (random.random((graph.num_nodes, 30)) < 0.2).astype(np.float32)
    words[5] = 0
    graph = replace(graph, features=SparseFeatures.of(words) if is_sparse else words)
    rows = words / np.sqrt((words**2).mean(axis=0))
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    known = np.zeros(graph.num_nodes, int) if graph.years is None else np.asarray(graph.years)
    ends = np.split(np.asarray(graph.indices), graph.indptr[1:-1])

    def mean_around(v: int, u: int, year: int) -> np.ndarray:
        near = [w for w in ends[v] if w not in (u, v) and known[w] <= year]
        return rows[near].mean(axis=0) if near else np.zeros(30)

    sources = np.asarray(graph.train_edges, np.int64)[:50, 0]
    linked = np.asarray(graph.train_edges, np.int64)[:50, 1:]
    others = np.concatenate([linked, random.integers(0, graph.num_nodes, (50, 6))], axis=1)
    found = PairContent(graph).of(sources, others)
    assert found.shape == (50, 7, len(CONTENT))
    for i, u in enumerate(sources):
        for j, v in enumerate(others[i]):
            if u == v:
                continue
            expected = [
                rows[u] @ rows[v],
                rows[u] @ mean_around(v, u, known[u]),
                rows[v] @ mean_around(u, v, known[u]),
            ]
            np.testing.assert_allclose(found[i, j], expected, rtol=1e-4, atol=1e-6)


def test_it_follows_the_structure(tmp_path: Path) -> None:
    graph = linked_graph(tmp_path)
    edges = np.asarray(graph.train_edges, np.int64)[:9]
    pairs = (edges[:, 0], edges[:, 1:])
    config = RunConfig(dataset="cora", task="link")
    found = pair_structure(config, graph)
    plain = pair_structure(RunConfig(task="link"), graph)
    assert found is not None and plain is not None
    assert structure_width(config) == found.of(*pairs).shape[2] == WIDTH + len(CONTENT)
    assert np.array_equal(found.of(*pairs)[..., :WIDTH], plain.of(*pairs))


@pytest.mark.parametrize("elsewhere", [{"partitions": "parts"}, {"feature_store": "disk"}])
def test_features_that_are_elsewhere_are_refused(elsewhere: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--predictor: content reads the features of any paper"):
        RunConfig(task="link", predictor="content", **elsewhere)
