"""Tally: what ranks add up must be what one process would have counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gnn_core.measure.metrics import SPLITS, Tally, split_fields


def test_accuracy_of_unequal_ranks_is_not_the_average_of_their_averages() -> None:
    """Two ranks, 3 of 3 and 0 of 1 right: 3 of 4, while the averages would average to 1 of 2."""
    ranks = [Tally(0.3, 3, 3), Tally(2.1, 0, 1)]
    merged = sum(ranks, Tally())
    assert merged.accuracy == 0.75
    assert merged.loss == pytest.approx(0.6)
    assert merged.count == 4


def test_an_empty_rank_changes_nothing() -> None:
    """A rank whose slice of the last batch is empty must not pull the mean towards 0."""
    some = Tally(loss_sum=5.0, correct=2, count=4)
    assert some + Tally() == some
    assert (Tally() + some).loss == some.loss


def test_no_targets_is_none_and_not_zero() -> None:
    """0 / 0 is unknown: an accuracy of 0 would be a measurement."""
    assert Tally().accuracy is None
    assert Tally().loss is None


def test_a_nan_loss_stays_nan() -> None:
    """One bad rank makes the sum bad; nothing along the way may mend it."""
    merged = Tally.from_vector(Tally(math.nan, 1, 2).to_vector() + Tally(1.0, 1, 2).to_vector())
    assert merged.loss is not None and math.isnan(merged.loss)
    assert merged.accuracy == 0.5


def test_summing_vectors_is_summing_tallies() -> None:
    """What one allreduce adds equals `+`, in float64, for counts float32 could not hold."""
    a, b = Tally(0.1, 2**24 + 1, 2**25 + 1), Tally(0.2, 7, 2**40 + 1)
    vector = a.to_vector() + b.to_vector()
    assert vector.dtype == np.float64 and vector.shape == (3,)
    assert Tally.from_vector(vector) == a + b
    assert (a + b).count == 2**25 + 2**40 + 2


@pytest.mark.parametrize(
    "vector",
    [[1.0, 2.0], [[1.0, 1.0, 1.0]], [0.0, 1.0, 2.5], [0.0, math.nan, 2.0], [0.0, 0.0, math.inf]],
)
def test_a_vector_that_is_no_tally_is_refused(vector: list[float]) -> None:
    """A count divided on its way (an allreduce that averages) is not whole any more."""
    with pytest.raises(ValueError, match="expecting"):
        Tally.from_vector(vector)


@pytest.mark.parametrize("wrong", [(0.0, 3, 2), (0.0, -1, 2), (0.0, 0.5, 2), (0.0, 0, -1)])
def test_a_tally_no_targets_can_have_is_refused(wrong: tuple[float, float, int]) -> None:
    """More right than counted, or a part of a target, is a bug in the caller."""
    with pytest.raises(ValueError, match="expecting"):
        Tally(*wrong)


def test_the_name_of_a_split_is_given_in_one_place() -> None:
    """The count travels with the name, so a record can tell a test result made on valid nodes."""
    assert split_fields("test", Tally(2.0, 3, 4)) == {
        "test_accuracy": 0.75,
        "test_loss": 0.5,
        "test_count": 4,
    }
    for unknown in ("val", "validation", "dev", "Test", ""):
        with pytest.raises(ValueError, match="train, valid, test"):
            split_fields(unknown, Tally())
    assert SPLITS == ("train", "valid", "test")
