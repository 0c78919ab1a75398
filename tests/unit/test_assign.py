"""Who computes which target: shares, owners, clusters and expected edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gnn_core.data.assign import ByCluster, ByOwner, BySlices, ExpectedEdges
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.data.shares import Shares
from tests.unit.made_graphs import with_train

WORLDS = (1, 2, 3, 4, 7)
PARTS = np.random.default_rng(0).integers(0, 12, 5000)


def owner(parts: np.ndarray = PARTS, num_parts: int = 12, **more: Any) -> ByOwner:
    return ByOwner(parts.__getitem__, num_parts, **more)


def drawn(number: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).permutation(len(PARTS))[:number]


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("number", [1, 5, 240, 4000])
def test_owners_get_their_targets_as_far_as_their_share_goes(world_size: int, number: int) -> None:
    targets = drawn(number)
    ranks = owner()(targets, world_size, 0, 0)
    owners = PARTS[targets] * world_size // 12
    most = int(np.ceil(1.05 * number / world_size))
    counts = np.bincount(ranks, minlength=world_size)
    assert len(counts) == world_size and counts.max() <= most
    for rank in range(world_size):
        owned = int((owners == rank).sum())
        kept = int((ranks[owners == rank] == rank).sum())
        assert kept == min(owned, most)
    # Whoever got a target of another's had the least: nobody who owns all it has is left behind.
    gained = {int(rank) for rank in ranks[ranks != owners]}
    for rank in gained:
        assert counts[rank] <= counts.min() + 1


def test_an_overfull_part_spills_over_evenly() -> None:
    ranks = owner(np.zeros(100, np.int64), 4)(np.arange(100), 4, 0, 0)
    assert np.bincount(ranks).tolist() == [27, 25, 24, 24]
    assert ranks[:27].tolist() == [0] * 27  # in the order of the batch


@pytest.mark.parametrize("num_parts", [1, 2, 3])
def test_ranks_share_a_part_where_parts_are_fewer(num_parts: int) -> None:
    parts = np.arange(120) * num_parts // 120
    counts = np.bincount(owner(parts, num_parts)(np.arange(120), 6, 0, 0), minlength=6)
    assert counts.tolist() == [20] * 6


def test_an_edge_belongs_to_the_citing_paper() -> None:
    edges = np.array([[0, 3], [3, 0], [1, 2], [2, 1]], np.int32)
    parts = np.array([0, 0, 1, 1])
    by_owner, by_cluster = owner(parts, 2, edges=edges), ByCluster(parts, edges=edges)
    for assign in (by_owner, by_cluster):
        assert assign(np.arange(4), 2, 0, 0).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("number", [0, 1, 5, 240])
def test_slices_are_as_large_as_the_shares(number: int) -> None:
    ranks = BySlices(Shares([1, 3, 2]))(drawn(number), 3, 0, 0)
    assert (np.diff(ranks) >= 0).all() and len(ranks) == number
    counts = np.bincount(ranks, minlength=3)
    assert (np.abs(counts - number * np.array([1, 3, 2]) / 6) < 1).all()


def test_shares_follow_the_speed_of_the_ranks() -> None:
    """A step takes all ranks equally long in the end, whatever it takes a rank beside its share."""
    speeds, shares = np.array([1.0, 2.0, 4.0]), Shares([1, 1, 1])
    for _ in range(20):
        shares.follow(0.02 + shares.values / speeds)
    seconds = 0.02 + shares.values / speeds
    assert seconds.max() / seconds.min() < 1.12
    settled = shares.values.copy()
    assert not shares.follow(seconds * [1.02, 1, 0.99])  # noise
    assert shares.values.tolist() == settled.tolist()


def test_the_slowest_rank_keeps_something_to_do() -> None:
    shares = Shares([1, 1])
    assert shares.follow([1000.0, 1.0])
    assert shares.values.sum() == pytest.approx(1) and 0.04 < shares.values[0] < 0.06
    assert not shares.follow([0.0, 1.0])  # nothing was measured


@pytest.mark.parametrize("make", [owner, lambda **more: ByCluster(PARTS.astype(np.uint8), **more)])
def test_work_is_shared_and_not_targets(make: Any) -> None:
    """Some targets are a hundred times the work of others, and one rank is half as fast."""
    work = np.where(np.arange(len(PARTS)) % 7 == 0, 100, 1)
    shares = (2.0, 1.0, 2.0)
    targets = drawn(3000)
    assign = make(loads=work.__getitem__, shares=Shares(shares))
    ranks = assign(targets, 3, 0, 0)
    held = np.bincount(ranks, work[targets], minlength=3)
    ideal = work[targets].sum() * np.array(shares) / 5
    assert (held <= 1.05 * ideal + 100).all() and (held >= 0.94 * ideal).all()
    with pytest.raises(ValueError, match="expected shares of 2 ranks"):
        assign(targets, 2, 0, 0)


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("number", [1, 5, 240, 4000])
def test_clusters_are_cut_into_runs_of_one_size(world_size: int, number: int) -> None:
    targets = drawn(number)
    ranks = ByCluster(PARTS.astype(np.uint8))(targets, world_size, 0, 0)
    counts = np.bincount(ranks, minlength=world_size)
    assert counts.sum() == number and counts.max() - counts.min() <= 1
    in_order = ranks[np.argsort(PARTS[targets], kind="stable")]
    assert (np.diff(in_order) >= 0).all()


@pytest.mark.parametrize("assign", [owner(), ByCluster(PARTS.astype(np.uint8))])
def test_the_answer_is_a_function_of_the_targets(assign: Any) -> None:
    targets = drawn(999)
    first = assign(targets, 4, 0, 0)
    assign(drawn(500, seed=2), 3, 0, 1)
    np.testing.assert_array_equal(assign(targets, 4, 7, 9), first)


def test_expected_edges_are_those_drawn_where_no_node_is_met_twice() -> None:
    """A tree: node 0 has 3 children, and each of them 4."""
    pairs = [(0, child) for child in (1, 2, 3)]
    pairs += [(child, 4 + 4 * (child - 1) + i) for child in (1, 2, 3) for i in range(4)]
    rows = sorted(pairs + [(b, a) for a, b in pairs])
    indptr = np.searchsorted([row for row, _ in rows], np.arange(17))
    tree = Graph.from_arrays("tree", indptr, [column for _, column in rows], np.zeros((16, 2)))
    assert ExpectedEdges(tree, (2,))(np.array([0, 1, 4])).tolist() == [3, 3, 2]
    assert ExpectedEdges(tree, (-1,))(np.array([0, 1, 4])).tolist() == [4, 6, 2]
    # Of 30 edges 3 lead to the root (3 edges), 15 to a child (5 edges) and 12 to a leaf (1 edge):
    # 3 edges in the mean. A destination of the first hop is one of the second hop again.
    assert ExpectedEdges(tree, (-1, -1))(np.array([0, 1, 4])).tolist() == [16, 26, 6]


def test_expected_edges_foretell_a_batch() -> None:
    graph = with_train(num_nodes=20000, num_train=9000)
    targets = graph.split("train")[:200]
    loads = ExpectedEdges(graph, (5, 3))
    batch = Loader(graph, "train", (5, 3), 200, seed=0, shuffle=False, prefetch=0).batch(0, 0)
    assert batch.targets.tolist() == targets.tolist()
    assert loads(targets).sum() == pytest.approx(batch.num_edges, rel=0.1)
    edges = np.stack([targets[:20], targets[20:40]], axis=1)
    of_edges = ExpectedEdges(graph, (5, 3), edges, negatives=2)(np.arange(20))
    alone = loads(targets[:20]) + loads(targets[20:40])
    np.testing.assert_array_equal(of_edges - alone, np.full(20, 2 * loads.mean))


def test_a_graph_without_edges_has_work_all_the_same() -> None:
    graph = Graph.from_arrays("alone", np.zeros(6, np.int64), [], np.zeros((5, 2)))
    assert ExpectedEdges(graph, (4, -1))(np.arange(5)).tolist() == [1] * 5


def test_many_hops_do_not_overflow() -> None:
    loads = ExpectedEdges(with_train(num_nodes=500, num_train=9), (-1,) * 64)
    found = loads(np.arange(500))
    assert (found > 0).all() and found.sum() < 2**62
    assert found[6] > found[5] > found[0] == 1  # of degrees 6, 5 and 0
