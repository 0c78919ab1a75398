"""Whole neighbourhoods: all of them, in bounded pieces, shared out fairly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import all_neighbours, chunks, reach, shares
from tests.unit.made_graphs import HUB, HUB_DEGREE, edges_of, from_rows, oddities


@pytest.fixture(scope="module")
def odd() -> Graph:
    return oddities()


def rows_of(graph: Graph, ids: npt.NDArray[np.int64]) -> list[list[int]]:
    return [graph.indices[graph.indptr[i] : graph.indptr[i + 1]].tolist() for i in ids]


def assert_whole(graph: Graph, ids: npt.NDArray[np.int64]) -> None:
    """The block of `ids` has each of their edges once, each in its place."""
    block, nodes = all_neighbours(graph, ids)
    assert block.offsets.dtype == block.columns.dtype == np.int32
    assert nodes.dtype == np.int64
    assert len(nodes) == block.num_src
    assert np.array_equal(nodes[: block.num_dst], ids)
    expected = [(i, n) for i, row in zip(ids, rows_of(graph, ids), strict=True) for n in row]
    assert edges_of(block, nodes).tolist() == [list(edge) for edge in expected]


def test_all_neighbours_are_there(tiny_graph: Graph) -> None:
    assert_whole(tiny_graph, np.arange(tiny_graph.num_nodes))
    assert_whole(tiny_graph, np.array([7, 3, 100]))
    assert_whole(tiny_graph, np.empty(0, np.int64))


def test_all_neighbours_of_odd_nodes() -> None:
    graph = from_rows([[], [1], [0, 1, 2], [2], []])
    assert_whole(graph, np.array([4, 2, 1, 0, 3]))
    block, nodes = all_neighbours(graph, np.array([0, 4]))
    assert (block.num_dst, block.num_src, block.num_edges) == (2, 2, 0)
    assert nodes.tolist() == [0, 4]


def test_all_neighbours_of_a_hub(odd: Graph) -> None:
    block, nodes = all_neighbours(odd, np.array([HUB, 1]))
    assert block.offsets.tolist() == [0, HUB_DEGREE, HUB_DEGREE + 1]
    assert np.array_equal(edges_of(block, nodes)[:HUB_DEGREE, 1], np.arange(1, HUB_DEGREE + 1))


# --- reach --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_reach_is_what_can_be_walked_to(tiny_graph: Graph, hops: int) -> None:
    ids = np.array([100, 5, 41])
    walked = [set(ids.tolist())]
    for _ in range(hops):
        walked.insert(0, walked[0].union(*rows_of(tiny_graph, np.array(sorted(walked[0])))))
    needed = reach(tiny_graph, ids, hops)
    assert [layer.tolist() for layer in needed] == [sorted(layer) for layer in walked]
    assert all(layer.dtype == np.int64 for layer in needed)
    if hops == 1:
        assert len(ids) < len(needed[0]) < tiny_graph.num_nodes  # else this test says little


def test_reach_along_a_path_goes_one_way() -> None:
    """What a node needs is whom it receives from, and not who receives from it; and itself."""
    path = from_rows([[1], [2], [3], [], [0]])
    assert [layer.tolist() for layer in reach(path, np.array([0]), 2)] == [[0, 1, 2], [0, 1], [0]]
    assert [layer.tolist() for layer in reach(path, np.array([3]), 1)] == [[3], [3]]


# --- shares and chunks --------------------------------------------------------------------------


def work_of(graph: Graph, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rows read for each node: itself and its neighbours."""
    return graph.indptr[ids + 1] - graph.indptr[ids] + 1


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 8, 64])
def test_shares_divide_the_work(tiny_graph: Graph, odd: Graph, world_size: int) -> None:
    """No share exceeds an equal one by more than one node's work, and no node is left out."""
    for graph, ids in (
        (tiny_graph, np.arange(tiny_graph.num_nodes)),
        (tiny_graph, np.array([3, 4, 50])),
        (odd, np.arange(1, 20_000)),
        (odd, np.arange(20_000)),  # the hub's work is 20 times that of all others
    ):
        bounds = shares(graph, ids, world_size)
        assert bounds.dtype == np.int64
        assert (bounds[0], bounds[-1], len(bounds)) == (0, len(ids), world_size + 1)
        assert (np.diff(bounds) >= 0).all()
        work = work_of(graph, ids)
        parts = [work[low:high].sum() for low, high in zip(bounds, bounds[1:], strict=False)]
        assert max(parts) <= work.sum() / world_size + work.max()


def test_shares_are_even_when_they_can_be(odd: Graph) -> None:
    ids = np.arange(5000, 15_000)  # each has one neighbour
    assert shares(odd, ids, 4).tolist() == pytest.approx([0, 2500, 5000, 7500, 10_000], abs=1)


def test_shares_of_nothing(tiny_graph: Graph) -> None:
    assert shares(tiny_graph, np.empty(0, np.int64), 3).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("most_nodes", "most_edges"), [(10, 10**9), (10**9, 60), (7, 25), (1, 1)])
def test_chunks_are_bounded_and_complete(
    tiny_graph: Graph, most_nodes: int, most_edges: int
) -> None:
    ids = np.random.default_rng(1).permutation(tiny_graph.num_nodes)
    parts = chunks(tiny_graph, ids, most_nodes, most_edges)
    assert np.array_equal(np.concatenate(parts), ids)
    edges = [int((work_of(tiny_graph, part) - 1).sum()) for part in parts]
    for part, num_edges in zip(parts, edges, strict=True):
        assert 1 <= len(part) <= most_nodes
        assert num_edges <= most_edges or len(part) == 1
    for i, part in enumerate(parts[:-1]):  # none is cut before it has to be
        following = work_of(tiny_graph, parts[i + 1])[0] - 1
        assert len(part) == most_nodes or edges[i] + following > most_edges


def test_a_hub_is_a_chunk_of_its_own(odd: Graph) -> None:
    parts = chunks(odd, np.array([3000, HUB, 3001, 3002]), 100, 50)
    assert [part.tolist() for part in parts] == [[3000], [HUB], [3001, 3002]]


def test_nodes_without_neighbours_fill_chunks_too() -> None:
    graph = from_rows([[]] * 10)
    parts = chunks(graph, np.arange(10), 4, 5)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert chunks(graph, np.empty(0, np.int64), 4, 5) == []
