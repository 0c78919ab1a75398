"""What an allreduce of m bytes over n ranks takes: a formula, and its constants from measurements.

    fixed + 2 (n - 1) alpha + 2 (n - 1) / n m beta     Patarasuk, Yuan, JPDC 69(2), 2009

It is that of a ring, which is optimal in bandwidth. alpha is the latency of a message, beta the
seconds a byte takes on the way, adding up included; every rank sends and receives at once. The
fixed part is what no network causes, such as the wait for Horovod's next cycle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """The constants between certain ranks."""

    fixed_seconds: float
    alpha_seconds: float
    beta_seconds_per_byte: float

    def seconds(self, num_ranks: npt.ArrayLike, num_bytes: npt.ArrayLike) -> Floats:
        """Return what an allreduce takes, float64 of the shape that both broadcast to.

        Raises ValueError for fewer ranks than 1 or a negative size.
        """
        constants = (self.fixed_seconds, self.alpha_seconds, self.beta_seconds_per_byte)
        return np.asarray(_terms(num_ranks, num_bytes) @ np.array(constants, np.float64))


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


def fit(num_ranks: npt.ArrayLike, num_bytes: npt.ArrayLike, seconds: npt.ArrayLike) -> Fit:
    """Return the constants of 0 or more that fit best: least squares of the relative errors.

    Args:
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
    first = 0 if len(np.unique(ranks)) > 1 else 1
    rows = (_terms(ranks, sizes) / times[:, None])[:, first:]
    # Columns are scaled, since bytes are to messages as millions to one.
    scales = np.maximum(np.linalg.norm(rows, axis=0), np.finfo(np.float64).tiny)
    solution, _ = nnls(rows / scales, np.ones(len(rows)))
    cost = Cost(*[0.0] * first, *(float(constant) for constant in solution / scales))
    return Fit(cost, cost.seconds(ranks, sizes) / times - 1, first == 0)


def _terms(num_ranks: npt.ArrayLike, num_bytes: npt.ArrayLike) -> Floats:
    """Return what fixed part, alpha and beta are multiplied by, `[..., 3]`."""
    ranks, sizes = np.broadcast_arrays(
        np.asarray(num_ranks, np.float64), np.asarray(num_bytes, np.float64)
    )
    if (ranks < 1).any() or (sizes < 0).any():
        raise ValueError("expected 1 rank or more and 0 bytes or more")
    return np.stack(
        [np.ones_like(ranks), 2 * (ranks - 1), 2 * (ranks - 1) / ranks * sizes], axis=-1
    )
