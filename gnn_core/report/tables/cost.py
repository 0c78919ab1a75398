"""What a run cost, at a price that the reader gives: hosts x hours x price, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import three_digits
from gnn_core.report.rows.report_options import ReportOptions
from gnn_core.report.rows.scores import Spread
from gnn_core.report.rows.summary import Row, over_runs, rows_with_runs
from gnn_core.report.tables.cells import Table, left_out, spread_text
from gnn_core.report.tables.speed import (
    LEGEND,
    distinguishing_columns,
    ranks_text,
    score_heading,
    score_text,
    spread_numbers,
)
from gnn_core.report.tables.target import TargetRow, target_rows
from gnn_core.usage import UsageError

_SECONDS_PER_HOUR = 3600
_MEANING = (
    "cost: hosts x hours of training and evaluation x price, median (least..most) over runs; "
    "set-up, idle hosts, storage and traffic are not in it",
    "cost to target: the same of training alone until the target was seen to be reached (see the "
    "table `target`)",
)


@dataclass(frozen=True)
class CostRow:
    """What the runs of a row cost, in the currency of the price."""

    row: Row
    host_hours: Spread | None  # hosts x hours of training and evaluation
    cost: Spread | None
    to_target: Spread | None  # training until the target; None when it was not reached
    target: TargetRow | None  # None when the row could not be judged


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
        hours = over_runs(runs, host_hours)
        line = targets.get(_who(row))
        seconds = line.seconds if line is not None else None
        an_hour = price * len(row.ranks_per_host) / _SECONDS_PER_HOUR
        rows.append(
            CostRow(
                row=row,
                host_hours=hours,
                cost=_times(hours, price),
                to_target=_times(seconds, an_hour),
                target=line,
            )
        )
    return rows


def cost_table(records: Sequence[RunRecord], options: ReportOptions) -> Table:
    """Return what each row cost; raises UsageError without a price, since none is ever made up."""
    if options.price is None:
        raise UsageError(
            "expected the price of a host for an hour, got none: no cost is shown without --price X"
        )
    lines = cost_rows(records, options.price, options.target)
    rows = [line.row for line in lines]
    distinguishing, machines = distinguishing_columns(lines, lambda line: line.row)
    unit = f" ({options.currency})" if options.currency else ""
    columns: dict[str, Callable[[CostRow], str]] = {
        "dataset": lambda line: line.row.dataset,
        "strategy": lambda line: line.row.strategy,
        "ranks": lambda line: ranks_text(line.row),
        "hosts": lambda line: str(len(line.row.ranks_per_host)),
        "precision": lambda line: line.row.precision,
        "runs": lambda line: str(line.row.runs),
        "host-hours": lambda line: amount_text(line.host_hours),
        f"cost{unit}": lambda line: amount_text(line.cost),
        f"cost to target{unit}": to_target_text,
        score_heading(row.score_name for row in rows): lambda line: score_text(
            line.row.accuracy, line.row.score_name
        ),
        **distinguishing,
    }
    crowded = [LEGEND["*"]] if any(row.crowded for row in rows) else []
    price = f"price: {options.price:g}{' ' * bool(unit)}{options.currency} per host-hour, as given"
    return Table(
        headings=tuple(columns),
        cells=tuple(tuple(show(line) for show in columns.values()) for line in lines),
        notes=(price, *_MEANING, *crowded, *machines, *left_out(records)),
        numbers=pd.DataFrame([_numbers(line, options) for line in lines]),
    )


def amount_text(spread: Spread | None) -> str:
    """Return `0.0123 (0.0119..0.0131)`."""
    return spread_text(spread, _digits)


def to_target_text(line: CostRow) -> str:
    """Return the cost to the target, or that it was not reached; nothing where nobody knows."""
    known = line.target is not None and line.target.target is not None and line.target.judged
    return "not reached" if known and line.to_target is None else amount_text(line.to_target)


def _digits(value: float) -> str:
    return three_digits(value) if math.isfinite(value) else "not reached"


def _times(spread: Spread | None, factor: float) -> Spread | None:
    if spread is None:
        return None
    middle, low, high = (factor * value for value in (spread.middle, spread.low, spread.high))
    return Spread(middle, low, high, spread.count)


def _who(row: Row) -> tuple[Any, ...]:
    return row.work, row.strategy, row.ranks_per_host, row.machine, str(row.settings)


def _numbers(line: CostRow, options: ReportOptions) -> dict[str, Any]:
    row = line.row
    to_target = spread_numbers("cost_to_target", line.to_target)
    finite = {k: v if v is None or math.isfinite(v) else None for k, v in to_target.items()}
    return {
        "dataset": row.dataset,
        "strategy": row.strategy,
        "ranks": row.ranks,
        "hosts": len(row.ranks_per_host),
        "precision": row.precision,
        "runs": row.runs,
        **spread_numbers("host_hours", line.host_hours),
        **spread_numbers("cost", line.cost),
        **finite,
        "price_per_host_hour": options.price,
        "currency": options.currency,
        f"test_{row.score_name}": row.accuracy and row.accuracy.middle,
        "machine": row.machine,
    }
