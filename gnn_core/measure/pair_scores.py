"""Citations told from as many non-citations by their scores: accuracy, precision, probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

Floats = npt.NDArray[np.float64]
_LEAST_SCALE = 1e-12
_PULL = 1e-3  # towards a slope of 0, so that scores without an overlap have a finite one


@dataclass(frozen=True)
class PairScores:
    """Scores `[n]` of citations, and of as many pairs of papers without a citation."""

    citations: Floats
    others: Floats

    def threshold(self) -> float:
        """The score above which most of these pairs are told right; 0 without any."""
        values = np.unique(np.concatenate([self.citations, self.others]))
        if not len(values):
            return 0.0
        between = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2])
        below = np.searchsorted(np.sort(self.others), between)
        missed = np.searchsorted(np.sort(self.citations), between)
        return float(between[np.argmax(below - missed)])

    def accuracy(self, threshold: float) -> float | None:
        """Share of the pairs that are told right: citations score at least `threshold`."""
        right = (self.citations >= threshold).sum() + (self.others < threshold).sum()
        return float(right / (2 * len(self.citations))) if len(self.citations) else None

    def average_precision(self) -> float | None:
        """Mean, over the citations, of the share of citations among what scores as high."""
        if not len(self.citations):
            return None
        own, others = np.sort(self.citations), np.sort(self.others)
        as_high = len(own) - np.searchsorted(own, own)
        wrong = len(others) - np.searchsorted(others, own)
        return float(np.mean(as_high / (as_high + wrong)))


@dataclass(frozen=True)
class Calibration:
    """From a score to the probability of a citation, where citations are half of the pairs.

    Platt, "Probabilistic Outputs for Support Vector Machines", Advances in Large Margin
    Classifiers, 1999.
    """

    slope: float
    intercept: float

    @classmethod
    def of(cls, pairs: PairScores) -> Calibration:
        """Fit it to pairs by maximum likelihood."""
        scores = np.concatenate([pairs.citations, pairs.others])
        signs = np.concatenate([np.ones(len(pairs.citations)), -np.ones(len(pairs.others))])
        scale = max(float(np.std(scores)), _LEAST_SCALE) if len(scores) else 1.0

        def loss(line: Floats) -> tuple[float, Floats]:
            margins = signs * (line[0] * scores / scale + line[1])
            pull = _PULL * line[0]
            slopes = -signs / (1 + np.exp(np.minimum(margins, 500)))
            gradient = np.array([slopes @ scores / scale + pull, slopes.sum()])
            return float(np.logaddexp(0, -margins).sum() + pull * line[0] / 2), gradient

        line = optimize.minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
        return cls(float(line[0]) / scale, float(line[1]))

    def probabilities(self, scores: npt.NDArray[Any]) -> Floats:
        """Probabilities of scores, of the same shape."""
        logits = self.slope * scores.astype(np.float64) + self.intercept
        return np.asarray(np.exp(-np.logaddexp(0, -logits)))
