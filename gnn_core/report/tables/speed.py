"""The two tables of results: seconds and speed-up, and test accuracy; nothing is computed here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pandas as pd

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import NOTHING, percent, three_digits
from gnn_core.report.rows.scores import Spread, accuracy_over_seeds, score_name
from gnn_core.report.rows.speedups import summarize
from gnn_core.report.rows.summary import Row, grouped, own_model, training_settings
from gnn_core.report.tables.cells import (
    Table,
    differing_settings,
    graph_mark,
    left_out,
    precision_order,
)
from gnn_core.report.tables.slowdowns import slowdown
from gnn_core.report.tables.verdicts import ratio_text
from gnn_core.strategies import STRATEGIES, order_of

TableLine = TypeVar("TableLine")  # of a table: a row, or what has one
CROWDED = "`*` more threads than cores: ranks share a core, and the time says little"
LEGEND = {
    "*": CROWDED,
    "!": "`!` test score unknown, or more than 1 point below that of the run compared with",
    "?": "`?` compared with a run on another machine",
}
_SPREAD = (
    "speed-up: T(1) / T(n) of the medians, larger is faster; least..most over all pairs of repeats"
)
_OWN = "own speed-up: against the strategy itself on 1 rank; the other one is against `single`"


def speed_table(records: Sequence[RunRecord], *, force: bool = False) -> Table:
    """Return seconds per epoch, speed-up, efficiency and accuracy by strategy and ranks."""
    rows, notes = summarize(records, force=force)
    distinguishing, machines = distinguishing_columns(rows, lambda row: row)
    columns: dict[str, Callable[[Row], str]] = {
        "dataset": lambda row: row.dataset,
        "strategy": lambda row: row.strategy,
        "ranks": ranks_text,
        "precision": lambda row: row.precision,
        "runs": lambda row: str(row.runs),
        "s/epoch": lambda row: three_digits(row.seconds.middle if row.seconds else None),
        "min..max": seconds_range_text,
        "speed-up": lambda row: _speedup(row.over_single, row.speedup_mark),
        "efficiency": lambda row: percent(row.efficiency),
        "own speed-up": lambda row: _speedup(row.over_own, row.own_mark),
        "own efficiency": lambda row: percent(row.own_efficiency),
        "communicate": lambda row: percent(row.communicate_share),
        score_heading(row.score_name for row in rows): lambda row: score_text(
            row.accuracy, row.score_name
        ),
        "not ok": not_ok_text,
        **distinguishing,
    }
    scaled = any(row.over_own and row.ranks > 1 for row in rows)
    if not scaled:  # each is 1 rank, or has none to be measured against
        del columns["own speed-up"], columns["own efficiency"]
    said = [_SPREAD] if any(row.over_single and row.over_single.count > 1 for row in rows) else []
    said += [_OWN] if scaled else []
    said += legend(rows, scaled)
    slow = dict.fromkeys(slowdown(row, row.speedup, "single", _own_base(row, rows)) for row in rows)
    return Table(
        headings=tuple(columns),
        cells=tuple(tuple(show(row) for show in columns.values()) for row in rows),
        notes=(*filter(None, slow), *said, *machines, *notes),
        numbers=pd.DataFrame([_speed_numbers(row) for row in rows]),
    )


def accuracy_table(records: Sequence[RunRecord]) -> Table:
    """Return the test accuracy by data set, strategy, ranks and precision, over seeds.

    Runs that differ in threads, launcher or machine are joined: none may change the model.
    """
    groups = grouped((run for run in records if run.status == "ok"), _training_key)
    groups.sort(key=lambda runs: _training_key(runs[0]))
    firsts = [runs[0] for runs in groups]
    differing = differing_settings(
        [
            {**training_settings(run.config), "graph": graph_mark(run.dataset.fingerprint)}
            for run in firsts
        ],
        # A model of its own has a recipe of its own, as a data set has.
        [f"{run.dataset.name} {own_model(run.config)}" for run in firsts],
    )
    named = any(own_model(run.config) for run in firsts)
    numbers = [_accuracy_numbers(runs) for runs in groups]
    heading = score_heading(map(score_name, firsts))
    identity = ("dataset", *(["model"] if named else []), "strategy", "ranks", "precision")
    cells = [
        (
            *(str(line[name]) for name in identity),
            score_text(accuracy_over_seeds(runs), score_name(runs[0])),
            str(line["seeds"]),
            str(line["runs"]),
            *([text or NOTHING] if any(differing) else []),
        )
        for runs, line, text in zip(groups, numbers, differing, strict=True)
    ]
    return Table(
        headings=(
            *(*identity, heading, "seeds", "runs"),
            *(["settings"] if any(differing) else []),
        ),
        cells=tuple(cells),
        notes=(
            f"{heading}{' in percent' * heading.endswith('accuracy')}: mean ± standard deviation "
            "over seeds",
            *left_out(records),
        ),
        numbers=pd.DataFrame(numbers),
    )


def _training_key(record: RunRecord) -> tuple[Any, ...]:
    return (
        record.dataset.name,
        precision_order(record.config.get("precision")),
        order_of(record.strategy),
        record.world_size,
        str(record.dataset.fingerprint),
        str(sorted(training_settings(record.config).items())),
    )


def _accuracy_numbers(runs: Sequence[RunRecord]) -> dict[str, Any]:
    accuracy = accuracy_over_seeds(runs)
    return {
        "dataset": runs[0].dataset.name,
        "model": own_model(runs[0].config) or "graphsage",
        "strategy": runs[0].strategy,
        "ranks": runs[0].world_size,
        "precision": str(runs[0].config.get("precision", "?")),
        f"test_{score_name(runs[0])}": accuracy and accuracy.middle,
        f"test_{score_name(runs[0])}_sd": _deviation(accuracy),
        "seeds": accuracy.count if accuracy else 0,
        "runs": len(runs),
    }


def _speed_numbers(row: Row) -> dict[str, Any]:
    return {
        "dataset": row.dataset,
        "strategy": row.strategy,
        "ranks": row.ranks,
        "ranks_per_host": "+".join(map(str, row.ranks_per_host)),
        "crowded": row.crowded,
        "precision": row.precision,
        "runs": row.runs,
        **spread_numbers("seconds_per_epoch", row.seconds),
        **spread_numbers("speedup", row.over_single),
        "speedup_mark": row.speedup_mark,
        "efficiency": row.efficiency,
        **spread_numbers("own_speedup", row.over_own),
        "own_speedup_mark": row.own_mark,
        "communicate_share": row.communicate_share,
        f"test_{row.score_name}": row.accuracy and row.accuracy.middle,
        f"test_{row.score_name}_sd": _deviation(row.accuracy),
        "seeds": row.accuracy.count if row.accuracy else 0,
        "failed": row.failed,
        "interrupted": row.interrupted,
        "machine": row.machine,
        "settings": json.dumps(row.settings, sort_keys=True),
    }


def ranks_text(row: Row) -> str:
    """Return the ranks, by host where there are several, starred where they share cores."""
    hosts = f" ({'+'.join(map(str, row.ranks_per_host))})" if len(row.ranks_per_host) > 1 else ""
    return f"{row.ranks}{hosts}{'*' if row.crowded else ''}"


def seconds_range_text(row: Row) -> str:
    """Return the least and most seconds of an epoch over runs."""
    if row.seconds is None or row.seconds.count < 2:
        return NOTHING
    return f"{three_digits(row.seconds.low)}..{three_digits(row.seconds.high)}"


def _own_base(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the one process of the row's framework that did the same work, but for `single`."""
    own = STRATEGIES[row.strategy].single
    alike = (row.work, row.machine)
    found = [one for one in rows if one.strategy == own and (one.work, one.machine) == alike]
    return found[0] if found and own != "single" else None


