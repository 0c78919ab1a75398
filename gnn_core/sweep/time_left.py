"""An estimate of how long the remaining runs of a sweep take, from those that are done."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import datetime

from gnn_core.measure.run_record import RunRecord

Kind = tuple[str, str, int]
"""Data set with its own settings, strategy, ranks."""


def seconds_left(remaining: Sequence[Kind], took: Sequence[tuple[Kind, float]]) -> float | None:
    """Return the seconds that the remaining runs will take; None when none is done yet.

    Each as long as the mean of the runs of its kind, else of its data set, else of all. `took` has
    the kind and the seconds of each run done.
    """
    if not took:
        return None
    by_kind: dict[object, list[float]] = {}
    for kind, seconds in took:
        for likeness in (kind, kind[0], None):
            by_kind.setdefault(likeness, []).append(seconds)
    means = {likeness: statistics.fmean(seconds) for likeness, seconds in by_kind.items()}
    return sum(means.get(kind, means.get(kind[0], means[None])) for kind in remaining)


def recorded_seconds(record: RunRecord) -> float:
    """Return how long a run took by its record, which does not know of starting its processes."""
    start, end = record.started_at, record.finished_at or record.started_at
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def in_words(seconds: float) -> str:
    """Return `8 s`, `3 min` or `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
