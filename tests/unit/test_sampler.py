"""The sampler: every neighbour equally likely, and the same draws whoever asks for them."""

from __future__ import annotations

import functools
import itertools
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2, chisquare

from gnn_core import seeding
from gnn_core.config import UsageError
from gnn_core.data import positions as module
from gnn_core.data.batch import Block
from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import all_neighbours, reach
from gnn_core.data.sampler import ALL_NEIGHBOURS, Sampler
from tests.unit import made_graphs
from tests.unit.made_graphs import HUB, edge_set, edges_of, from_rows

Sample = tuple[tuple[Block, ...], npt.NDArray[np.int64]]
LARGEST = 2**64 - 1
# The keys are fixed, so a test that passes once passes always: there is no unlucky day.
UNLIKELY = 1e-4


@pytest.fixture(scope="module")
def odd() -> Graph:
    return made_graphs.oddities()


def draws(degree: int, fanout: int, num_targets: int, key: int) -> npt.NDArray[np.int64]:
    """Draw for many nodes with the same neighbours 0 .. degree - 1: [num_targets, fanout]."""
    graph, targets = made_graphs.fan(degree, num_targets)
    (block,), nodes = Sampler(graph, (fanout,)).sample(targets, key)
    return edges_of(block, nodes)[:, 1].reshape(num_targets, fanout)


def assert_same(one: Sample, other: Sample) -> None:
    """Two samples agree in every bit."""
    assert len(one[0]) == len(other[0])
    assert np.array_equal(one[1], other[1])
    for mine, theirs in zip(one[0], other[0], strict=True):
        assert mine.num_src == theirs.num_src
        assert np.array_equal(mine.offsets, theirs.offsets)
        assert np.array_equal(mine.columns, theirs.columns)


# --- what is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degree", "fanout"),
    [(20, 5), (6, 5), (16, 15), (2, 1), (63, 10), (64, 10), (65, 10), (64, 63), (66, 65), (900, 5)],
)
def test_every_neighbour_is_equally_likely(degree: int, fanout: int) -> None:
    """Also just above the fan-out, and where the sampler changes its way of working."""
    num_targets = 40_000
    counts = np.bincount(draws(degree, fanout, num_targets, 11).ravel(), minlength=degree)
    share = fanout / degree
    # Draws without replacement are bound together; with this variance it is chi-square again.
    variance = num_targets * share * (1 - share) * degree / (degree - 1)
    statistic = ((counts - num_targets * share) ** 2).sum() / variance
    assert chi2.sf(statistic, degree - 1) > UNLIKELY
    assert chi2.cdf(statistic, degree - 1) > UNLIKELY  # too even is not random either


@pytest.mark.parametrize(("degree", "fanout"), [(6, 3), (6, 5), (7, 2), (65, 2)])
def test_every_set_of_neighbours_is_equally_likely(degree: int, fanout: int) -> None:
    """No pair is drawn together more often than another: no neighbour brings its neighbour in."""
    sets = {chosen: n for n, chosen in enumerate(itertools.combinations(range(degree), fanout))}
    drawn = np.sort(draws(degree, fanout, 50_000, 12), axis=1)
    counts = np.bincount([sets[tuple(row)] for row in drawn.tolist()], minlength=len(sets))
    assert chisquare(counts).pvalue > UNLIKELY


def test_pairs_are_not_bound_together() -> None:
    """At degree 20 and fan-out 5 each of the 190 pairs comes with chance (5 x 4) / (20 x 19)."""
    num_targets = 60_000
    present = np.zeros((num_targets, 20))
    np.put_along_axis(present, draws(20, 5, num_targets, 13), 1, axis=1)
    together = (present.T @ present)[np.triu_indices(20, k=1)]
    chance = 20 / 380
    deviations = (together - num_targets * chance) / np.sqrt(num_targets * chance * (1 - chance))
    assert np.abs(deviations).max() < 4.5
    assert 0.75 < deviations.std() < 1.25


@pytest.mark.parametrize(("degree", "fanout"), [(20, 5), (6, 5), (64, 15), (65, 15), (500, 40)])
def test_no_neighbour_is_drawn_twice(degree: int, fanout: int) -> None:
    drawn = np.sort(draws(degree, fanout, 5000, 14), axis=1)
    assert (np.diff(drawn, axis=1) > 0).all()
    assert drawn.min() >= 0
    assert drawn.max() < degree


