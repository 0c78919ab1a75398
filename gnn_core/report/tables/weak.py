"""The table of weak scaling: the rate of a rank when the batch grows with the ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import NOTHING, percent
from gnn_core.report.rows.scores import Spread
from gnn_core.report.rows.series import Series, local_batch_size, scaling_series
from gnn_core.report.rows.speedups import accuracy_mark, ratio
from gnn_core.report.rows.summary import Row, rows_of, settings_text
from gnn_core.report.tables.cells import Table, setting_text, spread_text
from gnn_core.report.tables.speed import (
    distinguishing_columns,
    legend,
    ranks_text,
    score_heading,
    score_text,
    spread_numbers,
)
from gnn_core.strategies import order_of

_MEANING = (
    "weak scaling: global batch / ranks is constant, all other settings are equal; the base is 1 "
    "rank of the strategy, else `single` for torch and `one` for Keras",
    "targets/s per rank: median over epochs after the warm-up, then over runs; weak efficiency: "
    "(targets/s at n) / (n * targets/s at 1), least..most over all pairs of repeats",
)


@dataclass(frozen=True)
class WeakPoint:
    """One row of a weak series beside the run of one rank that the series begins with."""

    row: Row
    base: Row | None
    efficiency: Spread | None  # a fraction; None without a base
    mark: str  # "!" and "?", as of a speed-up

    @property
    def rate_per_rank(self) -> Spread | None:
        """Targets per second and rank."""
        rate = self.row.targets_per_second
        return None if rate is None else _over(rate, self.row.ranks)


def weak_points(series: Series) -> list[WeakPoint]:
    """Return the rows of a weak series, their base first, each with its weak efficiency."""
    rows = series.rows
    if series.base is not None and series.base is not rows[0]:  # of another strategy
        rows = (series.base, *rows)
    return [_point(row, series) for row in rows]


def weak_table(records: Sequence[RunRecord], *, force: bool = False) -> Table:
    """Return targets per second and rank and the weak efficiency by strategy and ranks."""
    found = scaling_series(rows_of(records), force=force).weak
    # The same base can begin the series of several strategies; it is shown once.
    points = list({id(one.row): one for series in found for one in weak_points(series)}.values())
    points.sort(key=_order)
    rows = [dataclasses.replace(one.row, speedup_mark=one.mark) for one in points]
    distinguishing, machines = distinguishing_columns(
        points, lambda one: one.row, but="global_batch_size"
    )
    columns: dict[str, Callable[[WeakPoint], str]] = {
        "dataset": lambda one: one.row.dataset,
        "strategy": lambda one: one.row.strategy,
        "ranks": lambda one: ranks_text(one.row),
        "precision": lambda one: one.row.precision,
        "batch": lambda one: str(one.row.settings["global_batch_size"]),
        "per rank": lambda one: setting_text(float(local_batch_size(one.row) or 0)),
        "runs": lambda one: str(one.row.runs),
        "targets/s per rank": lambda one: spread_text(one.rate_per_rank),
        "weak efficiency": _efficiency_text,
        "communicate": lambda one: percent(one.row.communicate_share),
        score_heading(row.score_name for row in rows): lambda one: score_text(
            one.row.accuracy, one.row.score_name
        ),
        **distinguishing,
    }
    return Table(
        headings=tuple(columns),
        cells=tuple(tuple(show(one) for show in columns.values()) for one in points),
        notes=(*_MEANING, *legend(rows), *machines, *_baseless(found)),
        numbers=pd.DataFrame([_numbers(one) for one in points]),
    )


def _point(row: Row, series: Series) -> WeakPoint:
    base = series.base
    if base is None or base.targets_per_second is None or row.targets_per_second is None:
        return WeakPoint(row, None, None, "")
    if row is base:
        return WeakPoint(row, base, Spread(1.0, 1.0, 1.0, 1), "")
    efficiency = _over(ratio(row.targets_per_second, base.targets_per_second), row.ranks)
    return WeakPoint(row, base, efficiency, series.base_mark + accuracy_mark(row, base))


def _order(one: WeakPoint) -> tuple[Any, ...]:
    row = one.row
    bare = {name: value for name, value in row.settings.items() if name != "global_batch_size"}
    return (
        row.dataset,
        row.machine,
        row.precision,
        local_batch_size(row) or 0,
        order_of(row.strategy),
        settings_text(bare),
        row.ranks,
        row.ranks_per_host,
    )


def _over(spread: Spread, ranks: int) -> Spread:
    return Spread(spread.middle / ranks, spread.low / ranks, spread.high / ranks, spread.count)


def _efficiency_text(one: WeakPoint) -> str:
    share = one.efficiency
    if share is None:
        return NOTHING
    spread = f" ({100 * share.low:.0f}..{100 * share.high:.0f})" if share.count > 1 else ""
    return f"{percent(share.middle)}{spread}{one.mark}"


def _baseless(found: Sequence[Series]) -> list[str]:
    return [
        f"no weak efficiency for {series.rows[0].strategy} on {series.rows[0].dataset} at "
        f"{setting_text(float(local_batch_size(series.rows[0]) or 0))} targets per rank: no run "
        f"of 1 rank with the same settings on this machine"
        for series in found
        if series.base is None
    ]


def _numbers(one: WeakPoint) -> dict[str, Any]:
    row = one.row
    return {
        "dataset": row.dataset,
        "strategy": row.strategy,
        "ranks": row.ranks,
        "crowded": row.crowded,
        "precision": row.precision,
        "global_batch_size": row.settings["global_batch_size"],
        "runs": row.runs,
        **spread_numbers("targets_per_second_per_rank", one.rate_per_rank),
        "base": None if one.base is None else one.base.strategy,
        **spread_numbers("weak_efficiency", one.efficiency),
        "weak_efficiency_mark": one.mark,
        "communicate_share": row.communicate_share,
        f"test_{row.score_name}": row.accuracy and row.accuracy.middle,
        "machine": row.machine,
    }
