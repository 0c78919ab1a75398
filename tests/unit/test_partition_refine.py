"""Refining: a cut that is deterministic, balanced, far below that of a hash, on any graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data import datasets
from gnn_core.data.graph import Graph
from gnn_core.data.partition.hashed import hash_parts
from gnn_core.data.partition.refine import SLACK, refine
from gnn_core.data.partition.stream import adjacency_pieces, feature_pieces
from gnn_core.usage import UsageError
from tests.unit.made_graphs import from_rows, with_train
from tests.unit.made_partitions import graph_on_disk


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """3000 papers in 4 topics."""
    name = "synthetic:papers=3000,num_topics=4,num_features=8,homophily=0.9"
    return datasets.load(name, cache_dir=tmp_path_factory.mktemp("cache"))


def cut_share(graph: Graph, parts: np.ndarray) -> float:
    ends = np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr))
    return float(np.mean(parts[ends] != parts[graph.indices]))


@pytest.mark.parametrize("num_parts", [2, 4, 7])
def test_the_cut_is_far_below_that_of_a_hash(papers: Graph, num_parts: int) -> None:
    by_hash = cut_share(papers, hash_parts(papers.num_nodes, num_parts, 0))
    assert by_hash == pytest.approx(1 - 1 / num_parts, abs=0.02)
    assert cut_share(papers, refine(papers, num_parts)) < 0.65 * by_hash


@pytest.mark.parametrize("balance", ["train", "edges", "nodes"])
def test_no_part_holds_much_more_than_its_share(papers: Graph, balance: str) -> None:
    parts = refine(papers, 4, balance=balance)
    loads = {
        "train": np.asarray(papers.splits) == 1,
        "edges": np.diff(papers.indptr),
        "nodes": np.ones(papers.num_nodes),
    }
    # The hash may begin above the cap: it draws each node's part by itself.
    for name in ("nodes", balance):
        assert np.bincount(parts, loads[name]).max() <= loads[name].sum() / 4 * (SLACK + 0.02)


def test_it_depends_on_the_arguments_alone(papers: Graph) -> None:
    parts = refine(papers, 4, seed=3)
    in_memory = Graph.from_arrays(
        "copy", np.array(papers.indptr), np.array(papers.indices), splits=np.array(papers.splits)
    )
    for graph, piece_bytes in ((papers, 1), (papers, 5000), (in_memory, 1 << 20)):
        np.testing.assert_array_equal(refine(graph, 4, seed=3, piece_bytes=piece_bytes), parts)
    assert (refine(papers, 4, seed=4) != parts).any()


def test_a_given_start_is_refined_in_place(papers: Graph) -> None:
    start = hash_parts(papers.num_nodes, 4, 0)
    assert refine(papers, 4, start=start) is start
    np.testing.assert_array_equal(start, refine(papers, 4))


def test_two_cliques_are_told_apart() -> None:
    rows = [[other for other in range(8) if other != node] for node in range(8)]
    rows += [[other for other in range(8, 16) if other != node] for node in range(8, 16)]
    parts = refine(from_rows(rows), 2, balance="nodes")
    assert len(set(parts[:8])) == len(set(parts[8:])) == 1 and parts[0] != parts[8]


@pytest.mark.parametrize("num_parts", [1, 40, 300])
def test_few_nodes_and_many_parts(num_parts: int) -> None:
    graph = with_train(30, 10)
    parts = refine(graph, num_parts)
    assert parts.dtype == (np.uint16 if num_parts > 256 else np.uint8)
    assert parts.max() < num_parts and len(parts) == 30


def test_nodes_without_neighbours_stay_where_their_hash_put_them() -> None:
    graph = from_rows([[]] * 50)
    np.testing.assert_array_equal(refine(graph, 4), hash_parts(50, 4, 0))


def test_a_graph_without_splits_is_balanced_by_edges() -> None:
    graph = from_rows([[1], [0], [3], [2]])
    np.testing.assert_array_equal(refine(graph, 2), refine(graph, 2, balance="edges"))
    with pytest.raises(UsageError, match="expected splits to balance training targets by"):
        refine(graph, 2, balance="train")
    with pytest.raises(UsageError, match="expected a balance train, edges, nodes, got 'node', did"):
        refine(graph, 2, balance="node")


@pytest.mark.parametrize("wrong", [-1, 50])
def test_an_id_that_no_node_has_is_refused(wrong: int) -> None:
    graph = with_train(50, 10)
    indices = graph.indices.copy()
    indices[40] = wrong
    with pytest.raises(UsageError, match="expected rows of node ids from 0 to 49"):
        refine(replace(graph, indices=indices), 2)


@pytest.mark.parametrize("piece_bytes", [1, 100, 1 << 20])
@pytest.mark.parametrize("backwards", [False, True])
def test_pieces_hold_every_row_once(tmp_path: Path, piece_bytes: int, backwards: bool) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    pieces = list(adjacency_pieces(graph, backwards, piece_bytes))
    pieces = pieces[::-1] if backwards else pieces
    assert len(pieces) == 1 or piece_bytes < 1 << 20
    np.testing.assert_array_equal(np.concatenate([p.values for p in pieces]), graph.indices)
    degrees = np.concatenate([np.diff(piece.starts) for piece in pieces])
    np.testing.assert_array_equal(degrees, np.diff(graph.indptr))
    rows = np.concatenate([piece.values for piece in feature_pieces(graph, piece_bytes)])
    np.testing.assert_array_equal(rows, np.asarray(graph.features).ravel())


def test_rows_beyond_two_billion_edges_are_found(tmp_path: Path) -> None:
    """A file of 2**31 + 10 ids that takes no room, since all but its last are zeros."""
    num_edges = 2**31 + 10
    file = tmp_path / "indices.npy"
    with file.open("wb") as stream:
        header = {"descr": "<i4", "fortran_order": False, "shape": (num_edges,)}
        np.lib.format.write_array_header_1_0(stream, header)
        begin = stream.tell()
        stream.truncate(begin + 4 * num_edges)
        stream.seek(begin + 4 * (num_edges - 6))
        stream.write(np.array([3, 4, 5, 0, 1, 2], np.int32).tobytes())
    indptr = np.array([0, 0, 0, 0, 3, 6], np.int64) + num_edges - 6
    indptr = np.concatenate([indptr, [num_edges]])
    graph = Graph("long", None, indptr, np.load(file, mmap_mode="r"))
    (piece,) = adjacency_pieces(graph)
    np.testing.assert_array_equal(piece.starts, [0, 0, 0, 0, 3, 6, 6])
    np.testing.assert_array_equal(piece.values, [3, 4, 5, 0, 1, 2])
    assert refine(graph, 2, balance="edges").max() <= 1
