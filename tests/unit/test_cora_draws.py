"""What is drawn depends on seed, epoch, step and paper; replicas draw together what one draws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from baselines.cora.draws import BatchArrays, Draw, batches, contexts, negatives, share
from baselines.cora.papers import Papers
from baselines.cora.settings import CoraSettings, filled
from gnn_core.data.graph import Graph
from gnn_core.usage import UsageError

SETTINGS = filled(CoraSettings(pretrain_batch=50, negatives=16, width=4))


@pytest.fixture
def papers(tiny_graph: Graph) -> Papers:
    return Papers.of(tiny_graph)


def _together(parts: list[BatchArrays]) -> dict[str, np.ndarray]:
    """The real rows of all replicas' batches, one after the other; what they share, once."""
    real = [part["weights"] > 0 for part in parts]
    joined = {}
    for name, first in parts[0].items():
        if name == "total" or name.startswith("negative"):
            assert all(np.array_equal(part[name], first) for part in parts)
            joined[name] = first
        else:
            joined[name] = np.concatenate(
                [part[name][r] for part, r in zip(parts, real, strict=True)]
            )
    return joined


@pytest.mark.parametrize("num_replicas", [2, 3, 7])
def test_replicas_draw_together_what_one_draws(papers: Papers, num_replicas: int) -> None:
    draw = Draw(papers, SETTINGS, seed=3)
    alone = list(draw.pretraining(1, 0, 1))
    several = [list(draw.pretraining(1, replica, num_replicas)) for replica in range(num_replicas)]
    assert len(alone) == 3
    for step, whole in enumerate(alone):
        parts = [steps[step] for steps in several]
        assert len({part["source"].shape for part in parts}) == 1
        for name, values in _together(parts).items():
            np.testing.assert_array_equal(values, _together([whole])[name], err_msg=name)
    parts = [draw.training(5, replica, num_replicas, 8) for replica in range(num_replicas)]
    for name, values in _together(parts).items():
        np.testing.assert_array_equal(values, draw.training(5, 0, 1, 8)[name], err_msg=name)


def test_an_epoch_takes_every_paper_once(papers: Papers) -> None:
    draw = Draw(papers, SETTINGS, seed=0)
    seen = [batch["source"][batch["weights"] > 0] for batch in draw.pretraining(0, 0, 1)]
    assert sorted(np.concatenate(seen)) == list(range(papers.num_papers))
    assert sum(int(batch["total"]) for batch in draw.pretraining(0, 0, 1)) == papers.num_papers


def test_another_seed_epoch_or_step_draws_otherwise(papers: Papers) -> None:
    def drawn(seed: int, epoch: int) -> list[np.ndarray]:
        draw = Draw(papers, SETTINGS, seed)
        return [batch["negative"] for batch in draw.pretraining(epoch, 0, 1)]

    every = [*drawn(0, 0), *drawn(0, 1), *drawn(1, 0)]
    assert len({tuple(ids) for ids in every}) == len(every)


def test_batches_are_nearly_equal() -> None:
    assert [len(batch) for batch in batches(10, 4, 0)] == [4, 3, 3]
    assert [len(batch) for batch in batches(10, 99, 0)] == [10]


def test_a_share_is_padded_with_rows_that_weigh_nothing() -> None:
    nodes = np.arange(10, 15)
    shares = [share(nodes, replica, 3, 6) for replica in range(3)]
    assert [rows.tolist() for rows, _ in shares] == [[10, 11], [12, 13], [14, 10]]
    assert [weights.tolist() for _, weights in shares] == [[1, 1], [1, 1], [1, 0]]


def test_walks_end_near_and_stay_where_there_is_no_way(papers: Papers) -> None:
    nodes = np.arange(papers.num_papers)
    ends = contexts(papers, nodes, key=1, restart=1.0)
    for node, end in zip(nodes, ends, strict=True):
        around = papers.indices[papers.indptr[node] : papers.indptr[node + 1]]
        assert end in around if len(around) else end == node
    alone = dataclasses.replace(papers, indptr=np.zeros_like(papers.indptr))
    assert contexts(alone, nodes, key=1, restart=0.1).tolist() == nodes.tolist()


def test_walks_end_as_personalised_pagerank_ranks(papers: Papers) -> None:
    restart, node, count = 0.3, 5, 40_000
    degrees = np.diff(papers.indptr)
    step = np.zeros((papers.num_papers,) * 2)
    step[np.repeat(np.arange(len(degrees)), degrees), papers.indices] = 1
    step /= np.maximum(step.sum(axis=1, keepdims=True), 1)
    rank = np.zeros(papers.num_papers)
    at = step[node]
    for _ in range(60):
        rank += restart * at
        at = (1 - restart) * at @ step
    drawn = [contexts(papers, np.full(1, node), key, restart)[0] for key in range(count)]
    found = np.bincount(drawn, minlength=papers.num_papers) / count
    np.testing.assert_allclose(found, rank, atol=5 * np.sqrt(0.25 / count) / 2)


def test_negatives_prefer_papers_with_many_neighbours(papers: Papers) -> None:
    found = np.bincount(negatives(papers, 40_000, key=2), minlength=papers.num_papers) / 40_000
    weights = np.diff(papers.indptr) ** 0.75
    np.testing.assert_allclose(found, weights / weights.sum(), atol=0.003)


def test_words_are_there_or_not(tiny_graph: Graph) -> None:
    assert set(np.unique(Papers.of(tiny_graph).words)) == {1.0}  # of normal features none is 0
    bare = Graph.from_arrays("bare", [0, 1, 2], [1, 0], splits=[1, 2])
    with pytest.raises(UsageError, match="expected words and classes of each paper, got no"):
        Papers.of(bare)
