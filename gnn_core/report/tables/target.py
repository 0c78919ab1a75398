"""Time to accuracy: how long a run trained until it was first seen to be good enough.

Seconds per epoch reward a strategy that learns less in an epoch; this does not. A target that was
not reached is a result of its own, reported with how far the run came, and never a missing number.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gnn_core.measure.run_record import EpochRecord, RunRecord
from gnn_core.number_text import NOTHING, counted, three_digits
from gnn_core.report.rows.scores import Spread, score_name
from gnn_core.report.rows.summary import (
    ACCURACY_TOLERANCE,
    Row,
    rows_with_runs,
    settings_text,
    work_of,
)
from gnn_core.report.tables.cells import Table, left_out
from gnn_core.report.tables.speed import (
    LEGEND,
    distinguishing_columns,
    ranks_text,
    score_heading,
    score_text,
    spread_numbers,
)

_LEFT_OUT = "left out, resumed or with other ranks on the way"
_MEANING = (
    "seconds to target: training until the first evaluated epoch whose validation score reaches "
    "the target; warm-up epochs counted, evaluation and set-up not; an epoch that was not "
    "evaluated cannot reach it; median (least..most) over runs, one that does not reach it taken "
    "for longer than any",
    "best: the highest validation score of a run, median over runs; link prediction validates on "
    "a part of the split",
)


@dataclass(frozen=True)
class Reach:
    """How far one run came."""

    seconds: float | None  # of training until the target was seen to be reached; None: it was not
    epochs: int | None  # passed by then
    best: float | None  # highest validation score; None when no epoch was evaluated


@dataclass(frozen=True)
class TargetRow:
    """All runs of a row beside the target that they were to reach."""

    row: Row
    target: float | None  # None when nobody says what it is
    seconds: Spread | None  # to the target; None when half of the runs or more do not reach it
    epochs: float | None  # median, of the same
    reached: int  # runs
    judged: int  # runs with a validation score
    best: float | None  # median over runs


def reach(run: RunRecord, target: float | None) -> Reach:
    """Return how long a run took to `target` (a fraction), which need not be the end of it."""
    scores = [_score(epoch, score_name(run)) for epoch in run.epochs]
    best = max((score for score in scores if score is not None), default=None)
    seconds = 0.0
    for passed, (epoch, score) in enumerate(zip(run.epochs, scores, strict=True), start=1):
        seconds += epoch.seconds
        if target is not None and score is not None and score >= target:
            return Reach(seconds, passed, best)
    return Reach(None, None, best)


def default_targets(records: Sequence[RunRecord]) -> dict[Hashable, float]:
    """Return by work (`Row.work`) one point below the median of the best of its `single` runs."""
    found: dict[Hashable, list[float]] = {}
    for run in records:
        best = reach(run, None).best
        if run.strategy == "single" and run.status == "ok" and best is not None:
            found.setdefault(work_of(run), []).append(best)
    return {work: statistics.median(best) - ACCURACY_TOLERANCE for work, best in found.items()}


def target_rows(records: Sequence[RunRecord], target: float | None = None) -> list[TargetRow]:
    """Return the rows of all runs that can be judged, beside `target` or each work's own.

    A resumed run cannot: how long it trained before is in another record. Nor can one whose ranks
    changed.
    """
    defaults = default_targets(records)
    judged = [run for run in records if run.status == "ok" and not _in_parts(run)]
    return [
        _target_row(row, runs, defaults.get(row.work) if target is None else target)
        for row, runs in rows_with_runs(judged)
    ]


def target_table(records: Sequence[RunRecord], *, target: float | None = None) -> Table:
    """Return the seconds to the target, and how far those came who did not reach it."""
    lines = target_rows(records, target)
    rows = [line.row for line in lines]
    distinguishing, machines = distinguishing_columns(lines, lambda line: line.row)
    columns: dict[str, Callable[[TargetRow], str]] = {
        "dataset": lambda line: line.row.dataset,
        "strategy": lambda line: line.row.strategy,
        "ranks": lambda line: ranks_text(line.row),
        "precision": lambda line: line.row.precision,
        _heading("target", rows): lambda line: score_of(line.row, line.target),
        "s to target": seconds_to_target_text,
        "epochs": lambda line: NOTHING if line.epochs is None else f"{line.epochs:g}",
        "reached": _reached_text,
        _heading("best", rows): lambda line: score_of(line.row, line.best),
        **distinguishing,
    }
    crowded = [LEGEND["*"]] if any(row.crowded for row in rows) else []
    in_parts = sum(run.status == "ok" and _in_parts(run) for run in records)
    return Table(
        headings=tuple(columns),
        cells=tuple(tuple(show(line) for show in columns.values()) for line in lines),
        notes=(
            _chosen(target),
            *_MEANING,
            *crowded,
            *machines,
            *_unjudged(lines),
            *([f"{_LEFT_OUT}: {counted(in_parts, 'run')}"] if in_parts else []),
            *left_out(records),
        ),
        numbers=pd.DataFrame([_numbers(line) for line in lines]),
    )


def _in_parts(run: RunRecord) -> bool:
    return bool(run.resumed_from) or run.ranks_changed


def seconds_to_target_text(line: TargetRow) -> str:
    """Return `12.3 (11.0..14.1)`, or `not reached`; nothing where nobody knows."""
    if line.target is None or not line.judged:
        return NOTHING
    if line.seconds is None:
        return "not reached"
    middle, low = three_digits(line.seconds.middle), three_digits(line.seconds.low)
    high = three_digits(line.seconds.high) if math.isfinite(line.seconds.high) else "not reached"
    return middle if line.judged < 2 else f"{middle} ({low}..{high})"


def _reached_text(line: TargetRow) -> str:
    known = line.target is not None and line.judged
    return f"{line.reached} of {line.judged}" if known else NOTHING


def score_of(row: Row, value: float | None) -> str:
    """Return a validation score as the row's test score is written."""
    return score_text(None if value is None else Spread(value, value, value, 1), row.score_name)


