"""Clusters of a graph: found once, the same everywhere, kept in the cache and checked there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gnn_core.data import clusters as module
from gnn_core.data.clusters import NUM_CLUSTERS, find_clusters, with_clusters
from gnn_core.data.graph import Graph

NUM_GROUPS, GROUP = 32, 60


def grouped(seed: int = 0) -> Graph:
    """Groups of nodes that know each other; groups 2i and 2i + 1 know each other a little."""
    random = np.random.default_rng(seed)
    pairs = []
    for group in range(NUM_GROUPS):
        inside = group * GROUP + random.integers(0, GROUP, (6 * GROUP, 2))
        across = random.integers(0, GROUP, (GROUP, 2)) + GROUP * np.array([group, group ^ 1])
        pairs += [inside, across]
    rows = np.concatenate(pairs)
    renamed = random.permutation(NUM_GROUPS * GROUP)[rows]
    edges = np.unique(np.concatenate([renamed, renamed[:, ::-1]]), axis=0)
    indptr = np.searchsorted(edges[:, 0], np.arange(NUM_GROUPS * GROUP + 1))
    return Graph.from_arrays("grouped", indptr, edges[:, 1])


def cut(graph: Graph, sides: np.ndarray) -> float:
    rows = np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr))
    return float((sides[rows] != sides[graph.indices]).mean())


def silent(line: str) -> None:
    pass


def test_halves_of_the_order_are_cut_well() -> None:
    graph = grouped()
    found = find_clusters(graph)
    assert found.dtype == np.uint8 and found.shape == (graph.num_nodes,)
    counts = np.bincount(found, minlength=NUM_CLUSTERS)
    assert len(counts) == NUM_CLUSTERS and counts.max() <= 1.06 * graph.num_nodes / NUM_CLUSTERS
    halves, quarters = (cut(graph, found * k // NUM_CLUSTERS) for k in (2, 4))
    assert halves < 0.5 * cut(graph, found % 2)  # a half of the clusters that is as good as any
    assert halves < quarters < 0.7 * cut(graph, found % 4) < 0.3
    np.testing.assert_array_equal(find_clusters(graph), found)


def test_an_order_has_the_least_cut_between_its_halves() -> None:
    """Pairs that belong together are dealt apart; so are pairs of pairs."""
    between = np.zeros((8, 8), np.int64)
    for a, b, weight in [(0, 5, 9), (3, 6, 9), (1, 7, 9), (2, 4, 9), (0, 3, 4), (1, 2, 4)]:
        between[a, b] = weight
    order = module._in_order(between).tolist()
    assert sorted(order) == list(range(8))
    assert {frozenset(order[:4]), frozenset(order[4:])} == {
        frozenset({0, 3, 5, 6}),
        frozenset({1, 2, 4, 7}),
    }
    quarters = {frozenset(order[i : i + 2]) for i in range(0, 8, 2)}
    assert frozenset({0, 5}) in quarters and frozenset({1, 7}) in quarters


@pytest.mark.parametrize("num_nodes", [1, 5, 40])
def test_few_nodes_and_no_edges(num_nodes: int) -> None:
    graph = Graph.from_arrays("alone", np.zeros(num_nodes + 1, np.int64), [])
    found = find_clusters(graph)
    assert found.shape == (num_nodes,) and found.max() < NUM_CLUSTERS


def test_they_are_found_once_and_read_ever_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = grouped()
    first = with_clusters(graph, tmp_path, silent)
    assert first.fingerprint == graph.fingerprint
    monkeypatch.setattr(module, "find_clusters", None)
    again = with_clusters(graph, tmp_path, silent)
    assert isinstance(again.clusters, np.memmap)
    np.testing.assert_array_equal(again.clusters, first.clusters)
    # Other features are no other edges.
    featured = Graph.from_arrays("grouped", graph.indptr, graph.indices, np.ones((1920, 2)))
    np.testing.assert_array_equal(
        with_clusters(featured, tmp_path, silent).clusters, first.clusters
    )
    assert [file.suffix for file in (tmp_path / "clusters").iterdir()].count(".npy") == 1


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "folder"])
def test_a_damaged_file_is_found_out_and_replaced(tmp_path: Path, damage: str) -> None:
    graph = grouped()
    expected = with_clusters(graph, tmp_path, silent).clusters
    (file,) = (tmp_path / "clusters").glob("*.npy")
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[:-1])
    elif damage == "bit":
        content[-7] ^= 1
        file.write_bytes(content)
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
        file.with_name(file.name.replace(file.stem[-16:], "0" * 16)).mkdir()
    found = with_clusters(graph, tmp_path, silent).clusters
    np.testing.assert_array_equal(found, expected)
    assert file.is_file() and with_clusters(graph, tmp_path, silent).clusters is not None


def test_another_graph_has_other_clusters(tmp_path: Path) -> None:
    graph = with_clusters(grouped(), tmp_path, silent)
    other = with_clusters(grouped(seed=1), tmp_path, silent)
    assert len(list((tmp_path / "clusters").glob("*.npy"))) == 2
    assert (graph.clusters != other.clusters).any()


def test_a_cache_that_cannot_be_written_to_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "clusters").write_text("a file where the folder would be")
    graph, said = grouped(), []
    found = with_clusters(graph, tmp_path, said.append).clusters
    np.testing.assert_array_equal(found, find_clusters(graph))
    assert "clusters: not kept: cannot write" in said[-1]
