"""What a run is judged by, and how far seeds lie apart in it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gnn_core.report.schema import RunRecord


@dataclass(frozen=True)
class Spread:
    """A middle value, and how far the runs behind it lie apart."""

    middle: float
    low: float
    high: float
    count: int


def score_name(run: RunRecord) -> str:
    """Return what the task of a run is judged by: `accuracy`, or `mrr` for link prediction."""
    return "mrr" if run.config.get("task") == "link" else "accuracy"


def accuracy_over_seeds(runs: Iterable[RunRecord]) -> Spread | None:
    """Return mean and standard deviation over seeds of the test score; None when unknown.

    The score is an accuracy, or the mean reciprocal rank where links were predicted.

    Runs of one seed are one observation: repeating it would make the deviation look smaller.
    """
    by_seed: dict[Any, list[float]] = {}
    for run in runs:
        value = run.final.get(f"test_{score_name(run)}")
        if run.status == "ok" and value is not None:
            by_seed.setdefault(run.config.get("seed"), []).append(value)
    if not by_seed:
        return None
    means = [statistics.fmean(values) for values in by_seed.values()]
    middle = statistics.fmean(means)
    deviation = statistics.stdev(means) if len(means) > 1 else 0.0
    return Spread(middle, middle - deviation, middle + deviation, len(means))
