"""Strategies that took turns on one graph: seconds, two speed-ups, memory; and the short table."""

from __future__ import annotations

from collections.abc import Sequence

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted
from gnn_core.report.rounds import Comparison, Contender, comparisons
from gnn_core.report.rows import Row, Spread
from gnn_core.report.sentences import distinguishing_settings, verdicts
from gnn_core.report.table import (
    Column,
    Table,
    crowded_note,
    distinguishing_columns,
    gib_text,
    middle_text,
    ratio_text,
    row_columns,
    score_columns,
)

_MEANING = (
    "s/epoch: median over epochs after the warm-up, then over rounds; min..max: over rounds",
    "speed-ups are ratios of two runs of one round, then median (least..most) over rounds; larger "
    "is faster; x own: against one process of the same framework (`single` of torch, `one` of "
    "Keras); x fastest: against the fastest of one rank",
    "GiB; PSS: of all processes together at the end of a run, shared pages counted once; peak RSS: "
    "of the largest process",
)
_OVERVIEW_MEANING = (
    "speed-up: against one process of the same framework (`single`: PyTorch, `one`: Keras); GiB: "
    "memory of all processes together (PSS)"
)
Line = tuple[Comparison, Contender]


def side_by_side_table(records: Sequence[RunRecord]) -> Table:
    """Return one line per strategy and ranks, and below them what they say in sentences."""
    contests = comparisons(records)
    lines = [(contest, one) for contest in contests for one in contest.contenders]
    distinguishing, machines = distinguishing_columns(lines, _row, precision=True)
    names = dict(zip(map(id, contests), distinguishing_settings(contests), strict=True))
    columns: list[Column[Line]] = [
        *row_columns(_row, "who crowded"),
        Column(None, "rounds", lambda line: line[0].rounds),
        *row_columns(_row, "runs seconds"),
        Column("x own", None, lambda line: _ratio(line[1], line[0].own_single(line[1]))),
        Column(None, "speedup_own", lambda line: _over_own(line), spread=True),
        Column("x fastest", None, lambda line: _ratio(line[1], line[0].fastest_single)),
        Column(
            None,
            "speedup_fastest",
            lambda line: line[1].times_as_fast(line[0].fastest_single),
            spread=True,
        ),
        *row_columns(_row, "communicate"),
        *score_columns(lines, _row),
        Column("PSS", "pss_bytes", lambda line: line[1].pss, gib_text),
        Column("peak RSS", "peak_rss_bytes", lambda line: line[1].peak_rss, gib_text),
        *row_columns(_row, "not_ok machine"),
        *distinguishing,
    ]
    said = [
        ", ".join(filter(None, (contest.dataset, names[id(contest)]))) + f": {sentence}"
        for contest in contests
        for sentence in verdicts(contest)
    ]
    return Table.of(lines, columns, (*said, *_MEANING, *crowded_note(map(_row, lines)), *machines))


def overview_table(records: Sequence[RunRecord]) -> Table:
    """Return one line per strategy, at the most ranks that had a core each.

    Of several comparisons it is the one whose single process takes longest for an epoch: there, a
    step has enough work to divide.
    """
    contest = max(comparisons(records), key=_single_seconds, default=None)
    timed = contest.timed if contest else []  # in order of strategy, then of ranks
    widest = {one.row.strategy: one for one in timed if not one.row.crowded}
    lines = [(contest, one) for one in widest.values() if contest]
    columns: list[Column[Line]] = [
        Column("strategy", "strategy", lambda line: _row(line).strategy),
        Column("ranks", "ranks", lambda line: _row(line).ranks),
        Column("s/epoch", "seconds_per_epoch", lambda line: _row(line).seconds, middle_text),
        Column("speed-up", None, lambda line: _ratio(line[1], line[0].own_single(line[1]))),
        Column(None, "speedup_own", lambda line: _over_own(line)),
        *score_columns(lines, _row),
        Column("GiB", "pss_bytes", lambda line: line[1].pss, gib_text),
    ]
    if contest is None:
        return Table.of(lines, columns)
    where = f"data set {contest.dataset}, {counted(contest.rounds, 'round')}"
    return Table.of(lines, columns, (f"{where}; machine: {contest.machine}", _OVERVIEW_MEANING))


def _row(line: Line) -> Row:
    return line[1].row


def _over_own(line: Line) -> Spread | None:
    return line[1].times_as_fast(line[0].own_single(line[1]))


def _ratio(one: Contender, base: Contender | None) -> str:
    # A run beside itself has no spread.
    return "1.00" if one is base else ratio_text(one.times_as_fast(base))


def _single_seconds(contest: Comparison) -> float:
    base = contest.fastest_single
    return base.row.seconds.middle if base and base.row.seconds else 0.0
