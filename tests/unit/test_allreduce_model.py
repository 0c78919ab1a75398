"""The cost of an allreduce: the formulas, and constants found again in what was made of them."""

from __future__ import annotations

import numpy as np
import pytest

from gnn_core.report.prediction.allreduce import ALGORITHMS, Cost, can_choose, fit

SIZES = [4.0**power for power in range(1, 13)]


def probed(cost: Cost, *counts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks, bytes and the exact seconds of a probe on each of these numbers of ranks."""
    ranks, sizes = (grid.ravel() for grid in np.meshgrid(counts, SIZES, indexing="ij"))
    return ranks, sizes, cost.seconds(ranks, sizes)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_constants_are_found_again(algorithm: str) -> None:
    made = Cost(algorithm, 2.5e-3, 40e-6, 8e-9)
    found = fit(algorithm, *probed(made, 1, 2))
    assert found.fixed_is_apart and found.mean_residual < 1e-9
    assert found.cost.fixed_seconds == pytest.approx(2.5e-3)
    assert found.cost.alpha_seconds == pytest.approx(40e-6)
    assert found.cost.beta_seconds_per_byte == pytest.approx(8e-9)


def test_without_a_second_number_of_ranks_alpha_holds_the_fixed_part() -> None:
    found = fit("ring", *probed(Cost("ring", 2e-3, 1e-3, 8e-9), 2))
    assert not found.fixed_is_apart and found.cost.fixed_seconds == 0
    assert found.cost.alpha_seconds == pytest.approx(2e-3)  # 2 alpha = 2 ms + 2 x 1 ms
    assert found.cost.beta_seconds_per_byte == pytest.approx(8e-9)


def test_the_formulas_are_those_of_the_papers() -> None:
    ring, halving = Cost("ring", 1.0, 1e-2, 1e-3), Cost("halving", 1.0, 1e-2, 1e-3)
    assert ring.seconds(8, 800) == pytest.approx(1 + 14e-2 + 2 * 7 / 8 * 0.8)
    assert halving.seconds(8, 800) == pytest.approx(1 + 6e-2 + 2 * 7 / 8 * 0.8)
    assert halving.seconds(5, 0) == pytest.approx(1 + 6e-2)  # three rounds there and back
    assert ring.seconds(2, 800) == halving.seconds(2, 800)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_limits(algorithm: str) -> None:
    cost = Cost(algorithm, 1e-3, 1e-5, 1e-9)
    assert cost.seconds(1, 10**9) == pytest.approx(1e-3)  # nothing travels
    by_ranks = cost.seconds(2 ** np.arange(10), 10**6)
    assert (np.diff(by_ranks) > 0).all()
    assert (np.diff(cost.seconds(4, SIZES)) > 0).all()
    # However many ranks, a byte travels less than twice.
    many = Cost(algorithm, 0.0, 0.0, 1e-9).seconds(10**6, 10**6)
    assert many == pytest.approx(2e-3, rel=1e-5) and many < 2e-3


def test_relative_errors_count_alike_for_small_and_large_messages() -> None:
    ranks, sizes, seconds = probed(Cost("ring", 0.0, 1e-3, 1e-8), 2, 4)
    # 10 % more time for all: absolute errors would be those of the largest message alone.
    found = fit("ring", ranks, sizes, seconds * np.where(np.arange(len(seconds)) % 2, 1.1, 0.9))
    assert np.abs(found.residuals).max() < 0.15
    assert found.cost.alpha_seconds == pytest.approx(1e-3, rel=0.05)


def test_no_constant_is_negative() -> None:
    sizes = np.array(SIZES)
    found = fit("ring", np.full(12, 2), sizes, 1e-3 / (1 + sizes / sizes.max()))  # falls with size
    assert found.cost.alpha_seconds > 0 and found.cost.beta_seconds_per_byte == 0
    assert found.mean_residual > 0.05


def test_algorithms_are_told_apart_by_three_numbers_of_ranks() -> None:
    made = Cost("halving", 1e-3, 1e-4, 1e-9)
    assert [can_choose(counts) for counts in ([2], [1, 2], [2, 4], [1, 2, 4])] == [
        False,
        False,
        False,
        True,
    ]
    for counts, differ in (((2, 4), False), ((1, 2, 4), True)):
        wrong, right = (fit(name, *probed(made, *counts)) for name in ALGORITHMS)
        assert right.mean_residual < 1e-9
        assert (wrong.mean_residual > 1e-3) == differ


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seconds": [1e-3, float("nan")]}, "finite"),
        ({"seconds": [1e-3, 0.0]}, "above 0"),
        ({"ranks": [1, 1]}, "two ranks"),
        ({"sizes": [8, 8]}, "two message sizes"),
        ({"ranks": [2]}, "one shape"),
        ({"ranks": [2, 0]}, "two message sizes"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change: dict[str, list[float]], expected: str) -> None:
    given = {"ranks": [2, 2], "sizes": [4, 16], "seconds": [1e-3, 2e-3], **change}
    with pytest.raises(ValueError, match=expected):
        fit("ring", given["ranks"], given["sizes"], given["seconds"])
    with pytest.raises(ValueError, match="1 rank or more"):
        Cost("ring", 0, 0, 0).seconds(0, 4)
    with pytest.raises(ValueError, match="expected one of ring, halving"):
        Cost("tree", 0, 0, 0).seconds(2, 4)
