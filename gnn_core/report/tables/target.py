"""Time to accuracy, and cost: how long a run trained until it was first seen to be good enough.

Seconds per epoch reward a strategy that learns less in an epoch; this does not. A target that was
not reached is a result of its own, reported with how far the run came, and never a missing number.
A cost is hosts x hours x a price that the reader gives, and nothing else.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gnn_core.measure.run_record import EpochRecord, RunRecord
from gnn_core.number_text import NOTHING, counted, three_digits
from gnn_core.report.rows import (
    ACCURACY_TOLERANCE,
    ReportOptions,
    Row,
    Spread,
    rows_with_runs,
    score_name,
    work_of,
)
from gnn_core.report.table import (
    Column,
    Table,
    crowded_note,
    distinguishing_columns,
    left_out,
    middle,
    row_columns,
    score_columns,
    score_heading,
    score_text,
    spread_text,
)
from gnn_core.usage import UsageError

_SECONDS_PER_HOUR = 3600
_LEFT_OUT = "left out, resumed or with other ranks on the way"
_TARGET_MEANING = (
    "seconds to target: training until the first evaluated epoch whose validation score reaches "
    "the target; warm-up epochs counted, evaluation and set-up not; an epoch that was not "
    "evaluated cannot reach it; median (least..most) over runs, one that does not reach it taken "
    "for longer than any",
    "best: the highest validation score of a run, median over runs; link prediction validates on "
    "a part of the split",
)
_COST_MEANING = (
    "cost: hosts x hours of training and evaluation x price, median (least..most) over runs; "
    "set-up, idle hosts, storage and traffic are not in it",
    "cost to target: the same of training alone until the target was seen to be reached (see the "
    "table `target`)",
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

    @property
    def is_known(self) -> bool:
        """Whether the target was or was not reached: there is one, and scores to judge by."""
        return self.target is not None and self.judged > 0


@dataclass(frozen=True)
class CostRow:
    """What the runs of a row cost, in the currency of the price."""

    row: Row
    host_hours: Spread | None  # hosts x hours of training and evaluation
    cost: Spread | None
    to_target: Spread | None  # training until the target; None when it was not reached
    target: TargetRow | None  # None when the row could not be judged


def _judged(line: TargetRow) -> Row:
    return line.row


def _paid(line: CostRow) -> Row:
    return line.row


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


def _score(epoch: EpochRecord, name: str) -> float | None:
    return epoch.valid_mrr if name == "mrr" else epoch.valid_accuracy


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


def _in_parts(run: RunRecord) -> bool:
    return bool(run.resumed_from) or run.ranks_changed


def _target_row(row: Row, runs: Sequence[RunRecord], target: float | None) -> TargetRow:
    reaches = [one for run in runs if (one := reach(run, target)).best is not None]
    # A run that does not get there takes longer than any that does: a median of those that do
    # would praise a strategy for its lucky runs.
    seconds = Spread.of(math.inf if one.seconds is None else one.seconds for one in reaches)
    epochs = Spread.of(math.inf if one.epochs is None else one.epochs for one in reaches)
    best = Spread.of(one.best for one in reaches)
    known = target is not None and seconds is not None and math.isfinite(seconds.middle)
    return TargetRow(
        row=row,
        target=target,
        seconds=seconds if known else None,
        epochs=epochs.middle if known and epochs else None,
        reached=sum(one.seconds is not None for one in reaches),
        judged=len(reaches),
        best=middle(best),
    )


def target_table(records: Sequence[RunRecord], *, target: float | None = None) -> Table:
    """Return the seconds to the target, and how far those came who did not reach it."""
    lines = target_rows(records, target)
    rows = [line.row for line in lines]
    distinguishing, machines = distinguishing_columns(lines, _judged)
    scores = score_heading(row.score_name for row in rows)
    columns: list[Column[TargetRow]] = [
        *row_columns(_judged, "who crowded precision"),
        Column(None, "score", lambda line: line.row.score_name),
        Column(
            scores.replace("test", "target"), None, lambda line: score_of(line.row, line.target)
        ),
        Column(None, "target", lambda line: line.target),
        Column("s to target", None, seconds_to_target_text),
        Column(None, "seconds_to_target", lambda line: line.seconds, spread=True),
        Column("epochs", "epochs_to_target", lambda line: line.epochs, _epochs_text),
        Column("reached", None, _reached_text),
        Column(None, "reached", lambda line: line.reached),
        Column(None, "judged", lambda line: line.judged),
        Column(scores.replace("test", "best"), None, lambda line: score_of(line.row, line.best)),
        Column(None, "best_valid_score", lambda line: line.best),
        *row_columns(_judged, "machine settings"),
        *distinguishing,
    ]
    in_parts = sum(run.status == "ok" and _in_parts(run) for run in records)
    notes = (
        _chosen(target),
        *_TARGET_MEANING,
        *crowded_note(rows),
        *machines,
        *dict.fromkeys(_unjudged(lines)),
        *([f"{_LEFT_OUT}: {counted(in_parts, 'run')}"] if in_parts else []),
        *left_out(records),
    )
    return Table.of(lines, columns, notes)


def seconds_to_target_text(line: TargetRow) -> str:
    """Return `12.3 (11.0..14.1)`, or `not reached`; nothing where nobody knows."""
    if not line.is_known:
        return NOTHING
    return "not reached" if line.seconds is None else spread_text(line.seconds, _reached_digits)


def _reached_digits(value: float) -> str:
    return three_digits(value) if math.isfinite(value) else "not reached"


def _epochs_text(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}"


def _reached_text(line: TargetRow) -> str:
    return f"{line.reached} of {line.judged}" if line.is_known else NOTHING


def score_of(row: Row, value: float | None) -> str:
    """Return a validation score as the row's test score is written."""
    return score_text(value, row.score_name)


