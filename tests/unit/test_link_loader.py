"""The loader of link prediction: the same pairs, negatives and neighbours on any ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data.batch import Batch, Block
from gnn_core.data.graph import Graph
from gnn_core.data.link_loader import LinkLoader, without_edges
from gnn_core.data.pair_structure import PairStructure
from tests.unit.made_graphs import edge_set
from tests.unit.made_links import both_ways, linked_graph
from tests.unit.test_hold_out import chi_square

WORLDS = (2, 3, 4, 8)
Triples = list[tuple[int, int, tuple[int, ...]]]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return linked_graph(tmp_path_factory.mktemp("cache"))


def loader_of(graph: Graph, **settings: Any) -> LinkLoader:
    """A loader of batches of 37 edges, unless told otherwise; the last batch is another one."""
    chosen = {
        "fanouts": (3, 2),
        "global_batch_size": 37,
        "seed": 1,
        "prefetch": 0,
        "negatives": 2,
        **settings,
    }
    return LinkLoader(graph, **chosen)


def epoch_of(graph: Graph, epoch: int = 0, first_step: int = 0, **settings: Any) -> list[Batch]:
    return list(loader_of(graph, **settings).batches(epoch, first_step))


def triples(batch: Batch, real: bool = True) -> Triples:
    """(citing, cited, negatives) of each pair, by global ids; without those that are padding."""
    assert batch.pairs is not None
    parts = (batch.pairs.sources, batch.pairs.destinations, batch.pairs.negatives)
    papers, cited, negatives = (
        batch.targets[part[: batch.num_real] if real else part].tolist() for part in parts
    )
    return [(a, b, tuple(c)) for a, b, c in zip(papers, cited, negatives, strict=True)]


def links(batch: Batch) -> list[set[tuple[int, int]]]:
    """The edges of each block by global ids."""
    return [edge_set(block, batch.input_nodes) for block in batch.blocks]


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    """Two lists of batches agree in every bit, the time they took aside."""
    for mine, theirs in zip(one, other, strict=True):
        assert triples(mine, real=False) == triples(theirs, real=False)
        for name in ("num_real", "num_global_real", "epoch", "step", "key"):
            assert getattr(mine, name) == getattr(theirs, name)
        for name in ("input_nodes", "targets", "labels"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name))
        for my_block, their_block in zip(mine.blocks, theirs.blocks, strict=True):
            assert my_block.num_src == their_block.num_src
            assert np.array_equal(my_block.offsets, their_block.offsets)
            assert np.array_equal(my_block.columns, their_block.columns)


def drawn_in(batches: list[Batch]) -> set[int]:
    return {node for batch in batches for _, _, others in triples(batch) for node in others}


def test_negatives_of_a_step_are_drawn_from_its_pool(graph: Graph) -> None:
    batches = epoch_of(graph, negatives=4, pool=9)
    pools = [drawn_in([batch]) for batch in batches]
    assert all(len(pool) <= 9 for pool in pools) and len(drawn_in(batches)) > 20
    assert drawn_in(epoch_of(graph, negatives=4)) > drawn_in(batches)
    dated = epoch_of(graph, negatives=4, pool=30, dated=True)
    years = np.asarray(graph.years)
    newer = [years[other] > years[a] for b in dated for a, _, some in triples(b) for other in some]
    assert np.mean(newer) < 0.02
    for world_size in WORLDS:
        ranks = [
            epoch_of(graph, negatives=4, pool=9, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        for step, whole in enumerate(batches):
            together = [one for rank in ranks for one in triples(rank[step])]
            assert sorted(together) == sorted(triples(whole))


# --- an epoch -----------------------------------------------------------------------------------


def test_an_epoch_goes_through_each_training_edge_once(graph: Graph) -> None:
    edges = [tuple(edge) for edge in np.asarray(graph.train_edges).tolist()]
    orders = []
    for epoch in range(3):
        batches = epoch_of(graph, epoch)
        assert [batch.num_global_real for batch in batches[:-1]] == [37] * (len(batches) - 1)
        orders.append([(a, b) for batch in batches for a, b, _ in triples(batch)])
        assert sorted(orders[-1]) == sorted(edges)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    loader = loader_of(graph)
    assert (loader.num_targets, loader.num_steps) == (len(edges), -(-len(edges) // 37))


def test_a_short_epoch_draws_other_edges_each_time(graph: Graph) -> None:
    loader = loader_of(graph, edges_per_epoch=100)
    assert (loader.num_targets, loader.num_steps) == (100, 3)
    counts = dict.fromkeys(map(tuple, np.asarray(graph.train_edges).tolist()), 0)
    seen = []
    for epoch in range(40):
        batches = list(loader.batches(epoch))
        assert [batch.num_real for batch in batches] == [37, 37, 26]
        drawn = [(a, b) for batch in batches for a, b, _ in triples(batch)]
        assert len(set(drawn)) == 100
        seen.append(set(drawn))
        for edge in drawn:
            counts[edge] += 1
    assert all(one != other for one, other in zip(seen, seen[1:], strict=False))
    assert min(counts.values()) > 0
    assert chi_square(np.array(list(counts.values()))) < 4
    many = loader_of(graph, edges_per_epoch=10**9)
    assert many.num_targets == len(counts)


def test_a_batch_describes_itself(graph: Graph) -> None:
    batches = epoch_of(graph, epoch=3, rank=1, world_size=3)
    for step, batch in enumerate(batches):
        assert (batch.epoch, batch.step) == (3, step)
        assert (np.diff(batch.targets) > 0).all()
        assert np.array_equal(batch.input_nodes[: len(batch.targets)], batch.targets)
        assert (batch.labels == -1).all() and len(batch.labels) == len(batch.targets)
        assert batch.blocks[-1].num_dst == len(batch.targets)
        assert batch.pairs is not None
        assert batch.pairs.negatives.shape == (len(batch.pairs.sources), 2)
        met = [batch.pairs.sources, batch.pairs.destinations, batch.pairs.negatives.ravel()]
        assert set(np.concatenate(met).tolist()) == set(range(len(batch.targets)))
        assert batch.sample_seconds > 0
    assert len({batch.key for batch in batches}) == len(batches)


@pytest.mark.parametrize("settings", [{}, {"hide_targets": True, "edges_per_epoch": 90}])
def test_resuming_and_prefetching_change_no_batch(graph: Graph, settings: dict[str, Any]) -> None:
    whole = epoch_of(graph, epoch=1, **settings)
    for first_step in range(len(whole) + 1):
        rest = epoch_of(graph, epoch=1, first_step=first_step, prefetch=2, **settings)
        assert_same(rest, whole[first_step:])
    assert_same([loader_of(graph, **settings).batch(1, 2)], whole[2:3])


# --- ranks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hide_targets": True},
        {"shared_negatives": True, "negatives": 5},
        {"fanouts": (-1, -1), "hide_targets": True, "edges_per_epoch": 100},
        {"global_batch_size": 9, "negatives": 1},
    ],
)
def test_all_ranks_together_have_what_one_process_has(
    graph: Graph, settings: dict[str, Any], world_size: int
) -> None:
    alone = epoch_of(graph, **settings)
    ranks = [
        epoch_of(graph, rank=rank, world_size=world_size, **settings) for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {len(alone)}
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in ranks]
        # The slices of a batch, one after the other, are the batch.
        assert [triple for part in parts for triple in triples(part)] == triples(whole)
        assert {part.num_global_real for part in parts} == {whole.num_real}
        assert {part.key for part in parts} == {whole.key}
        for hop, links_of_all in enumerate(links(whole)):
            assert set.union(*(links(part)[hop] for part in parts)) == links_of_all
        assert set.union(*({*part.input_nodes.tolist()} for part in parts)) == {
            *whole.input_nodes.tolist()
        }


@pytest.mark.parametrize("world_size", WORLDS)
def test_no_rank_is_without_work(graph: Graph, world_size: int) -> None:
    """Where a slice is short an edge of the same batch fills it up, and does not count."""
    ranks = [
        epoch_of(graph, rank=rank, world_size=world_size, global_batch_size=11)
        for rank in range(world_size)
    ]
    padded = 0
    for parts in zip(*ranks, strict=True):
        everyones = [triple for part in parts for triple in triples(part)]
        lengths = {len(triples(part, real=False)) for part in parts}
        assert lengths == {-(-len(everyones) // world_size)}
        for part in parts:
            extra = triples(part, real=False)[part.num_real :]
            assert len(extra) <= 1
            assert set(extra) <= set(everyones)
            padded += len(extra)
    assert padded


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("fanouts", [(-1, -1), (3, 2)])
def test_hidden_are_exactly_the_edges_of_the_step(
    graph: Graph, fanouts: tuple[int, ...], world_size: int
) -> None:
    """Those of all ranks, in both directions, in every block."""
    settings: dict[str, Any] = {"fanouts": fanouts, "world_size": world_size}
    hidden_of_hop = [0, 0]
    for rank in range(world_size):
        plain = epoch_of(graph, rank=rank, **settings)
        hidden = epoch_of(graph, rank=rank, hide_targets=True, **settings)
        alone = epoch_of(graph, fanouts=fanouts)
        for mine, theirs, whole in zip(hidden, plain, alone, strict=True):
            step_edges = both_ways([(a, b) for a, b, _ in triples(whole)])
            for hop, (kept, all_links) in enumerate(zip(links(mine), links(theirs), strict=True)):
                assert kept == all_links - step_edges
                hidden_of_hop[hop] += len(all_links - kept)
            assert triples(mine) == triples(theirs)
            assert np.array_equal(mine.input_nodes, theirs.input_nodes)
            for block, before in zip(mine.blocks, theirs.blocks, strict=True):
                assert (block.num_dst, block.num_src) == (before.num_dst, before.num_src)
                assert block.offsets[-1] == len(block.columns)
    assert min(hidden_of_hop) > 0


def test_edges_are_found_among_millions_of_nodes() -> None:
    """Pairs of nodes are told apart however large their numbers; a repeated edge goes whole."""
    random = np.random.default_rng(3)
    num_nodes = 3_000_000_000
    nodes = np.unique(np.r_[0, 1, random.integers(0, num_nodes, 300), num_nodes - 1])
    degrees = random.integers(0, 9, 200)
    offsets = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int32)
    columns = random.integers(0, len(nodes), offsets[-1]).astype(np.int32)
    block = Block(offsets, columns, len(nodes))
    ends = np.stack([nodes[np.repeat(np.arange(200), degrees)], nodes[columns]], axis=1)
    for count in (0, 1, 50, len(ends)):
        edges = random.permutation(ends)[:count]
        flip = random.random(count) < 0.5
        edges[flip] = edges[flip, ::-1]
        (found,) = without_edges((block,), nodes, edges, num_nodes)
        gone = both_ways(edges)
        kept = [tuple(end) not in gone or end[0] == end[1] == 0 for end in ends.tolist()]
        assert found.columns.tolist() == columns[kept].tolist()
        rows = np.repeat(np.arange(200), degrees)[kept]
        assert np.diff(found.offsets).tolist() == np.bincount(rows, minlength=200).tolist()


# --- negatives ----------------------------------------------------------------------------------


def negatives_of(batches: list[Batch]) -> npt.NDArray[np.int64]:
    return np.array([row[2] for batch in batches for row in triples(batch)])


def test_negatives_are_uniform_over_all_papers(graph: Graph) -> None:
    drawn = np.concatenate([negatives_of(epoch_of(graph, epoch)) for epoch in range(40)])
    for places in (drawn, drawn[:, 0], drawn[:, 1]):
        assert chi_square(np.bincount(places.ravel(), minlength=graph.num_nodes)) < 4
    assert (drawn[:, 0] == drawn[:, 1]).mean() < 3 / graph.num_nodes


def test_negatives_of_an_edge_are_others_each_time(graph: Graph) -> None:
    def by_edge(epoch: int, **settings: Any) -> dict[tuple[int, int], tuple[int, ...]]:
        batches = epoch_of(graph, epoch, negatives=4, **settings)
        return {(a, b): drawn for batch in batches for a, b, drawn in triples(batch)}

    first = by_edge(0)
    assert by_edge(0) == first
    for other in (by_edge(1), by_edge(0, seed=2)):
        assert other.keys() == first.keys()
        assert sum(other[edge] == first[edge] for edge in first) <= 1
    assert len(set(first.values())) == len(first)


def test_fewer_negatives_are_the_first_of_more(graph: Graph) -> None:
    fewer, more = (negatives_of(epoch_of(graph, negatives=count)) for count in (2, 6))
    assert np.array_equal(fewer, more[:, :2])


def test_shared_negatives_are_those_of_the_step(graph: Graph) -> None:
    settings: dict[str, Any] = {"shared_negatives": True, "negatives": 6}
    of_steps = []
    for epoch in range(2):
        for batch in epoch_of(graph, epoch, **settings):
            (row,) = {drawn for _, _, drawn in triples(batch)}
            of_steps.append(row)
    assert len(set(of_steps)) == len(of_steps)
    counts = np.zeros(graph.num_nodes)
    for epoch in range(150):
        for batch in epoch_of(graph, epoch, fanouts=(1,), **settings):
            counts[list(triples(batch)[0][2])] += 1
    assert chi_square(counts) < 5


def test_a_graph_prepared_elsewhere_gives_the_same_batches(graph: Graph, tmp_path: Path) -> None:
    assert_same(epoch_of(linked_graph(tmp_path)), epoch_of(graph))


# --- dated negatives and structure --------------------------------------------------------------


def test_dated_negatives_are_not_newer_than_the_citing_paper(graph: Graph) -> None:
    assert graph.years is not None
    any_year, dated = (epoch_of(graph, negatives=5, dated=dated, seed=3) for dated in (False, True))
    newer = {False: 0, True: 0}
    for batches in (any_year, dated):
        for batch in batches:
            for paper, _, negatives in triples(batch):
                newer[batches is dated] += int(
                    (graph.years[list(negatives)] > graph.years[paper]).sum()
                )
    assert newer[False] > 0
    assert newer[True] == 0


def test_dated_negatives_are_all_negatives_where_no_year_is_known(tmp_path: Path) -> None:
    bare = linked_graph(tmp_path, "random", years=False)
    assert_same(epoch_of(bare, dated=True), epoch_of(bare, dated=False))


@pytest.mark.parametrize("shared", [False, True])
def test_each_pair_has_its_structure_on_any_rank(graph: Graph, shared: bool) -> None:
    structure = PairStructure(graph)
    for rank in range(3):
        for batch in epoch_of(
            graph, rank=rank, world_size=3, structure=structure, shared_negatives=shared
        ):
            assert batch.pairs is not None and batch.pairs.structure is not None
            for (paper, cited, negatives), found in zip(
                triples(batch, real=False), batch.pairs.structure, strict=True
            ):
                others = np.array([[cited, *negatives]])
                assert np.array_equal(structure.of(np.array([paper]), others, True)[0], found)
