"""The tables of time: strong and weak scaling, communication; and the test accuracy."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gnn_core.measure.run_record import ExchangeRecord, RunRecord
from gnn_core.number_text import NOTHING, percent, three_digits
from gnn_core.report.rows import (
    Row,
    Spread,
    accuracy_mark,
    grouped,
    own_model,
    row_of,
    rows_of,
    rows_with_runs,
    settings_text,
    summarize,
    training_settings,
)
from gnn_core.report.sentences import slowdown
from gnn_core.report.series import Series, local_batch_size, scaling_series
from gnn_core.report.table import (
    MIB,
    Column,
    Table,
    distinguishing_columns,
    graph_mark,
    left_out,
    legend,
    middle,
    middle_text,
    precision_order,
    ratio_text,
    row_columns,
    score_columns,
    setting_text,
    settings_column,
    spread_text,
)
from gnn_core.strategies import STRATEGIES, order_of

_SPREAD = (
    "speed-up: T(1) / T(n) of the medians, larger is faster; least..most over all pairs of repeats"
)
_OWN = "own speed-up: against the strategy itself on 1 rank; the other one is against `single`"


def speed_table(records: Sequence[RunRecord], *, force: bool = False) -> Table:
    """Return seconds per epoch, speed-up, efficiency and accuracy by strategy and ranks."""
    rows, notes = summarize(records, force=force)
    distinguishing, machines = distinguishing_columns(rows, _itself)
    scaled = any(row.over_own and row.ranks > 1 for row in rows)
    # Unless any is scaled, each is 1 rank, or has none to be measured against.
    own = ("own speed-up", "own efficiency") if scaled else (None, None)
    columns: list[Column[Row]] = [
        *row_columns(_itself),
        Column(None, "ranks_per_host", lambda row: "+".join(map(str, row.ranks_per_host))),
        *row_columns(_itself, "crowded precision runs seconds"),
        Column("speed-up", None, lambda row: ratio_text(row.over_single, row.speedup_mark)),
        Column(None, "speedup", lambda row: row.over_single, spread=True),
        Column(None, "speedup_mark", lambda row: row.speedup_mark),
        Column("efficiency", "efficiency", lambda row: row.efficiency, percent),
        Column(own[0], None, lambda row: ratio_text(row.over_own, row.own_mark)),
        Column(None, "own_speedup", lambda row: row.over_own, spread=True),
        Column(None, "own_speedup_mark", lambda row: row.own_mark),
        Column(own[1], None, lambda row: row.own_efficiency, percent),
        *row_columns(_itself, "communicate"),
        *score_columns(rows, _itself, deviation=True),
        Column(None, "seeds", lambda row: row.accuracy.count if row.accuracy else 0),
        *row_columns(_itself, "not_ok machine settings"),
        *distinguishing,
    ]
    said = [_SPREAD] if any(row.over_single and row.over_single.count > 1 for row in rows) else []
    said += [_OWN] if scaled else []
    said += legend(rows, scaled)
    slow = dict.fromkeys(slowdown(row, row.speedup, "single", _own_base(row, rows)) for row in rows)
    return Table.of(rows, columns, (*filter(None, slow), *said, *machines, *notes))


def _itself(row: Row) -> Row:
    return row


def _own_base(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the one process of the row's framework that did the same work, but for `single`."""
    own = STRATEGIES[row.strategy].single
    alike = (own, row.work, row.machine)
    found = [one for one in rows if (one.strategy, one.work, one.machine) == alike]
    return found[0] if found and own != "single" else None


