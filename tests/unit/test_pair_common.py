"""Common neighbours of pairs, against the same found with sets, one pair after the other."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import log

import numpy as np
import pytest

from gnn_core.data.graph import Graph
from gnn_core.data.pair_common import MOST_COMMON, CommonNeighbours, sums_of
from gnn_core.usage import UsageError
from tests.unit.made_links import as_graph, linked_graph


@pytest.fixture(scope="module", params=[True, False], ids=["years", "no years"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    how = "newest" if request.param else "random"
    return linked_graph(tmp_path_factory.mktemp("cache"), how, years=request.param)


@cache
def neighbours_of(graph: Graph) -> list[set[int]]:
    return [set(row.tolist()) for row in np.split(np.asarray(graph.indices), graph.indptr[1:-1])]


def found_with_sets(graph: Graph, u: int, v: int, hidden: int | None = None) -> list[int]:
    """Fewest links first, of equal ones the lower id."""
    rows = neighbours_of(graph)
    years = np.zeros(graph.num_nodes) if graph.years is None else graph.years
    common = {w for w in rows[u] & rows[v] - {u, v, hidden} if years[w] <= years[u]}
    return sorted(common, key=lambda w: (len(rows[w]), w))[:MOST_COMMON]


def pairs_of(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Training edges, and beside each some other papers."""
    linked = np.asarray(graph.train_edges, np.int64)[:60]
    random = np.random.default_rng(0)
    others = random.integers(0, graph.num_nodes, (60, 8))
    return linked[:, 0], np.concatenate([linked[:, 1:], others], axis=1)


@pytest.mark.parametrize("hides", [False, True])
def test_neighbours_are_those_found_with_sets(graph: Graph, hides: bool) -> None:
    sources, others = pairs_of(graph)
    hidden = others[:, 0] if hides else None
    found = CommonNeighbours(graph).of(sources, others, hidden)
    rows = neighbours_of(graph)
    expected = [
        found_with_sets(graph, u, v, row[0] if hides else None)
        for u, row in zip(sources.tolist(), others.tolist(), strict=True)
        for v in row
    ]
    assert found.pairs.tolist() == [i for i, nodes in enumerate(expected) if nodes]
    assert len(found.pairs) > 20
    parts = np.split(found.nodes, np.flatnonzero(np.diff(found.segments)) + 1)
    assert [part.tolist() for part in parts] == [nodes for nodes in expected if nodes]
    weights = [1 / log(max(len(rows[node]), 2)) for node in found.nodes.tolist()]
    np.testing.assert_allclose(found.weights, weights, rtol=1e-6)


def test_hiding_an_edge_changes_other_pairs(graph: Graph) -> None:
    sources, others = pairs_of(graph)
    finder = CommonNeighbours(graph)
    assert len(finder.of(sources, others).nodes) > len(
        finder.of(sources, others, others[:, 0]).nodes
    )


def test_those_with_the_fewest_links_are_kept() -> None:
    count = MOST_COMMON + 9  # papers that both cite, the first of them cited most
    edges = [(paper, 2 + i) for paper in (0, 1) for i in range(count)]
    fans = range(2 + count, 2 + count + count)
    edges += [(fan, 2 + i) for place, fan in enumerate(fans) for i in range(count - place)]
    graph = as_graph(edges, 2 + 2 * count)
    found = CommonNeighbours(graph).of(np.array([0]), np.array([[1]]))
    assert found.nodes.tolist() == list(range(count + 1, count + 1 - MOST_COMMON, -1))
    assert found.nodes.tolist() == found_with_sets(graph, 0, 1)


def test_the_first_pairs_are_those_of_fewer_papers(graph: Graph) -> None:
    sources, others = pairs_of(graph)
    finder = CommonNeighbours(graph)
    whole, fewer = finder.of(sources, others), finder.of(sources[:7], others[:7])
    kept = whole.first(7 * others.shape[1])
    for name in ("pairs", "segments", "nodes", "weights"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(fewer, name))
    assert not len(whole.first(0).pairs) and not len(whole.first(0).nodes)


def test_sums_are_those_of_a_loop(graph: Graph) -> None:
    common = CommonNeighbours(graph).of(*pairs_of(graph))
    states = np.random.default_rng(0).normal(size=(graph.num_nodes, 5))
    expected = np.zeros((len(common.pairs), 5))
    for segment, node, weight in zip(common.segments, common.nodes, common.weights, strict=True):
        expected[segment] += float(weight) * states[node]
    np.testing.assert_allclose(sums_of(common, states), expected, rtol=1e-12)
    assert sums_of(common.first(0), states).shape == (0, 5)


def test_all_that_may_be_common_is_around(graph: Graph) -> None:
    sources, others = pairs_of(graph)
    finder = CommonNeighbours(graph)
    near = set(sources.tolist()).union(*(neighbours_of(graph)[u] for u in sources.tolist()))
    assert finder.around(sources).tolist() == sorted(near)
    assert set(finder.of(sources, others).nodes.tolist()) <= near


def test_an_id_that_no_paper_has_is_damage(graph: Graph) -> None:
    indices = np.array(graph.indices)
    indices[0] = graph.num_nodes
    broken = replace(graph, indices=indices)
    first = int(np.flatnonzero(np.diff(graph.indptr))[0])
    with pytest.raises(UsageError, match="node ids"):
        CommonNeighbours(broken).of(np.array([first]), np.array([[1]]))