def _target_row(row: Row, runs: Sequence[RunRecord], target: float | None) -> TargetRow:
    all_reaches = [reach(run, target) for run in runs]
    reaches = [one for one in all_reaches if one.best is not None]
    # A run that does not get there takes longer than any that does: a median of those that do
    # would praise a strategy for its lucky runs.
    seconds = [math.inf if one.seconds is None else one.seconds for one in reaches]
    epochs = [math.inf if one.epochs is None else one.epochs for one in reaches]
    middle = statistics.median(seconds) if seconds else math.inf
    known = target is not None and math.isfinite(middle)
    return TargetRow(
        row=row,
        target=target,
        seconds=Spread(middle, min(seconds), max(seconds), len(seconds)) if known else None,
        epochs=statistics.median(epochs) if known else None,
        reached=sum(one.seconds is not None for one in reaches),
        judged=len(reaches),
        best=statistics.median(one.best for one in reaches if one.best is not None)
        if reaches
        else None,
    )


def _score(epoch: EpochRecord, name: str) -> float | None:
    return epoch.valid_mrr if name == "mrr" else epoch.valid_accuracy


def _heading(what: str, rows: Sequence[Row]) -> str:
    return score_heading(row.score_name for row in rows).replace("test", what)


def _chosen(target: float | None) -> str:
    if target is None:
        return (
            "target: one point below the median of the best validation scores of the `single` "
            "runs that do the same work"
        )
    return f"target: {target:g}, as given (a fraction)"


def _unjudged(lines: Sequence[TargetRow]) -> list[str]:
    whats = [(line, f"{line.row.strategy} on {line.row.dataset}") for line in lines]
    notes = [
        f"no target for {what}: no `single` run with the same settings was evaluated while it "
        f"trained; give one with --target"
        for line, what in whats
        if line.target is None
    ]
    notes += [
        f"no score for {what}: no epoch was evaluated (--eval-every)"
        for line, what in whats
        if not line.judged
    ]
    return list(dict.fromkeys(notes))


def _numbers(line: TargetRow) -> dict[str, Any]:
    row, seconds = line.row, spread_numbers("seconds_to_target", line.seconds)
    if line.seconds is not None and not math.isfinite(line.seconds.high):
        seconds["seconds_to_target_max"] = None
    return {
        "dataset": row.dataset,
        "strategy": row.strategy,
        "ranks": row.ranks,
        "crowded": row.crowded,
        "precision": row.precision,
        "score": row.score_name,
        "target": line.target,
        **seconds,
        "epochs_to_target": line.epochs,
        "reached": line.reached,
        "judged": line.judged,
        "best_valid_score": line.best,
        "machine": row.machine,
        "settings": settings_text(row.settings),
    }
