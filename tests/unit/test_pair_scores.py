"""Citations told from non-citations: against scikit-learn, and on scores made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gnn_core.measure.pair_scores import Calibration, PairScores

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


def scored(count: int = 400, digits: int = 1) -> PairScores:
    """Overlapping scores with many ties."""
    random = np.random.default_rng(2)
    return PairScores(
        random.normal(1.5, 1, count).round(digits), random.normal(0, 1, count).round(digits)
    )


@pytest.mark.parametrize("digits", [1, 12], ids=["ties", "no ties"])
def test_average_precision_is_that_of_scikit_learn(digits: int) -> None:
    pairs = scored(digits=digits)
    labels = np.repeat([1, 0], 400)
    theirs = metrics.average_precision_score(
        labels, np.concatenate([pairs.citations, pairs.others])
    )
    assert pairs.average_precision() == pytest.approx(theirs, rel=1e-12)


def test_no_other_threshold_is_right_more_often() -> None:
    pairs = scored()
    best = pairs.accuracy(pairs.threshold())
    assert best is not None and best > 0.7
    scores = np.concatenate([pairs.citations, pairs.others])
    for threshold in (*np.unique(scores), scores.max() + 1):
        tried = pairs.accuracy(float(threshold))
        assert tried is not None and tried <= best


def test_apart_and_undecided() -> None:
    apart = PairScores(np.array([2.0, 3.0]), np.array([1.0, -5.0]))
    assert (apart.threshold(), apart.accuracy(1.5), apart.average_precision()) == (1.5, 1, 1)
    alike = PairScores(np.zeros(3), np.zeros(3))
    assert (alike.accuracy(alike.threshold()), alike.average_precision()) == (0.5, 0.5)
    nothing = PairScores(np.empty(0), np.empty(0))
    assert (nothing.accuracy(0), nothing.average_precision(), nothing.threshold()) == (
        None,
        None,
        0,
    )


def test_probabilities_are_as_often_right_as_they_say() -> None:
    pairs = scored(100_000, digits=12)
    found = Calibration.of(pairs)
    # Of two normals of one variance the logarithm of the odds is a line.
    assert (found.slope, found.intercept) == pytest.approx((1.5, -1.125), abs=0.03)
    probabilities = found.probabilities(np.array([-1e6, 0.75, 1e6], np.float32))
    assert probabilities == pytest.approx([0, 0.5, 1], abs=0.01)


def test_scores_that_never_overlap_have_a_finite_slope() -> None:
    for scale in (1e-6, 1.0, 1e6):
        found = Calibration.of(PairScores(np.full(5, scale), np.full(5, -scale)))
        assert np.isfinite([found.slope, found.intercept]).all()
        assert found.probabilities(np.array([scale]))[0] > 0.9
