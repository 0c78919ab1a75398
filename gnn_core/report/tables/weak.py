"""The table of weak scaling: the rate of a rank when the batch grows with the ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import NOTHING, percent
from gnn_core.report.rows import Row, Spread, accuracy_mark, rows_of, settings_text
from gnn_core.report.series import Series, local_batch_size, scaling_series
from gnn_core.report.table import (
    Column,
    Table,
    distinguishing_columns,
    identity_columns,
    legend,
    score_columns,
    setting_text,
    spread_text,
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
        return rate and rate.scaled(1, self.row.ranks)


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
    distinguishing, machines = distinguishing_columns(
        points, lambda one: one.row, but="global_batch_size"
    )
    columns: list[Column[WeakPoint]] = [
        *identity_columns(lambda one: one.row),
        Column(None, "crowded", lambda one: one.row.crowded),
        Column("precision", "precision", lambda one: one.row.precision),
        Column("batch", "global_batch_size", lambda one: one.row.settings["global_batch_size"]),
        Column("per rank", None, lambda one: _per_rank(one.row)),
        Column("runs", "runs", lambda one: one.row.runs),
        Column(
            "targets/s per rank",
            "targets_per_second_per_rank",
            lambda one: one.rate_per_rank,
            spread_text,
            spread=True,
        ),
        Column(None, "base", lambda one: one.base and one.base.strategy),
        Column("weak efficiency", None, _efficiency_text),
        Column(None, "weak_efficiency", lambda one: one.efficiency, spread=True),
        Column(None, "weak_efficiency_mark", lambda one: one.mark),
        Column("communicate", "communicate_share", lambda one: one.row.communicate_share, percent),
        *score_columns(points, lambda one: one.row),
        Column(None, "machine", lambda one: one.row.machine),
        *distinguishing,
    ]
    marked = [dataclasses.replace(one.row, speedup_mark=one.mark) for one in points]
    baseless = [
        f"no weak efficiency for {series.rows[0].strategy} on {series.rows[0].dataset} at "
        f"{_per_rank(series.rows[0])} targets per rank: no run of 1 rank with the same settings "
        "on this machine"
        for series in found
        if series.base is None
    ]
    return Table.of(points, columns, (*_MEANING, *legend(marked), *machines, *baseless))


def _per_rank(row: Row) -> str:
    return setting_text(float(local_batch_size(row) or 0))


def _point(row: Row, series: Series) -> WeakPoint:
    base = series.base
    if base is None or base.targets_per_second is None or row.targets_per_second is None:
        return WeakPoint(row, None, None, "")
    if row is base:
        return WeakPoint(row, base, Spread(1.0, 1.0, 1.0, 1), "")
    efficiency = row.targets_per_second.over(base.targets_per_second).scaled(1, row.ranks)
    return WeakPoint(row, base, efficiency, series.base_mark + accuracy_mark(row, base))


def _order(one: WeakPoint) -> tuple[Any, ...]:
    row = one.row
    bare = {name: value for name, value in row.settings.items() if name != "global_batch_size"}
    alike = row.dataset, row.machine, row.precision, local_batch_size(row) or 0
    ranks = row.ranks, row.ranks_per_host
    return *alike, order_of(row.strategy), settings_text(bare), *ranks


def _efficiency_text(one: WeakPoint) -> str:
    share = one.efficiency
    if share is None:
        return NOTHING
    spread = f" ({100 * share.low:.0f}..{100 * share.high:.0f})" if share.count > 1 else ""
    return f"{percent(share.middle)}{spread}{one.mark}"