def _chosen(target: float | None) -> str:
    if target is None:
        return (
            "target: one point below the median of the best validation scores of the `single` "
            "runs that do the same work"
        )
    return f"target: {target:g}, as given (a fraction)"


def _unjudged(lines: Sequence[TargetRow]) -> Iterable[str]:
    whats = [(line, f"{line.row.strategy} on {line.row.dataset}") for line in lines]
    for line, what in whats:
        if line.target is None:
            yield (
                f"no target for {what}: no `single` run with the same settings was evaluated while "
                "it trained; give one with --target"
            )
    for line, what in whats:
        if not line.judged:
            yield f"no score for {what}: no epoch was evaluated (--eval-every)"


def host_hours(run: RunRecord) -> float | None:
    """Return hosts x hours of training and evaluation; None when the record lacks one."""
    if run.training_seconds is None or run.evaluation_seconds is None or run.ranks_changed:
        return None
    return len(run.hosts) * (run.training_seconds + run.evaluation_seconds) / _SECONDS_PER_HOUR


def cost_rows(records: Sequence[RunRecord], price: float, target: float | None) -> list[CostRow]:
    """Return what the runs that ended well cost at `price` per host and hour."""
    targets = {_who(line.row): line for line in target_rows(records, target)}
    rows = []
    for row, runs in rows_with_runs(run for run in records if run.status == "ok"):
        hours = Spread.of(map(host_hours, runs))
        line = targets.get(_who(row))
        seconds = line.seconds if line is not None else None
        an_hour = price * len(row.ranks_per_host) / _SECONDS_PER_HOUR
        cost, to_target = hours and hours.scaled(price), seconds and seconds.scaled(an_hour)
        rows.append(CostRow(row, hours, cost, to_target, line))
    return rows


def _who(row: Row) -> tuple[Any, ...]:
    return row.work, row.strategy, row.ranks_per_host, row.machine, str(row.settings)


def cost_table(records: Sequence[RunRecord], options: ReportOptions) -> Table:
    """Return what each row cost; raises UsageError without a price, since none is ever made up."""
    if options.price is None:
        raise UsageError(
            "expected the price of a host for an hour, got none: no cost is shown without --price X"
        )
    lines = cost_rows(records, options.price, options.target)
    distinguishing, machines = distinguishing_columns(lines, _paid)
    unit = f" ({options.currency})" if options.currency else ""
    columns: list[Column[CostRow]] = [
        *row_columns(_paid, "who hosts precision runs"),
        Column("host-hours", "host_hours", lambda line: line.host_hours, spread_text, spread=True),
        Column(f"cost{unit}", "cost", lambda line: line.cost, spread_text, spread=True),
        Column(f"cost to target{unit}", None, to_target_text),
        Column(None, "cost_to_target", lambda line: line.to_target, spread=True),
        Column(None, "price_per_host_hour", lambda line: options.price),
        Column(None, "currency", lambda line: options.currency),
        *score_columns(lines, _paid),
        *row_columns(_paid, "machine"),
        *distinguishing,
    ]
    price = f"price: {options.price:g}{' ' * bool(unit)}{options.currency} per host-hour, as given"
    crowded = crowded_note(line.row for line in lines)
    return Table.of(
        lines, columns, (price, *_COST_MEANING, *crowded, *machines, *left_out(records))
    )


def to_target_text(line: CostRow) -> str:
    """Return the cost to the target, or that it was not reached; nothing where nobody knows."""
    known = line.target is not None and line.target.is_known
    if known and line.to_target is None:
        return "not reached"
    return spread_text(line.to_target, _reached_digits)
