"""Communication overhead: throughput, speed-up and what the workers send each other."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from gnn_core.measure.run_record import ExchangeRecord, RunRecord
from gnn_core.number_text import NOTHING, percent, three_digits
from gnn_core.report.rows import Row, rows_with_runs, summarize
from gnn_core.report.table import (
    MIB,
    Column,
    Table,
    left_out,
    middle,
    middle_text,
    ratio_text,
    settings_column,
)

_MEANING = (
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
Line = tuple[Row, RunRecord]


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
    columns = [*_COLUMNS, *(_parts(samples) if exchanges else [])]
    columns += settings_column(
        lines, lambda line: line[0].settings, lambda line: line[0].dataset, precision=True
    )
    meaning = (*_MEANING, *(_OF_PARTS if exchanges else ()), *(_OF_TOPOLOGY if samples else ()))
    return Table.of(lines, columns, (*meaning, *notes, *left_out(records)))


def _typical(runs: Sequence[RunRecord]) -> RunRecord:
    """Return the run whose exchange took the median of seconds; the first, if none had one."""
    ended = [run for run in runs if run.status == "ok"] or list(runs)
    seconds = [run.exchange.seconds if run.exchange else 0.0 for run in ended]
    return ended[seconds.index(statistics.median_low(seconds))]


def _share(line: Line, seconds: Callable[[ExchangeRecord], float]) -> float | None:
    """Return a part of the exchange as a share of the training."""
    run = line[1]
    known = run.exchange is not None and run.training_seconds
    return seconds(run.exchange) / run.training_seconds if known else None  # type: ignore


_COLUMNS: list[Column[Line]] = [
    Column("dataset", "dataset", lambda line: line[0].dataset),
    Column("strategy", "strategy", lambda line: line[0].strategy),
    Column("workers", "workers", lambda line: line[0].ranks),
    Column("targets/s", "targets_per_second", lambda line: line[0].targets_per_second, middle_text),
    Column("speed-up", None, lambda line: _speedup(line[0].over_own, line[0].own_mark)),
    Column(None, "speedup_own", lambda line: middle(line[0].over_own)),
    Column("over single", None, lambda line: _speedup(line[0].over_single, line[0].speedup_mark)),
    Column(None, "speedup_single", lambda line: line[0].speedup),
    Column("allreduce", "allreduce_share", lambda line: line[0].communicate_share, percent),
    Column(None, "exchange_share", lambda line: _share(line, lambda one: one.seconds)),
]


def _speedup(spread: Any, mark: str) -> str:
    return ratio_text(spread) + mark


def _parts(samples: bool) -> list[Column[Line]]:
    """Return the columns of what runs on parts exchanged; `samples`: show the adjacency's too."""

    def column(
        heading: str | None,
        name: str | None,
        value: Callable[[ExchangeRecord, Row], Any],
        form: Callable[[Any], str] = str,
    ) -> Column[Line]:
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
        Column("exchange", None, lambda line: _share(line, lambda one: one.seconds), percent),
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
            lambda line: _share(line, lambda one: one.sampling_seconds),
            percent,
        ),
        column(
            None, "sampling_rounds_per_step", lambda one, _: one.sampling_rounds / max(1, one.steps)
        ),
    ]
