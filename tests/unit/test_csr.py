"""The CSR builder against a dense adjacency matrix, in one range of nodes and in many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data.csr import build_csr, edges_in, edges_of, write_csr
from gnn_core.data.graph import Graph
from gnn_core.data.store import GraphWriter
from gnn_core.usage import UsageError


class Rows:
    """Collects what is written."""

    def __init__(self) -> None:
        """Start empty."""
        self.pieces: list[npt.NDArray] = []

    def write(self, rows: npt.NDArray) -> None:
        """Keep a copy."""
        self.pieces.append(rows.copy())


def random_edges(num_nodes: int = 40, num_edges: int = 300) -> npt.NDArray[np.int32]:
    """Make edges with repeats, self-loops, a hub, and nodes without any."""
    edges = np.random.default_rng(3).integers(0, num_nodes - 5, (num_edges, 2))
    edges[:60, 0] = 7
    edges[100:110, 1] = edges[100:110, 0]
    edges[200:220] = edges[:20]
    return edges.astype(np.int32)


def dense(edges: npt.NDArray, num_nodes: int, symmetric: bool, loops: bool) -> npt.NDArray:
    """Give the adjacency matrix: entry [target, source]."""
    matrix = np.zeros((num_nodes, num_nodes), bool)
    matrix[edges[:, 1], edges[:, 0]] = True
    if symmetric:
        matrix |= matrix.T
    if not loops:
        np.fill_diagonal(matrix, False)
    return matrix


@pytest.mark.parametrize("budget", [1, 500, 1 << 20])
@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_equals_the_dense_matrix(symmetric: bool, loops: bool, budget: int) -> None:
    edges, rows = random_edges(), Rows()
    degrees = build_csr(edges_of(edges, 37), 40, rows, symmetric, loops, budget)
    matrix = dense(edges, 40, symmetric, loops)
    assert degrees.tolist() == matrix.sum(axis=1).tolist()
    assert np.concatenate(rows.pieces).tolist() == np.nonzero(matrix)[1].tolist()
    assert all(piece.dtype == np.int32 for piece in rows.pieces)
    expected = {1: (40, 40), 500: (3, 39), 1 << 20: (1, 1)}[budget]
    assert expected[0] <= len(rows.pieces) <= expected[1]


def test_threads_change_nothing() -> None:
    edges = np.random.default_rng(5).integers(0, 40, (500, 2))
    alone, together = Rows(), Rows()
    degrees = build_csr(edges_of(edges, 37), 40, alone, budget_bytes=500)
    again = build_csr(edges_of(edges, 37), 40, together, budget_bytes=500, threads=3)
    assert np.array_equal(degrees, again)
    assert [rows.tolist() for rows in together.pieces] == [rows.tolist() for rows in alone.pieces]


def test_a_range_keeps_to_the_budget() -> None:
    edges, rows = random_edges(), Rows()
    build_csr(edges_of(edges), 40, rows, budget_bytes=1200)
    hub = (edges == 7).sum()
    assert len(rows.pieces) >= 3
    assert max(len(piece) for piece in rows.pieces) <= max(hub, (1200 - 16) // 4)


def test_edges_in_a_file_come_in_pieces(tmp_path: Path) -> None:
    edges = random_edges()
    np.save(tmp_path / "edges.npy", edges)
    chunks = edges_in(tmp_path / "edges.npy", 77)
    for _ in range(2):  # each call starts again
        pieces = list(chunks())
        assert [len(piece) for piece in pieces] == [77, 77, 77, 69]
        np.testing.assert_array_equal(np.concatenate(pieces), edges)


def test_written_as_part_of_a_graph(tmp_path: Path) -> None:
    edges = random_edges()
    reported = []
    with GraphWriter(tmp_path / "g", "g") as writer:
        writer.put("citations", edges)
        source = edges_in(writer.path("citations"), 50)
        kept = write_csr(
            writer, source, 40, budget_bytes=600, progress=lambda *counts: reported.append(counts)
        )
        writer.finish()
    graph = Graph.open(tmp_path / "g", verify=True)
    assert kept == graph.num_edges == dense(edges, 40, True, False).sum()
    assert reported[0] == ("adjacency", 0, 40) and reported[-1] == ("adjacency", 40, 40)


def test_no_edges_at_all() -> None:
    rows = Rows()
    degrees = build_csr(edges_of(np.empty((0, 2), np.int32)), 3, rows)
    assert degrees.tolist() == [0, 0, 0] and sum(len(piece) for piece in rows.pieces) == 0


WRONG = [
    np.array([[0, 3]]),
    np.array([[-1, 0]]),
    np.array([[0.0, 1.0]]),
    np.array([[0, 2**40]]),
    np.array([[0, 1, 2]]),
    np.array([0, 1]),
    np.array([[0, 2**63]], np.uint64),
]


@pytest.mark.parametrize("edges", WRONG, ids=str)
def test_edges_that_point_elsewhere_are_refused(edges: npt.NDArray) -> None:
    with pytest.raises(UsageError, match="edge list: expected "):
        build_csr(edges_of(edges), 3, Rows())