def accuracy_table(records: Sequence[RunRecord]) -> Table:
    """Return the test accuracy by data set, strategy, ranks and precision, over seeds.

    Runs that differ in threads, launcher or machine are joined: none may change the model.
    """
    groups = grouped((run for run in records if run.status == "ok"), _training_key)
    groups.sort(key=lambda runs: _training_key(runs[0]))
    lines = [(row_of(runs), runs[0].config) for runs in groups]
    named = any(own_model(config) for _, config in lines)
    columns: list[Column[tuple[Row, dict[str, Any]]]] = [
        Column("dataset", "dataset", lambda line: line[0].dataset),
        Column("model" if named else None, "model", lambda line: own_model(line[1]) or "graphsage"),
        Column("strategy", "strategy", lambda line: line[0].strategy),
        Column("ranks", "ranks", lambda line: line[0].ranks),
        Column("precision", "precision", lambda line: line[0].precision),
        *(scores := score_columns(lines, lambda line: line[0], deviation=True)),
        Column("seeds", "seeds", lambda line: line[0].accuracy.count if line[0].accuracy else 0),
        Column("runs", "runs", lambda line: line[0].runs),
        *settings_column(
            lines,
            lambda line: {**training_settings(line[1]), "graph": graph_mark(line[0].fingerprint)},
            # A model of its own has a recipe of its own, as a data set has.
            lambda line: f"{line[0].dataset} {own_model(line[1])}",
        ),
    ]
    heading = str(scores[0].heading)
    unit = " in percent" * heading.endswith("accuracy")
    meaning = f"{heading}{unit}: mean ± standard deviation over seeds"
    return Table.of(lines, columns, (meaning, *left_out(records)))


def _training_key(record: RunRecord) -> tuple[Any, ...]:
    return (
        record.dataset.name,
        precision_order(record.config.get("precision")),
        order_of(record.strategy),
        record.world_size,
        str(record.dataset.fingerprint),
        str(sorted(training_settings(record.config).items())),
    )


