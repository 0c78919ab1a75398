"""Which citations are held out: none is lost, none is in two places."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data.hold_out import HeldOut, at_random, distinct_pairs, newest
from gnn_core.usage import UsageError
from tests.unit.made_links import both_ways, odd_citations

SPLITS = ("train", "valid", "test")


def chi_square(counts: npt.NDArray) -> float:
    """How far equal counts are from equal, in standard deviations from what is expected."""
    expected = counts.sum() / counts.size
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.size - 1
    return float((statistic - freedom) / np.sqrt(2 * freedom))


def all_ways() -> dict[str, tuple[npt.NDArray, HeldOut]]:
    """Citations and what is held out of them, in each of the ways there are."""
    citations, years = odd_citations()
    return {
        "newest": (citations, newest(citations, years, 0.2)),
        "newest, all": (citations, newest(citations, years, 0.99)),
        "random": (citations, at_random(citations, 0.1, 3)),
        "random, many": (citations, at_random(citations, 0.45, 3)),
    }


def test_a_pair_of_papers_is_one_edge_the_first_that_is_published() -> None:
    citations = np.array([[1, 0], [2, 2], [0, 1], [1, 0], [3, 1], [1, 3], [0, 4]], np.int32)
    found = distinct_pairs(citations)
    assert found.tolist() == [[1, 0], [3, 1], [0, 4]]
    assert found.dtype == np.int32
    assert distinct_pairs(citations[:0]).tolist() == []
    assert distinct_pairs(np.array([[2, 2]])).tolist() == []


@pytest.mark.parametrize("way", all_ways())
def test_each_pair_is_in_one_split(way: str) -> None:
    citations, held_out = all_ways()[way]
    parts = [getattr(held_out, split) for split in SPLITS]
    assert all(len(part) for part in parts)
    pairs = [both_ways(part) for part in parts]
    assert sum(len(part) for part in parts) * 2 == len(set.union(*pairs))  # none is there twice
    assert set.union(*pairs) == both_ways(citations[citations[:, 0] != citations[:, 1]])
    published = set(map(tuple, citations.tolist()))
    assert all(tuple(edge) in published for part in parts for edge in part.tolist())


@pytest.mark.parametrize("way", all_ways())
def test_a_held_out_pair_is_gone_in_both_directions(way: str) -> None:
    """Also that of two papers that cite each other, and one that is published twice."""
    citations, held_out = all_ways()[way]
    mutual = both_ways(citations) & set(map(tuple, citations.tolist()))
    mutual &= {(b, a) for a, b in citations.tolist()}
    held = both_ways(held_out.valid, held_out.test)
    assert held & mutual
    assert not held & both_ways(held_out.train)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.99])
def test_each_of_the_newest_gives_one_to_each_split_and_keeps_one(share: float) -> None:
    citations, years = odd_citations()
    held_out = newest(citations, years, share)
    papers = held_out.valid[:, 0]
    references = np.bincount(distinct_pairs(citations)[:, 0], minlength=len(years))
    able = np.flatnonzero(references >= 3)
    assert len(papers) == len(held_out.test) == min(max(1, round(share * len(years))), len(able))
    assert len(np.unique(papers)) == len(papers)
    assert sorted(papers) == sorted(held_out.test[:, 0])
    assert np.isin(papers, able).all()
    assert np.isin(papers, held_out.train[:, 0]).all()
    others = np.setdiff1d(able, papers)
    assert not len(others) or years[papers].min() >= years[others].max()


def test_references_of_the_newest_are_drawn_uniformly() -> None:
    papers, old = 3000, 5
    cited = np.tile(np.arange(old), papers)
    citations = np.stack([np.repeat(np.arange(old, old + papers), old), cited], axis=1)
    years = np.r_[np.zeros(old), np.ones(papers)].astype(np.int32)
    held_out = newest(citations, years, 1.0)
    for part in (held_out.valid, held_out.test):
        assert chi_square(np.bincount(part[:, 1], minlength=old)) < 4
    valid = dict(held_out.valid.tolist())
    together = np.zeros((old, old))
    for paper, test in held_out.test.tolist():
        together[valid[paper], test] += 1
    assert not together.diagonal().any()
    assert chi_square(together[~np.eye(old, dtype=bool)]) < 4


def test_papers_of_the_same_year_are_drawn_uniformly() -> None:
    """A paper's number says nothing: the upper half of them is chosen as often as the lower."""
    citations = np.array([(paper, other) for paper in range(3, 2000) for other in range(3)])
    chosen = newest(citations, np.full(2000, 1990, np.int32), 0.4).valid[:, 0]
    assert chi_square(np.bincount(chosen // 400, minlength=5)) < 4


def test_random_ones_depend_on_the_seed_and_on_nothing_else() -> None:
    citations, _ = odd_citations()
    first, again, other = (at_random(citations, 0.1, seed) for seed in (1, 1, 2))
    for split in SPLITS:
        assert np.array_equal(getattr(first, split), getattr(again, split))
        assert not np.array_equal(getattr(first, split), getattr(other, split))


def test_the_newest_are_always_the_same() -> None:
    citations, years = odd_citations()
    first, again = (newest(citations, years, 0.1) for _ in range(2))
    for split in SPLITS:
        assert np.array_equal(getattr(first, split), getattr(again, split))


def test_random_ones_are_drawn_uniformly() -> None:
    citations = np.array([(paper, 0) for paper in range(1, 41)])
    counts = np.zeros((2, 41))
    for seed in range(400):
        held_out = at_random(citations, 0.25, seed)
        assert (len(held_out.train), len(held_out.valid), len(held_out.test)) == (20, 10, 10)
        counts[0, held_out.valid[:, 0]] += 1
        counts[1, held_out.test[:, 0]] += 1
    assert chi_square(counts[0, 1:]) < 4
    assert chi_square(counts[1, 1:]) < 4


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_random_ones_leave_something_to_train_on(share: float) -> None:
    citations, _ = odd_citations()
    with pytest.raises(UsageError, match=rf"--held-out {share:g}: expected to leave edges"):
        at_random(citations, share, 0)
    with pytest.raises(UsageError, match="of 2 it takes 1 for validation and 1 for the test"):
        at_random(np.array([[0, 1], [1, 2]]), 0.1, 0)
    with pytest.raises(UsageError, match="expected to leave edges"):
        at_random(np.empty((0, 2), np.int64), 0.1, 0)


def test_papers_with_few_references_give_none() -> None:
    citations = np.array([[3, 0], [3, 1], [4, 0], [0, 4], [4, 4], [4, 1]])
    with pytest.raises(UsageError, match="papers with at least 3 references.*, got none; use"):
        newest(citations, np.zeros(5, np.int32), 0.5)
    with pytest.raises(UsageError, match="got none"):
        newest(citations[:0], np.zeros(5, np.int32), 0.5)
