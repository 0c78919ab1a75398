"""Ranking held-out references: the tally of one, of many, and of many on any number of ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data.batch import Block
from gnn_core.data.candidates import Candidates
from gnn_core.data.feature_store import TableStore
from gnn_core.data.graph import Graph
from gnn_core.data.pair_common import CommonNeighbours
from gnn_core.data.pair_structure import PairStructure
from gnn_core.measure.metrics import RankingTally, split_fields
from gnn_core.training import evaluate, link_ranking
from gnn_core.training.link_ranking import LinkEvaluator
from gnn_core.training.world import Stopped, World
from gnn_core.usage import UsageError
from tests.unit.made_links import linked_graph
from tests.unit.made_ranks import on_ranks
from tests.unit.test_pair_common import found_with_sets

CANDIDATES = 12


def tied_scores(count: int = 200, others: int = 50) -> tuple[npt.NDArray, npt.NDArray]:
    """Scores of few values, so that most references are tied with some candidate."""
    random = np.random.default_rng(8)
    return random.integers(-3, 4, count) / 2, random.integers(-4, 4, (count, others)) / 2


# --- the tally ----------------------------------------------------------------------------------


def test_a_rank_counts_those_ahead_and_half_of_those_as_good() -> None:
    scores, others = tied_scores()
    tally = RankingTally.of(scores, others)
    ranks, losses = [], []
    for score, row in zip(scores.tolist(), others.tolist(), strict=True):
        ranks.append(1 + sum(o > score for o in row) + sum(o == score for o in row) / 2)
        against = sum(math.log1p(math.exp(other)) for other in row) / len(row)
        losses.append(math.log1p(math.exp(-score)) + against)
    assert tally.count == len(ranks) == 200
    assert tally.score == pytest.approx(np.mean([1 / r for r in ranks]), rel=1e-14)
    assert tally.loss_sum == pytest.approx(sum(losses), rel=1e-13)
    assert tally.hits == tuple(sum(r <= most for r in ranks) for most in (1, 10, 100))
    assert tally.auc_sum == pytest.approx(sum(1 - (r - 1) / 50 for r in ranks), rel=1e-13)


def test_the_loss_of_all_candidates_together() -> None:
    scores, others = tied_scores()
    expected = [
        math.log(sum(math.exp(o - score) for o in [score, *row]))
        for score, row in zip(scores.tolist(), others.tolist(), strict=True)
    ]
    softmax, each = (RankingTally.of(scores, others, loss) for loss in ("softmax", "bce"))
    assert softmax.loss_sum == pytest.approx(sum(expected) + each.loss_sum / 10, rel=1e-13)
    assert replace(softmax, loss_sum=0.0) == replace(each, loss_sum=0.0)


def test_the_best_the_worst_and_the_undecided() -> None:
    others = np.tile(np.arange(9.0), (3, 1))
    best, worst = (RankingTally.of(np.full(3, score), others) for score in (10.0, -1.0))
    assert (best.score, best.fields()["auc"], best.hits) == (1, 1, (3, 3, 3))
    assert (worst.score, worst.fields()["auc"], worst.hits) == (pytest.approx(0.1), 0, (0, 3, 3))
    undecided = RankingTally.of(np.zeros(3), np.zeros((3, 1000)))
    assert undecided.score == pytest.approx(1 / 501)
    assert undecided.fields()["auc"] == 0.5
    assert undecided.fields()["loss"] == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_scores_do_not_overflow(dtype: type) -> None:
    tally = RankingTally.of(np.array([1e30, -1e30], dtype), np.array([[-1e30], [1e30]], dtype))
    assert tally.loss_sum == pytest.approx(2e30, rel=1e-6)
    assert tally.reciprocal_sum == 1.5


@pytest.mark.filterwarnings("error")
def test_a_model_that_has_diverged_is_reported_by_its_loss() -> None:
    for scores, others in (([np.nan], [[0.0]]), ([0.0], [[np.nan]]), ([-np.inf], [[0.0]])):
        assert not math.isfinite(RankingTally.of(np.array(scores), np.array(others)).loss_sum)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_tallies_of_parts_add_up(parts: int) -> None:
    scores, others = tied_scores()
    whole = RankingTally.of(scores, others)
    cuts = np.array_split(np.arange(len(scores)), parts)
    total = sum((RankingTally.of(scores[rows], others[rows]) for rows in cuts), RankingTally())
    vectors = sum(RankingTally.of(scores[rows], others[rows]).to_vector() for rows in cuts)
    for merged in (total, RankingTally.from_vector(vectors)):
        assert (merged.hits, merged.count) == (whole.hits, whole.count)
        np.testing.assert_allclose(merged.to_vector(), whole.to_vector(), rtol=1e-13)
    assert RankingTally.from_vector(whole.to_vector()) == whole == whole + RankingTally()


def test_what_a_record_holds() -> None:
    fields = split_fields("test", RankingTally.of(np.array([2.0, 0.5]), np.array([[1.0], [1.0]])))
    names = ("mrr", "hits_1", "hits_10", "hits_100", "auc", "loss", "count")
    assert tuple(fields) == tuple(f"test_{name}" for name in names)
    assert (fields["test_mrr"], fields["test_hits_1"], fields["test_hits_10"]) == (0.75, 0.5, 1)
    assert (fields["test_auc"], fields["test_count"]) == (0.5, 2)
    judged = replace(RankingTally(), pair_accuracy=0.9, average_precision=0.8).fields()
    assert (judged["pair_accuracy"], judged["average_precision"]) == (0.9, 0.8)
    nothing = RankingTally().fields()
    assert nothing.pop("count") == 0
    assert set(nothing.values()) == {None}


# --- the evaluator ------------------------------------------------------------------------------


class TwoLayers:
    """A model in NumPy: two layers of means, and the product of two embeddings for a score."""

    widths, dtype = (5, 4), np.dtype(np.float64)

    def __init__(self, graph: Graph):
        random = np.random.default_rng(1)
        assert graph.features is not None
        self.features = graph.features.astype(np.float64)
        self.store = TableStore(graph.features)
        shapes = zip((self.features.shape[1], *self.widths), self.widths, strict=False)
        self.weights = [random.normal(size=(2, *shape)) for shape in shapes]

    def infer_layer(
        self, depth: int, states: npt.NDArray | None, nodes: npt.NDArray, block: Block
    ) -> npt.NDArray:
        below = (self.features if states is None else states)[nodes]
        ends = np.repeat(np.arange(block.num_dst), np.diff(block.offsets))
        sums = np.zeros((block.num_dst, below.shape[1]))
        np.add.at(sums, ends, below[block.columns])
        means = sums / np.maximum(np.diff(block.offsets), 1)[:, None]
        return self.layer(depth, below[: block.num_dst], means)

    def layer(self, depth: int, own: npt.NDArray, means: npt.NDArray) -> npt.NDArray:
        return np.tanh(own @ self.weights[depth][0] + means @ self.weights[depth][1])

    def scores(
        self,
        left: npt.NDArray,
        right: npt.NDArray,
        structure: npt.NDArray | None = None,
        common: tuple[npt.NDArray, npt.NDArray] | None = None,
    ) -> npt.NDArray:
        found: npt.NDArray = (left * right).sum(axis=1)
        if common is not None:
            pairs, sums = common
            found[pairs] += sums.sum(axis=1)
        return found


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return linked_graph(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "CHUNK_NODES", 11)
    monkeypatch.setattr(link_ranking, "CHUNK_PAIRS", 3 * (CANDIDATES + 1))


def in_one_go(graph: Graph, split: str, reads_common: bool = False) -> RankingTally:
    """All references of a split, out of the embeddings of all papers at once."""
    model = TwoLayers(graph)
    linked = np.zeros((graph.num_nodes, graph.num_nodes))
    linked[np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr)), graph.indices] = 1
    means = linked / np.maximum(linked.sum(axis=1, keepdims=True), 1)
    states = model.features
    for depth in range(2):
        states = model.layer(depth, states, means @ states)
    edges = getattr(graph, f"{split}_edges")
    others = Candidates(graph, split, CANDIDATES).of(np.arange(len(edges)))
    scores = states @ states.T
    for u in np.unique(edges[:, 0]).tolist() if reads_common else ():
        for v in range(graph.num_nodes):
            for node in found_with_sets(graph, u, v):
                weight = np.float32(1 / math.log(max(linked[node].sum(), 2)))
                scores[u, v] += float(weight) * states[node].sum()
    return RankingTally.of(scores[edges[:, 0], edges[:, 1]], scores[edges[:, :1], others])


def evaluated(
    graph: Graph, ranks: int = 1, whole: bool = True, most_edges: int = 0, **settings: Any
) -> list[dict[str, RankingTally]]:
    """What each rank has in the end."""

    def work(world: World) -> dict[str, RankingTally]:
        model = TwoLayers(graph)
        evaluator = LinkEvaluator(
            graph, world, model, candidates=CANDIDATES, most_edges=most_edges, **settings
        )
        return evaluator.tallies(("valid", "test"), whole)

    return on_ranks(["here"] * ranks, work)


def assert_same(ours: RankingTally, theirs: RankingTally) -> None:
    assert (ours.count, ours.hits) == (theirs.count, theirs.hits)
    np.testing.assert_allclose(ours.to_vector(), theirs.to_vector(), rtol=1e-12)


@pytest.mark.parametrize("share_directly", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 4, 7])
def test_any_ranks_rank_as_one_does_in_one_go(
    graph: Graph, ranks: int, share_directly: bool
) -> None:
    found = evaluated(graph, ranks, share_directly=share_directly)
    for split in ("valid", "test"):
        for tallies in found:
            assert tallies[split].count == len(getattr(graph, f"{split}_edges"))
            assert_same(tallies[split], in_one_go(graph, split))


@pytest.mark.parametrize("ranks", [1, 3])
def test_embeddings_of_common_neighbours_are_read(graph: Graph, ranks: int) -> None:
    structure = PairStructure(graph, common=CommonNeighbours(graph))
    for tallies in evaluated(graph, ranks, structure=structure):
        for split in ("valid", "test"):
            assert_same(tallies[split], in_one_go(graph, split, reads_common=True))
            assert tallies[split] != in_one_go(graph, split)


def test_several_threads_give_the_same(graph: Graph) -> None:
    for split, tally in evaluated(graph, threads=3)[0].items():
        assert_same(tally, in_one_go(graph, split))


@pytest.mark.parametrize("pairs", [1, 40, 1 << 20])
def test_pieces_of_any_size_give_the_same(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, pairs: int
) -> None:
    monkeypatch.setattr(link_ranking, "CHUNK_PAIRS", pairs)
    for split, tally in evaluated(graph)[0].items():
        assert_same(tally, in_one_go(graph, split))


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_part_is_the_same_one_each_time(graph: Graph, ranks: int) -> None:
    (first, *_), (again, *_) = (evaluated(graph, ranks, whole=False, most_edges=9) for _ in "12")
    alone = evaluated(graph, whole=False, most_edges=9)[0]
    for split in ("valid", "test"):
        assert first[split].count == 9
        assert first[split] == again[split]
        assert_same(first[split], alone[split])
    for most in (0, 10_000):
        everything = evaluated(graph, ranks, whole=False, most_edges=most)[0]["valid"]
        assert everything.count == len(graph.valid_edges)
    at_the_end = evaluated(graph, ranks, whole=True, most_edges=9)[0]["valid"]
    assert at_the_end.count == len(graph.valid_edges)


def test_too_many_candidates_are_reported_before_anything_runs(graph: Graph) -> None:
    with pytest.raises(UsageError, match="--candidates 140: graph .* lower it"):
        LinkEvaluator(graph, World(), TwoLayers(graph), candidates=140, most_edges=0)


@pytest.mark.parametrize("asked", [0, 2])
def test_a_stop_asked_of_one_rank_ends_all(graph: Graph, asked: int) -> None:
    def work(world: World) -> int:
        model, scored = TwoLayers(graph), 0
        score = model.scores

        def stop(left: npt.NDArray, right: npt.NDArray, *beside: None) -> npt.NDArray:
            nonlocal scored
            scored += 1
            if world.rank == asked:
                world.stop_signal = 15
            return score(left, right)

        model.scores = stop  # type: ignore[method-assign]
        evaluator = LinkEvaluator(graph, world, model, candidates=CANDIDATES, most_edges=0)
        with pytest.raises(Stopped):
            evaluator.tallies(("valid", "test"), True)
        return scored

    assert on_ranks(["here"] * 3, work)[asked] == 1


def test_nothing_is_left_in_the_temporary_folder(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    evaluated(graph, 2)
    assert not list(tmp_path.iterdir())
