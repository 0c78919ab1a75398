"""Sums and counts that merge over ranks; loss, accuracy and MRR only at the very end.

An average of per-rank averages is wrong as soon as ranks hold different numbers of targets. A Tally
therefore carries sums and a count, which add up in any order, and divides once, when it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import special

from gnn_core.models import BCE_SHARE

SPLITS = ("train", "valid", "test")
"""The only names a split goes by in a result; `split_fields` is where they become field names."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What was summed over some targets; `a + b` is the tally of both sets of targets.

    Frozen: `tally = tally + Tally(...)` accumulates. A NaN loss stays NaN, it never becomes 0.
    """

    score_name: ClassVar[str] = "accuracy"

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
            self.loss_sum + other.loss_sum, self.correct + other.correct, self.count + other.count
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

    @property
    def score(self) -> float | None:
        """What the best epoch is chosen by: the accuracy."""
        return self.accuracy

    def fields(self) -> dict[str, float | int | None]:
        """The results by name, as a record holds them."""
        return {"accuracy": self.accuracy, "loss": self.loss, "count": self.count}


HITS = (1, 10, 100)


@dataclass(frozen=True, slots=True)
class RankingTally:
    """What was summed over held-out references, each ranked among its candidates.

    Ranks count from 1; of candidates that score as high as the reference half are taken to be
    ahead of it, as the evaluator of ogbl-citation2 does.
    """

    score_name: ClassVar[str] = "mrr"

    loss_sum: float = 0.0  # of the references against their candidates
    reciprocal_sum: float = 0.0  # of 1 / rank
    hits: tuple[int, ...] = (0,) * len(HITS)  # references of rank at most 1, 10, 100
    auc_sum: float = 0.0  # shares of candidates that score lower, ties half
    count: int = 0
    # Of all references of a split, each beside one of its candidates; no part of a sum.
    pair_accuracy: float | None = None  # with the threshold that suits the validation pairs best
    average_precision: float | None = None

    @classmethod
    def of(
        cls, scores: npt.NDArray[np.floating], others: npt.NDArray[np.floating], loss: str = "bce"
    ) -> RankingTally:
        """Rank references that score `[n]` among candidates that score `[n, K]`.

        The loss is that of training: distinguishing a reference from all its candidates, each by
        itself (`bce`) or together (`softmax`): see `horovod_gnn.objective`.
        """
        scores, others = scores.astype(np.float64), others.astype(np.float64)
        higher = (others > scores[:, None]).sum(axis=1)
        equal = (others == scores[:, None]).sum(axis=1)
        ranks = higher + equal / 2 + 1
        with np.errstate(invalid="ignore"):  # of a model that has diverged: the sum shows it
            losses = np.logaddexp(0, -scores) + np.logaddexp(0, others).mean(axis=1)
            if loss == "softmax":
                together = np.logaddexp(0, special.logsumexp(others, axis=1) - scores)
                losses = together + BCE_SHARE * losses
        return cls(
            float(losses.sum()),
            float((1 / ranks).sum()),
            tuple(int((ranks <= most).sum()) for most in HITS),
            float((1 - (higher + equal / 2) / others.shape[1]).sum()),
            len(scores),
        )

    def __add__(self, other: RankingTally) -> RankingTally:
        """Return the tally over the references of both; what is no sum is left out."""
        return RankingTally.from_vector(self.to_vector() + other.to_vector())

    def to_vector(self) -> npt.NDArray[np.float64]:
        """Return float64 [4 + len(HITS)]; one allreduce (sum) merges every rank."""
        sums = [self.loss_sum, self.reciprocal_sum, *self.hits, self.auc_sum, self.count]
        return np.array(sums, np.float64)

    @classmethod
    def from_vector(cls, vector: npt.ArrayLike) -> RankingTally:
        """Return the tally held by such a vector."""
        loss, reciprocal, *hits, auc, count = (float(v) for v in np.asarray(vector, np.float64))
        return cls(loss, reciprocal, tuple(int(value) for value in hits), auc, int(count))

    @property
    def loss(self) -> float | None:
        """Mean loss per reference; None when nothing was counted."""
        return self._mean(self.loss_sum)

    @property
    def score(self) -> float | None:
        """What the best epoch is chosen by: the mean reciprocal rank."""
        return self._mean(self.reciprocal_sum)

    def fields(self) -> dict[str, float | int | None]:
        """The results by name, as a record holds them."""
        hits = {f"hits_{k}": self._mean(n) for k, n in zip(HITS, self.hits, strict=True)}
        means = {"mrr": self.score, **hits, "auc": self._mean(self.auc_sum)}
        if self.pair_accuracy is not None:
            means["pair_accuracy"] = self.pair_accuracy
            means["average_precision"] = self.average_precision
        return {**means, "loss": self.loss, "count": self.count}

    def _mean(self, total: float) -> float | None:
        return total / self.count if self.count else None


AnyTally = Tally | RankingTally


def split_fields(split: str, tally: AnyTally) -> dict[str, float | int | None]:
    """Return `{split}_accuracy`, `{split}_loss`, `{split}_count` and so on of an evaluated split.

    The name under which a result is stored is made here and nowhere else, and the count goes with
    it, so that a record can check that the targets counted were all those of the split it names.
    Raises ValueError for a name that is not in SPLITS.
    """
    if split not in SPLITS:
        raise ValueError(f"expecting a split of {', '.join(SPLITS)}, got {split!r}")
    return {f"{split}_{name}": value for name, value in tally.fields().items()}