def _speedup(spread: Spread | None, mark: str) -> str:
    return NOTHING if spread is None else f"{ratio_text(spread)}{mark}"


def distinguishing_columns(
    lines: Sequence[TableLine],
    row_of: Callable[[TableLine], Row],
    but: str | None = None,
    *,
    precision: bool = False,
) -> tuple[dict[str, Callable[[TableLine], str]], list[str]]:
    """Return the columns that tell lines apart, where they are needed, and notes on the machines.

    Settings, and the graph, stand in one where they differ, except the one (`but`) that has a
    column already, and the precision unless it has none (`precision`); machines in the other, by
    numbers.
    """
    rows = [row_of(line) for line in lines]
    differing = differing_settings(
        [
            {name: value for name, value in row.settings.items() if name != but}
            | {"graph": graph_mark(row.fingerprint)}
            for row in rows
        ],
        [row.dataset for row in rows],
        precision=precision,
    )
    texts = {id(line): text for line, text in zip(lines, differing, strict=True)}
    machines = list(dict.fromkeys(row.machine for row in rows))
    columns: dict[str, Callable[[TableLine], str]] = {}
    if any(differing):
        columns["settings"] = lambda line: texts[id(line)] or NOTHING
    if len(machines) > 1:
        columns["machine"] = lambda line: f"M{machines.index(row_of(line).machine) + 1}"
    return columns, machine_notes(machines)


def legend(rows: Iterable[Row], scaled: bool = False) -> list[str]:
    """Return what the marks in a table mean, of those that are in it."""
    marks = "".join(row.speedup_mark + row.own_mark * scaled + "*" * row.crowded for row in rows)
    return [text for mark, text in LEGEND.items() if mark in marks]


def machine_notes(machines: Sequence[str]) -> list[str]:
    """Return the machine, or the machines by the numbers that their column has."""
    if len(machines) == 1:
        return [f"machine: {machines[0]}"]
    return [f"machine M{number}: {kind}" for number, kind in enumerate(machines, start=1)]


def spread_numbers(name: str, spread: Spread | None) -> dict[str, float | None]:
    """Return middle, least and most as columns of a CSV file; None where nothing is known."""
    return {
        name: None if spread is None else spread.middle,
        f"{name}_min": None if spread is None else spread.low,
        f"{name}_max": None if spread is None else spread.high,
    }


_SCORES = {"accuracy": "test accuracy", "mrr": "test MRR"}


def score_heading(names: Iterable[str]) -> str:
    """Return the heading of a column of scores: of what its rows have."""
    found = set(names)
    return ", ".join(title for name, title in _SCORES.items() if name in found) or "test accuracy"


def score_text(spread: Spread | None, name: str) -> str:
    """Return an accuracy in percent, or an MRR, with its deviation where it has one."""
    if spread is None:
        return NOTHING
    unit, digits = (100, 2) if name == "accuracy" else (1, 4)
    deviation = unit * (spread.high - spread.middle)
    more = f" ± {deviation:.{digits}f}" if spread.count > 1 else ""
    return f"{unit * spread.middle:.{digits}f}{more}"


def _deviation(spread: Spread | None) -> float | None:
    return spread.high - spread.middle if spread is not None and spread.count > 1 else None


def not_ok_text(row: Row) -> str:
    """Return how many runs failed or were stopped."""
    counts = ((row.failed, "failed"), (row.interrupted, "interrupted"))
    return ", ".join(f"{count} {word}" for count, word in counts if count) or NOTHING
