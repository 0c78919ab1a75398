"""Shares: what part of the work of a step each rank gets, of ranks that are not equally fast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEAST_SHARE = 0.1  # of an equal share, that the slowest rank still gets
_LEAST_CHANGE = 0.05  # of any rank's share: smaller ones are noise, and let be


class Shares:
    """The share of each rank, which an `Assign` reads at each step.

    All ranks must hold the same ones, and may change them only where no loader draws batches.

    Args:
        values: one positive number per rank, in any unit.
    """

    def __init__(self, values: Sequence[float] | npt.NDArray[np.float64]):
        if not len(values) or not min(values) > 0:
            raise ValueError(f"expected a positive share for each rank, got {values}")
        self.values = np.array(values, np.float64) / sum(values)  # [ranks], adding up to 1

    def follow(self, seconds: Sequence[float]) -> bool:
        """Give each rank its part of what the ranks together can do; whether that changed a thing.

        Args:
            seconds: how long each rank was busy with the same steps, at the present shares.
        """
        if not min(seconds) > 0:
            return False
        speeds = self.values / np.array(seconds)
        values = speeds / speeds.sum()
        values = np.maximum(values, LEAST_SHARE / len(values))
        values /= values.sum()
        if np.abs(values / self.values - 1).max() < _LEAST_CHANGE:
            return False
        self.values = values
        return True
