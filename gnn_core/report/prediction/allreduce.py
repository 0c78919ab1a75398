"""What an allreduce of m bytes over n ranks takes: a formula, and its constants from measurements.

alpha is the latency of a message, beta the seconds a byte takes on the way; every rank sends and
receives at once. Two algorithms, both optimal in bandwidth:

    ring     2 (n - 1) alpha + 2 (n - 1) / n m beta     Patarasuk, Yuan, JPDC 69(2), 2009
    halving  2 log2(n) alpha + 2 (n - 1) / n m beta     Thakur, Rabenseifner, Gropp, IJHPCA 19(1),
                                                        2005
`halving` is recursive halving, then doubling; where n is no power of two, log2 is rounded up, which
is still less than what it takes there. An MPI chooses between such algorithms by size and ranks.
Before them stands a fixed part that no network causes, such as the wait for Horovod's next cycle.
The time that adding up takes is part of beta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

ALGORITHMS = ("ring", "halving")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """The constants of one algorithm between certain ranks."""

    algorithm: str  # one of ALGORITHMS
    fixed_seconds: float
    alpha_seconds: float
    beta_seconds_per_byte: float

    def seconds(self, num_ranks: npt.ArrayLike, num_bytes: npt.ArrayLike) -> Floats:
        """Return what an allreduce takes, float64 of the shape that both broadcast to.

        Raises ValueError for fewer ranks than 1 or a negative size.
        """
        constants = (self.fixed_seconds, self.alpha_seconds, self.beta_seconds_per_byte)
        parts = zip(constants, _terms(self.algorithm, num_ranks, num_bytes), strict=True)
        return np.asarray(sum(constant * term for constant, term in parts), dtype=np.float64)


@dataclass(frozen=True)
class Fit:
    """Constants, and how far the formula with them is from what was measured."""

    cost: Cost
    residuals: Floats  # [k] (formula - measured) / measured
    fixed_is_apart: bool  # else it could not be told from alpha, which holds it too

    @property
    def mean_residual(self) -> float:
        """The root of the mean square of the residuals."""
        return float(np.sqrt(np.mean(self.residuals**2)))


def fit(
    algorithm: str, num_ranks: npt.ArrayLike, num_bytes: npt.ArrayLike, seconds: npt.ArrayLike
) -> Fit:
    """Return the constants of 0 or more that fit best: least squares of the relative errors.

    Args:
        algorithm: one of ALGORITHMS.
        num_ranks: `[k]`, of each measurement. With one number of ranks the fixed part cannot be
            told from alpha and is taken to be 0.
        num_bytes: `[k]`.
        seconds: `[k]`, above 0.

    Raises:
        ValueError: shapes differ, a time is not a finite number above 0, or no measurement is of
            several ranks and of two sizes.
    """
    ranks, sizes, times = (np.asarray(some, np.float64) for some in (num_ranks, num_bytes, seconds))
    if not (ranks.ndim == 1 and ranks.shape == sizes.shape == times.shape):
        raise ValueError("expected ranks, bytes and seconds of one shape [k]")
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise ValueError("expected seconds that are finite and above 0")
    if len(np.unique(sizes[ranks > 1])) < 2:
        raise ValueError("expected two message sizes or more, measured between two ranks or more")
    apart = len(np.unique(ranks)) > 1
    terms = np.stack(_terms(algorithm, ranks, sizes), axis=1)
    constants = _least_squares(terms / times[:, None], [0, 1, 2] if apart else [1, 2])
    cost = Cost(algorithm, *(float(constant) for constant in constants))
    return Fit(cost, cost.seconds(ranks, sizes) / times - 1, apart)


def can_choose(num_ranks: npt.ArrayLike) -> bool:
    """Return whether measurements at these numbers of ranks can tell the algorithms apart.

    At 2 ranks they are one formula, and at two numbers the fixed part makes up for the difference:
    it takes three, of which one may be 1 rank.
    """
    return len(np.unique(np.asarray(num_ranks))) > 2


def _terms(
    algorithm: str, num_ranks: npt.ArrayLike, num_bytes: npt.ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """Return what fixed part, alpha and beta are multiplied by, each of the broadcast shape."""
    if algorithm not in ALGORITHMS:
        raise ValueError(f"expected one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
    ranks, sizes = np.broadcast_arrays(
        np.asarray(num_ranks, np.float64), np.asarray(num_bytes, np.float64)
    )
    if (ranks < 1).any() or (sizes < 0).any():
        raise ValueError("expected 1 rank or more and 0 bytes or more")
    messages = 2 * (ranks - 1) if algorithm == "ring" else 2 * np.ceil(np.log2(ranks))
    return np.ones_like(ranks), messages, 2 * (ranks - 1) / ranks * sizes


def _least_squares(rows: Floats, columns: list[int]) -> Floats:
    """Return x `[3]` >= 0, nothing but `columns` of it above 0, for which rows @ x is nearest to 1.

    Columns are scaled, since bytes are to messages as millions to one.
    """
    scales = np.maximum(np.linalg.norm(rows, axis=0), np.finfo(np.float64).tiny)[columns]
    solution, _ = nnls(rows[:, columns] / scales, np.ones(len(rows)))
    found = np.zeros(3)
    found[columns] = solution / scales
    return found
