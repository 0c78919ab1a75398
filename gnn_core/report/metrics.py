"""Sums and counts that merge over ranks; loss and accuracy only at the very end.

An average of per-rank averages is wrong as soon as ranks hold different numbers of targets. A Tally
therefore carries sums and a count, which add up in any order, and divides once, when it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SPLITS = ("train", "valid", "test")
"""The only names a split goes by in a result; `split_fields` is where they become field names."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What was summed over some targets; `a + b` is the tally of both sets of targets.

    Frozen: `tally = tally + Tally(...)` accumulates. A NaN loss stays NaN, it never becomes 0.
    """

    loss_sum: float = 0.0  # sum of the losses of `count` targets, not their mean
    correct: float = 0.0  # whole number: targets whose largest logit was the label
    count: int = 0  # real targets; padding is never counted

    def __post_init__(self) -> None:
        """Refuse a tally that no set of targets can have; raises ValueError."""
        if self.count != int(self.count) or self.count < 0:
            raise ValueError(f"expecting a whole, non-negative count, got {self.count}")
        if self.correct != int(self.correct) or not 0 <= self.correct <= self.count:
            raise ValueError(f"expecting 0 to {self.count} correct targets, got {self.correct}")

    def __add__(self, other: Tally) -> Tally:
        """Return the tally over the targets of both."""
        return Tally(
            self.loss_sum + other.loss_sum,
            self.correct + other.correct,
            self.count + other.count,
        )

    def to_vector(self) -> npt.NDArray[np.float64]:
        """Return float64 [3]: loss_sum, correct, count. One allreduce (sum) merges every rank.

        float64 holds every count below 2**53 exactly; float32 would lose targets above 2**24.
        """
        return np.array([self.loss_sum, self.correct, self.count], dtype=np.float64)

    @classmethod
    def from_vector(cls, vector: npt.ArrayLike) -> Tally:
        """Return the tally held by [3] numbers (loss_sum, correct, count); raises ValueError."""
        values = np.asarray(vector, dtype=np.float64)
        if values.shape != (3,):
            raise ValueError(f"expecting a vector of 3 numbers, got shape {values.shape}")
        loss_sum, correct, count = (float(value) for value in values)
        if not (math.isfinite(correct) and math.isfinite(count) and count == int(count)):
            raise ValueError(f"expecting whole counts, got correct {correct} and count {count}")
        return cls(loss_sum, correct, int(count))

    @property
    def loss(self) -> float | None:
        """Mean loss per target; None when nothing was counted."""
        return self.loss_sum / self.count if self.count else None

    @property
    def accuracy(self) -> float | None:
        """Fraction of targets that were right, 0 to 1; None when nothing was counted."""
        return self.correct / self.count if self.count else None


def split_fields(split: str, tally: Tally) -> dict[str, float | int | None]:
    """Return `{split}_accuracy`, `{split}_loss` and `{split}_count` of one evaluated split.

    The name under which a result is stored is made here and nowhere else, and the count goes with
    it, so that a record can check that the targets counted were all those of the split it names.
    Raises ValueError for a name that is not in SPLITS.
    """
    if split not in SPLITS:
        raise ValueError(f"expecting a split of {', '.join(SPLITS)}, got {split!r}")
    return {
        f"{split}_accuracy": tally.accuracy,
        f"{split}_loss": tally.loss,
        f"{split}_count": tally.count,
    }
