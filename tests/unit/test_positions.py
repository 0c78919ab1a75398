"""The two ways of relabelling: the same columns, and the same new nodes in the same order."""

from __future__ import annotations

import numpy as np
import pytest

from gnn_core.data import positions
from gnn_core.data.graph import Graph
from gnn_core.data.positions import HashPositions, Positions, TablePositions, positions_of
from gnn_core.data.sampler import Sampler
from gnn_core.usage import UsageError


def random_graph(seed: int) -> Graph:
    """Give a graph of 1 to 3000 nodes, some with many neighbours and some with none."""
    random = np.random.default_rng(seed)
    num_nodes = int(random.integers(1, 3000))
    degrees = random.integers(0, 12, num_nodes)
    degrees[random.random(num_nodes) < 0.02] = 300
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    return Graph("random", None, indptr, random.integers(0, num_nodes, indptr[-1], np.int32))


@pytest.mark.parametrize("least_slots", [4, 1 << 14])
@pytest.mark.parametrize("seed", range(25))
def test_both_draw_the_same_batches(
    seed: int, least_slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sampler for many batches of all sizes: what an earlier one left must not be seen."""
    graph, random = random_graph(seed), np.random.default_rng(seed)
    monkeypatch.setattr(positions, "_LEAST_SLOTS", least_slots)
    by_table = Sampler(graph, (7, 4, 3))
    monkeypatch.setattr(positions, "HASHED_FROM", 0)
    by_hash = Sampler(graph, (7, 4, 3))
    for key in range(12):
        size = int(random.integers(0, graph.num_nodes + 1)) >> (key % 4)
        targets = random.choice(graph.num_nodes, size, replace=False)
        (blocks, nodes), (others, other_nodes) = (
            sampler.sample(targets, key) for sampler in (by_table, by_hash)
        )
        assert np.array_equal(nodes, other_nodes)
        for block, other in zip(blocks, others, strict=True):
            assert np.array_equal(block.offsets, other.offsets)
            assert np.array_equal(block.columns, other.columns)
            assert block.num_src == other.num_src
    assert isinstance(by_table._positions, TablePositions)
    assert isinstance(by_hash._positions, HashPositions)


def test_the_size_of_the_graph_decides() -> None:
    assert isinstance(positions_of(positions.HASHED_FROM - 1), TablePositions)
    assert isinstance(positions_of(positions.HASHED_FROM), HashPositions)


def relabelled(kind: Positions, targets: list[int], ids: list[int]) -> tuple[list[int], list[int]]:
    """Relabel the neighbours `ids` of a batch: (columns, nodes)."""
    indices = np.array(ids, np.int64)
    nodes = np.zeros(len(targets) + len(ids) + 1, np.int64)
    nodes[: len(targets)] = targets
    columns = np.empty(len(ids), np.int32)
    kind.start(nodes[: len(targets)])
    picks = np.arange(len(ids))
    met = kind.relabel(indices, picks, len(ids), nodes, len(targets), columns)
    return columns.tolist(), nodes[:met].tolist()


def test_its_memory_goes_with_the_batch_and_not_with_the_graph() -> None:
    kind = HashPositions(2**40)
    ids = (np.arange(100_000) * 10_000_019).tolist()  # one slot each, far apart
    assert relabelled(kind, [2**39], ids)[1] == [2**39, *ids]
    assert kind._slots.nbytes <= positions.scratch_bytes(2**40, len(ids) + 1) < 2**24
    assert positions.scratch_bytes(1000, 10) == 4000
    assert relabelled(kind, [5, 2**31 + 5], [2**31 + 5, 5, 7]) == ([1, 0, 2], [5, 2**31 + 5, 7])


def test_nodes_that_share_a_slot_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiples of 2**60 have one hash, so each is found behind all those before it."""
    monkeypatch.setattr(positions, "_LEAST_SLOTS", 4)
    ids = [0, 2**60, 2**61, 3 * 2**60, 2**62, 2**60, 0]
    columns, nodes = relabelled(HashPositions(2**62 + 1), [2**61], ids)
    assert nodes == [2**61, 0, 2**60, 3 * 2**60, 2**62]
    assert columns == [1, 2, 0, 3, 4, 2, 1]


def test_ids_that_no_node_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "HASHED_FROM", 0)
    for wrong in (-1, 4):
        indices = np.array([1, 2, 0, wrong, 0, 3, 1, 2], np.int32)
        graph = Graph("damaged", None, np.array([0, 2, 4, 6, 8]), indices)
        with pytest.raises(UsageError, match="indices: expected node ids from 0 to 3"):
            Sampler(graph, (-1, -1)).sample(np.array([1]), 0)
        with pytest.raises(IndexError):
            HashPositions(4).start(np.array([0, wrong]))
