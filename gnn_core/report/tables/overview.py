"""The short table of the README: each strategy once, on the graph where an epoch takes longest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import NOTHING, counted, three_digits
from gnn_core.report.rows.rounds import Comparison, Contender, comparisons
from gnn_core.report.tables.cells import Table
from gnn_core.report.tables.footprint import GIB
from gnn_core.report.tables.speed import score_heading, score_text
from gnn_core.report.tables.verdicts import ratio_text


def overview_table(records: Sequence[RunRecord]) -> Table:
    """Return one line per strategy, at the most ranks that had a core each.

    Of several comparisons it is the one whose single process takes longest for an epoch: there, a
    step has enough work to divide.
    """
    contests = comparisons(records)
    contest = max(contests, key=_single_seconds, default=None)
    lines = _widest(contest) if contest else []
    headings = ("strategy", "ranks", "s/epoch", "speed-up")
    score = score_heading(one.row.score_name for one in lines)
    return Table(
        headings=(*headings, score, "GiB"),
        cells=tuple(_cells(contest, one) for one in lines) if contest else (),
        notes=_notes(contest) if contest else (),
        numbers=pd.DataFrame([_numbers(contest, one) for one in lines] if contest else []),
    )


def _single_seconds(contest: Comparison) -> float:
    base = contest.fastest_single
    return base.row.seconds.middle if base and base.row.seconds else 0.0


def _widest(contest: Comparison) -> list[Contender]:
    """Return for each strategy, in order, the contender of most ranks that share no core."""
    widest = {one.row.strategy: one for one in contest.timed if not one.row.crowded}
    return list(widest.values())  # contenders are in order of strategy, then of ranks


def _cells(contest: Comparison, one: Contender) -> tuple[str, ...]:
    row, base = one.row, contest.own_single(one)
    ratio = one.times_as_fast(base) if base else None
    return (
        row.strategy,
        str(row.ranks),
        three_digits(row.seconds.middle if row.seconds else None),
        "1.00" if one is base else ratio_text(ratio) if ratio else NOTHING,
        score_text(row.accuracy, row.score_name),
        three_digits(None if one.pss is None else one.pss / GIB),
    )


def _numbers(contest: Comparison, one: Contender) -> dict[str, Any]:
    row, base = one.row, contest.own_single(one)
    ratio = one.times_as_fast(base) if base else None
    return {
        "strategy": row.strategy,
        "ranks": row.ranks,
        "seconds_per_epoch": row.seconds and row.seconds.middle,
        "speedup_own": ratio and ratio.middle,
        f"test_{row.score_name}": row.accuracy and row.accuracy.middle,
        "pss_bytes": one.pss,
    }


def _notes(contest: Comparison) -> tuple[str, ...]:
    return (
        f"data set {contest.dataset}, {counted(contest.rounds, 'round')}; machine: "
        f"{contest.machine}",
        "speed-up: against one process of the same framework (`single`: PyTorch, `one`: Keras); "
        "GiB: memory of all processes together (PSS)",
    )