# --- independence -------------------------------------------------------------------------------


def assert_independent(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> None:
    """Two draws of one out of five: all 25 pairs are equally likely."""
    assert chisquare(np.bincount(first * 5 + second, minlength=25)).pvalue > UNLIKELY


def test_the_hops_of_a_node_are_independent() -> None:
    """A node is expanded at each hop anew; what it drew before must not tell what it draws."""
    graph, targets = made_graphs.fan(5, 40_000)
    blocks, nodes = Sampler(graph, (1, 1, 1)).sample(targets, 21)
    hops = [edges_of(block, nodes)[: len(targets), 1] for block in reversed(blocks)]
    for first, second in itertools.combinations(hops, 2):
        assert_independent(first, second)


@functools.cache
def one_of_five(*parts: int | str) -> npt.NDArray[np.int64]:
    """Draw 1 of 5 for 40 000 nodes, with the key that a loader would make."""
    return draws(5, 1, 40_000, seeding.key(*parts)).ravel()


@pytest.mark.parametrize(
    "other",
    [
        (0, "sampling", "train", 0, 1),
        (0, "sampling", "train", 1, 0),
        (0, "sampling", "valid", 0, 0),
        (1, "sampling", "train", 0, 0),
        (0, "other", "train", 0, 0),
    ],
    ids=["step", "epoch", "split", "seed", "stream"],
)
def test_keys_that_differ_in_one_part_draw_independently(other: tuple[int | str, ...]) -> None:
    assert_independent(one_of_five(0, "sampling", "train", 0, 0), one_of_five(*other))


@pytest.mark.parametrize("apart", [1, 2, 256, 4096])
def test_nodes_draw_independently(apart: int) -> None:
    drawn = one_of_five(0, "sampling", "train", 0, 0)
    assert_independent(drawn[:-apart], drawn[apart:])


def test_numbers_that_look_alike_make_no_keys_that_look_alike() -> None:
    """Key + 1 at node n must not draw what key draws at node n + 1."""
    for step in range(3):
        assert_independent(draws(5, 1, 40_000, step).ravel(), draws(5, 1, 40_000, step + 1).ravel())
        here, there = draws(5, 1, 40_000, step).ravel(), draws(5, 1, 40_000, step + 1).ravel()
        assert_independent(here[1:], there[:-1])


# --- the rule, spelled out ----------------------------------------------------------------------


def splitmix64(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & LARGEST
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & LARGEST
    return value ^ (value >> 31)


def drawn_by_the_rule(row: list[int], fanout: int, key: int, hop: int, node: int) -> set[int]:
    """Floyd's algorithm on the counter (key, hop, node), in plain Python."""
    if fanout < 0 or len(row) <= fanout:
        return set(row)
    state = key
    for part in (hop, node):
        state = splitmix64(state + (part + 1) * seeding.GOLDEN_GAMMA & LARGEST)
    chosen: set[int] = set()
    for last in range(len(row) - fanout, len(row)):
        state = state + seeding.GOLDEN_GAMMA & LARGEST
        choice = (splitmix64(state) >> 32) * (last + 1) >> 32
        chosen.add(last if choice in chosen else choice)
    return {row[position] for position in chosen}


def assert_by_the_rule(graph: Graph, fanouts: tuple[int, ...], sample: Sample, key: int) -> None:
    blocks, nodes = sample
    for hop, (block, fanout) in enumerate(zip(reversed(blocks), fanouts, strict=True)):
        drawn = edges_of(block, nodes)[:, 1]
        for i, node in enumerate(nodes[: block.num_dst].tolist()):
            own = drawn[block.offsets[i] : block.offsets[i + 1]].tolist()
            row = graph.indices[graph.indptr[node] : graph.indptr[node + 1]].tolist()
            assert len(set(own)) == len(own)
            assert set(own) == drawn_by_the_rule(row, fanout, key, hop, node)


@pytest.mark.parametrize("key", [0, 1, 2**63, LARGEST])
def test_draws_follow_the_rule_at_each_hop(tiny_graph: Graph, key: int) -> None:
    """A pure function of (key, hop, node, slot): here it stands a second time, slow and plain.

    It also says that draws never change from one release to the next, and that every destination
    is expanded at every hop.
    """
    sample = Sampler(tiny_graph, (4, 3, 2)).sample(tiny_graph.split("train")[::3], key)
    assert_by_the_rule(tiny_graph, (4, 3, 2), sample, key)


def test_draws_follow_the_rule_on_an_odd_graph(odd: Graph) -> None:
    targets = odd.split("train")[::2]
    assert HUB in targets
    assert_by_the_rule(odd, (15, 5), Sampler(odd, (15, 5)).sample(targets, 31), 31)


@pytest.mark.parametrize("degree", [2, 63, 64, 65, 66, 68, 128, 129])
def test_draws_follow_the_rule_at_any_degree(degree: int) -> None:
    graph, targets = made_graphs.fan(degree, 500)
    for fanout in {1, degree // 2, degree - 1}:
        assert_by_the_rule(graph, (fanout,), Sampler(graph, (fanout,)).sample(targets, 32), 32)


# --- the shape of a block -----------------------------------------------------------------------


@pytest.mark.parametrize("fanouts", [(5,), (15, 10, 5), (3, -1), (-1,), (1, 1, 1, 1)])
def test_blocks_keep_the_contract(odd: Graph, fanouts: tuple[int, ...]) -> None:
    targets = np.random.default_rng(1).permutation(odd.split("train"))
    blocks, nodes = Sampler(odd, fanouts).sample(targets, 41)
    assert len(blocks) == len(fanouts)
    assert nodes.dtype == np.int64
    assert len(np.unique(nodes)) == len(nodes) == blocks[0].num_src
    assert np.array_equal(nodes[: len(targets)], targets)
    assert blocks[-1].num_dst == len(targets)
    for nearer_input, block in itertools.pairwise(blocks):
        assert nearer_input.num_dst == block.num_src
    for block, fanout in zip(reversed(blocks), fanouts, strict=True):
        destinations = nodes[: block.num_dst]
        degrees = odd.indptr[destinations + 1] - odd.indptr[destinations]
        assert block.offsets.dtype == block.columns.dtype == np.int32
        assert block.offsets[0] == 0
        assert block.offsets[-1] == block.num_edges == len(block.columns)
        taken = degrees if fanout < 0 else np.minimum(degrees, fanout)
        assert np.array_equal(np.diff(block.offsets), taken)
        assert block.columns.min() >= 0
        assert block.columns.max() < block.num_src
        # No source without a reason: each is a destination or somebody's neighbour.
        assert np.isin(np.arange(block.num_dst, block.num_src), block.columns).all()


def test_what_is_drawn_are_neighbours(odd: Graph) -> None:
    blocks, nodes = Sampler(odd, (15, 10, 5)).sample(odd.split("train"), 42)
    for block in blocks:
        for node, neighbour in edge_set(block, nodes):
            row = odd.indices[odd.indptr[node] : odd.indptr[node + 1]]
            at = np.searchsorted(row, neighbour)
            assert at < len(row)
            assert row[at] == neighbour


def test_few_neighbours_are_all_taken() -> None:
    graph = from_rows([[1, 2, 3], [0, 2], [0, 1, 3, 4], [2], []])
    (block,), nodes = Sampler(graph, (3,)).sample(np.array([0, 1, 3, 4]), 5)
    assert edge_set(block, nodes) == {(0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (3, 2)}
    assert np.diff(block.offsets).tolist() == [3, 2, 1, 0]


def test_minus_one_takes_all_neighbours_of_a_hub(odd: Graph) -> None:
    blocks, nodes = Sampler(odd, (ALL_NEIGHBOURS, 2)).sample(np.array([HUB]), 6)
    assert np.array_equal(np.sort(edges_of(blocks[1], nodes)[:, 1]), np.arange(1, 1_000_001))
    receivers, senders = edges_of(blocks[0], nodes).T
    assert (receivers == HUB).sum() == 2  # expanded at the second hop too, as any destination is
    assert (senders == HUB).sum() > 998_000  # the only neighbour of most


def test_a_hub_draws_evenly_from_a_million(odd: Graph) -> None:
    sampler = Sampler(odd, (10,))
    counts = np.zeros(20)
    for key in range(2000):
        (block,), nodes = sampler.sample(np.array([HUB]), seeding.key("hub", key))
        drawn = edges_of(block, nodes)[:, 1]
        assert len(set(drawn.tolist())) == 10
        counts += np.bincount((drawn - 1) // 50_000, minlength=20)
    assert chisquare(counts).pvalue > UNLIKELY


def test_isolated_nodes_and_self_loops() -> None:
    graph = from_rows([[], [1], [0, 2], []])
    blocks, nodes = Sampler(graph, (2, 2)).sample(np.array([0, 1, 2, 3]), 7)
    for block in blocks:
        assert edge_set(block, nodes) == {(1, 1), (2, 0), (2, 2)}
        assert block.num_src == 4
    blocks, nodes = Sampler(graph, (2, 2)).sample(np.array([3]), 7)
    assert [block.num_edges for block in blocks] == [0, 0]
    assert nodes.tolist() == [3]


def test_no_targets_at_all(tiny_graph: Graph) -> None:
    blocks, nodes = Sampler(tiny_graph, (3, 2)).sample(np.empty(0, np.int64), 8)
    assert [(block.num_dst, block.num_src, block.num_edges) for block in blocks] == [(0, 0, 0)] * 2
    assert len(nodes) == 0


# --- who asks, and what was asked before, makes no difference -----------------------------------


@pytest.mark.parametrize("fanouts", [(5, 3), (15, 10, 5), (-1, 4)])
@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_together_draw_what_one_process_draws(
    odd: Graph, world_size: int, fanouts: tuple[int, ...]
) -> None:
    """Edge for edge at the first hop and, of every node that a rank reaches, at the others."""
    order = np.random.default_rng(2).permutation(odd.split("train"))
    for step in range(2):
        targets = order[step * 160 : (step + 1) * 160]
        if fanouts[0] < 0:
            targets = targets[targets != HUB]  # tested above; here it would take a minute
        key = seeding.key(0, "sampling", "train", 0, step)
        blocks, nodes = Sampler(odd, fanouts).sample(targets, key)
        alone = [edge_set(block, nodes) for block in blocks]
        together: list[set[tuple[int, int]]] = [set() for _ in fanouts]
        for part in np.array_split(targets, world_size):
            blocks, nodes = Sampler(odd, fanouts).sample(part, key)
            for edges, block in zip(together, blocks, strict=True):
                edges |= edge_set(block, nodes)
        assert together == alone


def test_the_order_of_targets_makes_no_difference_to_the_draws(odd: Graph) -> None:
    targets = odd.split("train")
    samples = [Sampler(odd, (5, 3)).sample(ids, 51) for ids in (targets, targets[::-1])]
    one, other = ([edge_set(block, nodes) for block in blocks] for blocks, nodes in samples)
    assert one == other


def test_earlier_batches_leave_no_trace(odd: Graph) -> None:
    used = Sampler(odd, (7, 4))
    random = np.random.default_rng(3)
    for key, size in enumerate((400, 1, 50, 0, 300, 3)):
        targets = random.choice(odd.split("train"), size, replace=False)
        assert_same(used.sample(targets, key), Sampler(odd, (7, 4)).sample(targets, key))


def test_positions_start_over_before_they_overflow(tiny_graph: Graph) -> None:
    """A job of weeks meets more than 2**31 nodes, all batches together."""
    used = Sampler(tiny_graph, (3, 2))
    targets = tiny_graph.split("train")
    used.sample(targets, 0)
    most = tiny_graph.num_nodes + 20  # nodes in one batch
    table = used._positions
    assert isinstance(table, module.TablePositions)
    table._base = 2**31 - 1 - 3 * most
    bases = []
    for key in range(12):
        few = targets[key : key + 20]
        assert_same(used.sample(few, key), Sampler(tiny_graph, (3, 2)).sample(few, key))
        bases.append(table._base)
    assert bases[0] > 2**31 - 1 - 3 * most  # went on from there,
    assert min(bases) < most  # and started over


@pytest.mark.parametrize("room", [0, 1, 2])
def test_the_last_position_still_fits(room: int) -> None:
    """Take a batch that meets every node there is, at the very edge of int32."""
    graph = from_rows([[1, 2, 3, 4], [0], [0], [0], [0]])
    used = Sampler(graph, (-1, -1))
    used.sample(np.array([0]), 0)
    table = used._positions
    assert isinstance(table, module.TablePositions)
    table._base, table._met = 2**31 - 1 - graph.num_nodes - 1 - room, 0
    for key in range(3):
        one = used.sample(np.array([0]), key)
        assert_same(one, Sampler(graph, (-1, -1)).sample(np.array([0]), key))


def test_a_batch_that_is_too_large_is_refused_and_forgotten() -> None:
    """2**31 edges do not fit a block. The next batch knows nothing of the nodes met until then."""
    degrees = [2, 2**31, 0, 1]
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    indices = np.array([1, 2], np.int32)
    graph = Graph("huge", None, indptr, indices)  # the rest of its indices is never read
    sampler = Sampler(graph, (-1, -1))
    with pytest.raises(UsageError, match="hop 2 .*2,147,483,6.* lower --global") as caught:
        sampler.sample(np.array([0]), 0)
    assert "\n" not in str(caught.value)
    small = Graph("small", None, np.array([0, 0, 0, 0, 1]), np.array([2], np.int32))
    sampler._graph = small
    assert_same(sampler.sample(np.array([3]), 0), Sampler(small, (-1, -1)).sample(np.array([3]), 0))


def test_an_interrupted_batch_is_forgotten(
    tiny_graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(tiny_graph, (4, 4))
    targets = tiny_graph.split("train")[:5]
    relabel = module._relabel

    def relabel_and_stop(*arguments: object) -> int:
        relabel(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_relabel", relabel_and_stop)
        sampler.sample(targets, 1)
    assert_same(sampler.sample(targets, 2), Sampler(tiny_graph, (4, 4)).sample(targets, 2))


def test_threads_may_share_a_sampler(odd: Graph) -> None:
    """The compiled parts release the GIL, so two threads would be at the scratch space at once."""
    shared = Sampler(odd, (10, 10, 5))
    wrong = []

    def work(rank: int) -> None:
        own = Sampler(odd, (10, 10, 5))
        for step in range(15):
            targets, key = odd.split("train")[rank::2], 100 * rank + step
            try:
                assert_same(shared.sample(targets, key), own.sample(targets, key))
            except AssertionError as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_ids_beyond_32_bits_are_kept_whole(tmp_path: Path) -> None:
    """A graph of 2**31 nodes has int64 ids. Its table of positions is 8 GiB of nothing here."""
    file = tmp_path / "where"
    try:
        with file.open("wb") as sparse:
            sparse.truncate(4 * (2**31 + 8))
        if file.stat().st_blocks * 512 > 2**20:
            pytest.skip("this file system writes out the zeros of a sparse file")
        where = np.memmap(file, np.int32, "r+")  # all 0, so a base of 1 has met nobody
    except OSError as error:
        pytest.skip(f"no sparse file of 8 GiB here: {error}")
    indices = np.array([3, 2**31 + 5, 7, 2**31 + 5], np.int64)
    nodes = np.zeros(8, np.int64)
    columns = np.empty(4, np.int32)
    num_nodes = module._relabel(indices, np.arange(4), 4, 1, where, nodes, 1, columns)
    file.unlink()
    assert num_nodes == 4
    assert nodes[1:4].tolist() == [3, 2**31 + 5, 7]
    assert columns.tolist() == [1, 2, 3, 2]


@pytest.mark.parametrize(
    ("array", "value"),
    [("indices", -1), ("indices", 10**6), ("indptr", 2**40), ("indptr", -(2**40))],
)
def test_a_file_that_changed_is_reported_and_nothing_is_written_where_it_points(
    array: str, value: int
) -> None:
    """A graph of many GB is checked in samples, and its file may change after that."""
    arrays = {
        "indptr": np.array([0, 2, 4, 6, 8]),
        "indices": np.array([1, 2, 0, 3, 0, 3, 1, 2], np.int32),
    }
    arrays[array][3] = value
    graph = Graph("damaged", None, arrays["indptr"], arrays["indices"])
    for fanouts in ((1, 1), (-1, -1), (2, 2)):
        with pytest.raises(UsageError, match="expected (rows within|node ids)|lower --global"):
            for key in range(20):
                Sampler(graph, fanouts).sample(np.array([1, 2, 3, 0]), key)
    with pytest.raises(UsageError, match="indices: expected rows of node ids"):
        reach(graph, np.array([1, 2]), 2)
    with pytest.raises(UsageError, match="indices: expected rows of node ids"):
        all_neighbours(graph, np.arange(4))
