"""The two tables of results: seconds and speed-up, and test accuracy; nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import percent
from gnn_core.report.rows import (
    Row,
    grouped,
    own_model,
    row_of,
    settings_text,
    summarize,
    training_settings,
)
from gnn_core.report.sentences import slowdown
from gnn_core.report.table import (
    Column,
    Table,
    distinguishing_columns,
    graph_mark,
    identity_columns,
    left_out,
    legend,
    middle_text,
    not_ok_columns,
    precision_order,
    range_text,
    ratio_text,
    score_columns,
    settings_column,
)
from gnn_core.strategies import STRATEGIES, order_of

_SPREAD = (
    "speed-up: T(1) / T(n) of the medians, larger is faster; least..most over all pairs of repeats"
)
_OWN = "own speed-up: against the strategy itself on 1 rank; the other one is against `single`"


def speed_table(records: Sequence[RunRecord], *, force: bool = False) -> Table:
    """Return seconds per epoch, speed-up, efficiency and accuracy by strategy and ranks."""
    rows, notes = summarize(records, force=force)
    distinguishing, machines = distinguishing_columns(rows, lambda row: row)
    scaled = any(row.over_own and row.ranks > 1 for row in rows)
    own = "own speed-up", "own efficiency"
    if not scaled:  # each is 1 rank, or has none to be measured against
        own = None, None  # type: ignore[assignment]
    columns: list[Column[Row]] = [
        *identity_columns(lambda row: row),
        Column(None, "ranks_per_host", lambda row: "+".join(map(str, row.ranks_per_host))),
        Column(None, "crowded", lambda row: row.crowded),
        Column("precision", "precision", lambda row: row.precision),
        Column("runs", "runs", lambda row: row.runs),
        Column("s/epoch", "seconds_per_epoch", lambda row: row.seconds, middle_text, spread=True),
        Column("min..max", None, lambda row: range_text(row.seconds)),
        Column("speed-up", None, lambda row: ratio_text(row.over_single, row.speedup_mark)),
        Column(None, "speedup", lambda row: row.over_single, spread=True),
        Column(None, "speedup_mark", lambda row: row.speedup_mark),
        Column("efficiency", "efficiency", lambda row: row.efficiency, percent),
        Column(own[0], None, lambda row: ratio_text(row.over_own, row.own_mark)),
        Column(None, "own_speedup", lambda row: row.over_own, spread=True),
        Column(None, "own_speedup_mark", lambda row: row.own_mark),
        Column(own[1], None, lambda row: row.own_efficiency, percent),
        Column("communicate", "communicate_share", lambda row: row.communicate_share, percent),
        *score_columns(rows, lambda row: row, deviation=True),
        Column(None, "seeds", lambda row: row.accuracy.count if row.accuracy else 0),
        *not_ok_columns(lambda row: row),
        Column(None, "machine", lambda row: row.machine),
        Column(None, "settings", lambda row: settings_text(row.settings)),
        *distinguishing,
    ]
    said = [_SPREAD] if any(row.over_single and row.over_single.count > 1 for row in rows) else []
    said += [_OWN] if scaled else []
    said += legend(rows, scaled)
    slow = dict.fromkeys(slowdown(row, row.speedup, "single", _own_base(row, rows)) for row in rows)
    return Table.of(rows, columns, (*filter(None, slow), *said, *machines, *notes))


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