_WEAK_MEANING = (
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
    return [_weak_point(row, series) for row in rows]


def weak_table(records: Sequence[RunRecord], *, force: bool = False) -> Table:
    """Return targets per second and rank and the weak efficiency by strategy and ranks."""
    found = scaling_series(rows_of(records), force=force).weak
    # The same base can begin the series of several strategies; it is shown once.
    points = list({id(one.row): one for series in found for one in weak_points(series)}.values())
    points.sort(key=_weak_order)
    distinguishing, machines = distinguishing_columns(points, _row, but="global_batch_size")
    columns: list[Column[WeakPoint]] = [
        *row_columns(_row, "who crowded precision"),
        Column("batch", "global_batch_size", lambda one: one.row.settings["global_batch_size"]),
        Column("per rank", None, lambda one: _per_rank(one.row)),
        *row_columns(_row, "runs"),
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
        *row_columns(_row, "communicate"),
        *score_columns(points, _row),
        *row_columns(_row, "machine"),
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
    return Table.of(points, columns, (*_WEAK_MEANING, *legend(marked), *machines, *baseless))


def _row(one: WeakPoint) -> Row:
    return one.row


def _per_rank(row: Row) -> str:
    return setting_text(float(local_batch_size(row) or 0))


def _weak_point(row: Row, series: Series) -> WeakPoint:
    base = series.base
    if base is None or base.targets_per_second is None or row.targets_per_second is None:
        return WeakPoint(row, None, None, "")
    if row is base:
        return WeakPoint(row, base, Spread(1.0, 1.0, 1.0, 1), "")
    efficiency = row.targets_per_second.over(base.targets_per_second).scaled(1, row.ranks)
    return WeakPoint(row, base, efficiency, series.base_mark + accuracy_mark(row, base))


def _weak_order(one: WeakPoint) -> tuple[Any, ...]:
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


_COMMUNICATION_MEANING = (
    "speed-up: against the same strategy with one worker and equal settings, and against `single`",
    "allreduce: share of the seconds of an epoch that went on the sum of gradients",
)
_OF_PARTS = (
    "rows: of the rows that a worker's step reads, those of parts that other workers hold; hits: "
    "of these, once a window of steps, those that the cache had",
    "MiB: sent by a worker in a step for rows of features; exchange: seconds in which the slowest "
    "worker's fetching thread was in an exchange, as a share of training, which goes on meanwhile",
)
_OF_TOPOLOGY = (
    "sampling MiB: sent by a worker in a step for neighbours that the owners of nodes drew, beside "
    "the rows; sampling: seconds of that, as exchange",
)
Timed = tuple[Row, RunRecord]


def communication_table(records: Sequence[RunRecord], *, force: bool = False) -> Table:
    """Return one line per strategy, number of workers and settings, of the runs that were timed."""
    rows, notes = summarize(records, force=force)
    lines = [
        (row, runs[0] if len(runs) == 1 else _typical(runs))
        for row, (_, runs) in zip(rows, rows_with_runs(records), strict=True)
        if row.seconds is not None
    ]
    exchanges = [run.exchange for _, run in lines if run.exchange is not None]
    samples = any(exchange.sampling_rounds for exchange in exchanges)
    columns = [*_TIMED_COLUMNS, *(_parts(samples) if exchanges else [])]
    columns += settings_column(
        lines, lambda line: line[0].settings, lambda line: line[0].dataset, precision=True
    )
    meaning = (
        *_COMMUNICATION_MEANING,
        *(_OF_PARTS if exchanges else ()),
        *(_OF_TOPOLOGY if samples else ()),
    )
    return Table.of(lines, columns, (*meaning, *notes, *left_out(records)))


def _typical(runs: Sequence[RunRecord]) -> RunRecord:
    """Return the run whose exchange took the median of seconds; the first, if none had one."""
    ended = [run for run in runs if run.status == "ok"] or list(runs)
    seconds = [run.exchange.seconds if run.exchange else 0.0 for run in ended]
    return ended[seconds.index(statistics.median_low(seconds))]


def _exchange_share(line: Timed, seconds: Callable[[ExchangeRecord], float]) -> float | None:
    """Return a part of the exchange as a share of the training."""
    exchange, training = line[1].exchange, line[1].training_seconds
    return None if exchange is None or not training else seconds(exchange) / training


_TIMED_COLUMNS: list[Column[Timed]] = [
    Column("dataset", "dataset", lambda line: line[0].dataset),
    Column("strategy", "strategy", lambda line: line[0].strategy),
    Column("workers", "workers", lambda line: line[0].ranks),
    Column("targets/s", "targets_per_second", lambda line: line[0].targets_per_second, middle_text),
    Column("speed-up", None, lambda line: _speedup(line[0].over_own, line[0].own_mark)),
    Column(None, "speedup_own", lambda line: middle(line[0].over_own)),
    Column("over single", None, lambda line: _speedup(line[0].over_single, line[0].speedup_mark)),
    Column(None, "speedup_single", lambda line: line[0].speedup),
    Column("allreduce", "allreduce_share", lambda line: line[0].communicate_share, percent),
    Column(None, "exchange_share", lambda line: _exchange_share(line, lambda one: one.seconds)),
]


def _speedup(spread: Any, mark: str) -> str:
    return ratio_text(spread) + mark


def _parts(samples: bool) -> list[Column[Timed]]:
    """Return the columns of what runs on parts exchanged; `samples`: show the adjacency's too."""

    def column(
        heading: str | None,
        name: str | None,
        value: Callable[[ExchangeRecord, Row], Any],
        form: Callable[[Any], str] = str,
    ) -> Column[Timed]:
        return Column(
            heading,
            name,
            lambda line: None if line[1].exchange is None else value(line[1].exchange, line[0]),
            lambda found: NOTHING if found is None else form(found),
        )

    def a_step(count: float, one: ExchangeRecord, row: Row) -> float:
        return count / max(1, one.steps) / row.ranks

    def mib(value: float) -> str:
        return three_digits(value / MIB)

    sampling = ("sampling MiB", "sampling") if samples else (None, None)
    return [
        column("parts", "parts", lambda one, _: one.parts),
        column(
            "rows",
            "remote_share",
            lambda one, _: one.remote_rows / one.input_rows if one.input_rows else None,
            percent,
        ),
        column("hits", "hit_rate", lambda one, _: one.hit_rate, percent),
        column("MiB", "bytes_per_step", lambda one, row: a_step(one.bytes_sent, one, row), mib),
        Column(
            "exchange", None, lambda line: _exchange_share(line, lambda one: one.seconds), percent
        ),
        column(None, "rounds_per_step", lambda one, _: one.rounds / max(1, one.steps)),
        column(
            sampling[0],
            "sampling_bytes_per_step",
            lambda one, row: a_step(one.sampling_bytes, one, row),
            mib,
        ),
        Column(
            sampling[1],
            "sampling_share",
            lambda line: _exchange_share(line, lambda one: one.sampling_seconds),
            percent,
        ),
        column(
            None, "sampling_rounds_per_step", lambda one, _: one.sampling_rounds / max(1, one.steps)
        ),
    ]
