"""The cost of an allreduce: the formulas, and constants found again in what was made of them."""

from __future__ import annotations

import numpy as np
import pytest

from gnn_core.report.prediction.allreduce import Cost, fit

SIZES = [4.0**power for power in range(1, 13)]


def probed(cost: Cost, *counts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks, bytes and the exact seconds of a probe on each of these numbers of ranks."""
    ranks, sizes = (grid.ravel() for grid in np.meshgrid(counts, SIZES, indexing="ij"))
    return ranks, sizes, cost.seconds(ranks, sizes)


def test_the_constants_are_found_again() -> None:
    made = Cost(2.5e-3, 40e-6, 8e-9)
    found = fit(*probed(made, 1, 2))
    assert found.fixed_is_apart and found.mean_residual < 1e-9
    assert found.cost.fixed_seconds == pytest.approx(2.5e-3)
    assert found.cost.alpha_seconds == pytest.approx(40e-6)
    assert found.cost.beta_seconds_per_byte == pytest.approx(8e-9)


def test_without_a_second_number_of_ranks_alpha_holds_the_fixed_part() -> None:
    found = fit(*probed(Cost(2e-3, 1e-3, 8e-9), 2))
    assert not found.fixed_is_apart and found.cost.fixed_seconds == 0
    assert found.cost.alpha_seconds == pytest.approx(2e-3)  # 2 alpha = 2 ms + 2 x 1 ms
    assert found.cost.beta_seconds_per_byte == pytest.approx(8e-9)


def test_the_formula_is_that_of_the_paper() -> None:
    ring = Cost(1.0, 1e-2, 1e-3)
    assert ring.seconds(8, 800) == pytest.approx(1 + 14e-2 + 2 * 7 / 8 * 0.8)
    assert ring.seconds([2, 4], 0).tolist() == pytest.approx([1 + 2e-2, 1 + 6e-2])


def test_limits() -> None:
    cost = Cost(1e-3, 1e-5, 1e-9)
    assert cost.seconds(1, 10**9) == pytest.approx(1e-3)  # nothing travels
    by_ranks = cost.seconds(2 ** np.arange(10), 10**6)
    assert (np.diff(by_ranks) > 0).all()
    assert (np.diff(cost.seconds(4, SIZES)) > 0).all()
    # However many ranks, a byte travels less than twice.
    many = Cost(0.0, 0.0, 1e-9).seconds(10**6, 10**6)
    assert many == pytest.approx(2e-3, rel=1e-5) and many < 2e-3


def test_relative_errors_count_alike_for_small_and_large_messages() -> None:
    ranks, sizes, seconds = probed(Cost(0.0, 1e-3, 1e-8), 2, 4)
    # 10 % more time for all: absolute errors would be those of the largest message alone.
    found = fit(ranks, sizes, seconds * np.where(np.arange(len(seconds)) % 2, 1.1, 0.9))
    assert np.abs(found.residuals).max() < 0.15
    assert found.cost.alpha_seconds == pytest.approx(1e-3, rel=0.05)


def test_no_constant_is_negative() -> None:
    sizes = np.array(SIZES)
    found = fit(np.full(12, 2), sizes, 1e-3 / (1 + sizes / sizes.max()))  # falls with size
    assert found.cost.alpha_seconds > 0 and found.cost.beta_seconds_per_byte == 0
    assert found.mean_residual > 0.05


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
        fit(given["ranks"], given["sizes"], given["seconds"])
    with pytest.raises(ValueError, match="1 rank or more"):
        Cost(0, 0, 0).seconds(0, 4)
