"""Communication overhead: throughput, speed-up and what the workers send each other."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import pandas as pd

from gnn_core.measure.run_record import ExchangeRecord, RunRecord
from gnn_core.number_text import NOTHING, percent, three_digits
from gnn_core.report.rows.scores import Spread
from gnn_core.report.rows.speedups import summarize
from gnn_core.report.rows.summary import Row, rows_with_runs
from gnn_core.report.tables.cells import Table, differing_settings, left_out
from gnn_core.report.tables.verdicts import ratio_text

MIB = 2**20
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


def communication_table(records: Sequence[RunRecord], *, force: bool = False) -> Table:
    """Return one line per strategy, number of workers and settings, of the runs that were timed."""
    rows, notes = summarize(records, force=force)
    lines = [
        (row, runs[0] if len(runs) == 1 else _typical(runs))
        for row, (_, runs) in zip(rows, rows_with_runs(records), strict=True)
        if row.seconds is not None
    ]
    has_parts = any(run.exchange is not None for _, run in lines)
    samples = any(run.exchange is not None and run.exchange.sampling_rounds for _, run in lines)
    differing = differing_settings(
        [row.settings for row, _ in lines], [row.dataset for row, _ in lines], precision=True
    )
    columns = _COLUMNS | (_PARTS if has_parts else {}) | (_TOPOLOGY if samples else {})
    return Table(
        headings=(*columns, *(["settings"] if any(differing) else [])),
        cells=tuple(
            (
                *(cell(row, run) for cell in columns.values()),
                *([text or NOTHING] if any(differing) else []),
            )
            for (row, run), text in zip(lines, differing, strict=True)
        ),
        notes=(
            *_MEANING,
            *(_OF_PARTS if has_parts else ()),
            *(_OF_TOPOLOGY if samples else ()),
            *notes,
            *left_out(records),
        ),
        numbers=pd.DataFrame([_numbers(row, run) for row, run in lines]),
    )


def _typical(runs: Sequence[RunRecord]) -> RunRecord:
    """Return the run whose exchange took the median of seconds; the first, if none had one."""
    ended = [run for run in runs if run.status == "ok"] or list(runs)
    seconds = [run.exchange.seconds if run.exchange else 0.0 for run in ended]
    return ended[seconds.index(statistics.median_low(seconds))]


def _numbers(row: Row, run: RunRecord) -> dict[str, float | int | str | None]:
    found: dict[str, float | int | str | None] = {
        "dataset": row.dataset,
        "strategy": row.strategy,
        "workers": row.ranks,
        "targets_per_second": _middle(row.targets_per_second),
        "speedup_own": _middle(row.over_own),
        "speedup_single": row.speedup,
        "allreduce_share": row.communicate_share,
        "exchange_share": _exchange_share(run),
    }
    if (exchange := run.exchange) is not None:
        found |= {
            "parts": exchange.parts,
            "remote_share": _remote_share(exchange),
            "hit_rate": exchange.hit_rate,
            "bytes_per_step": _bytes_per_step(row, exchange),
            "rounds_per_step": exchange.rounds / max(1, exchange.steps),
            "sampling_bytes_per_step": _sampling_bytes_per_step(row, exchange),
            "sampling_share": _share_of_training(run, exchange.sampling_seconds),
            "sampling_rounds_per_step": exchange.sampling_rounds / max(1, exchange.steps),
        }
    return found


def _middle(spread: Spread | None) -> float | None:
    return None if spread is None else spread.middle


def _remote_share(exchange: ExchangeRecord) -> float | None:
    return exchange.remote_rows / exchange.input_rows if exchange.input_rows else None


def _bytes_per_step(row: Row, exchange: ExchangeRecord) -> float:
    return exchange.bytes_sent / max(1, exchange.steps) / row.ranks


def _sampling_bytes_per_step(row: Row, exchange: ExchangeRecord) -> float:
    return exchange.sampling_bytes / max(1, exchange.steps) / row.ranks


def _exchange_share(run: RunRecord) -> float | None:
    return None if run.exchange is None else _share_of_training(run, run.exchange.seconds)


def _share_of_training(run: RunRecord, seconds: float) -> float | None:
    return seconds / run.training_seconds if run.training_seconds else None


def _if_parts(cell: Callable[[Row, ExchangeRecord], str]) -> Callable[[Row, RunRecord], str]:
    return lambda row, run: NOTHING if run.exchange is None else cell(row, run.exchange)


_COLUMNS: dict[str, Callable[[Row, RunRecord], str]] = {
    "dataset": lambda row, run: row.dataset,
    "strategy": lambda row, run: row.strategy,
    "workers": lambda row, run: str(row.ranks),
    "targets/s": lambda row, run: three_digits(_middle(row.targets_per_second)),
    "speed-up": lambda row, run: (
        (ratio_text(row.over_own) if row.over_own else NOTHING) + row.own_mark
    ),
    "over single": lambda row, run: (
        (ratio_text(row.over_single) if row.over_single else NOTHING) + row.speedup_mark
    ),
    "allreduce": lambda row, run: percent(row.communicate_share),
}
_PARTS: dict[str, Callable[[Row, RunRecord], str]] = {
    "parts": _if_parts(lambda row, exchange: str(exchange.parts)),
    "rows": _if_parts(lambda row, exchange: percent(_remote_share(exchange))),
    "hits": _if_parts(lambda row, exchange: percent(exchange.hit_rate)),
    "MiB": _if_parts(lambda row, exchange: three_digits(_bytes_per_step(row, exchange) / MIB)),
    "exchange": lambda row, run: percent(_exchange_share(run)),
}
_TOPOLOGY: dict[str, Callable[[Row, RunRecord], str]] = {
    "sampling MiB": _if_parts(
        lambda row, exchange: three_digits(_sampling_bytes_per_step(row, exchange) / MIB)
    ),
    "sampling": lambda row, run: (
        NOTHING
        if run.exchange is None
        else percent(_share_of_training(run, run.exchange.sampling_seconds))
    ),
}
