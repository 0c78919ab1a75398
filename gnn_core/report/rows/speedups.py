"""Rows -> rows with their speed-ups: T(1) / T(n), larger is faster.

A speed-up stands only between runs of one data set, one set of loss-relevant settings (the global
batch among them: this is strong scaling) and one kind of machine. There are two of them: against
`single`, which is what distribution has to beat, and against the strategy itself on one rank, which
tells how it scales.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from gnn_core.measure.run_record import RunRecord
from gnn_core.report.rows.scores import Spread
from gnn_core.report.rows.summary import (
    ACCURACY_TOLERANCE,
    TRAINING_LENGTH,
    Row,
    rows_of,
    settings_text,
)


def summarize(records: Iterable[RunRecord], *, force: bool = False) -> tuple[list[Row], list[str]]:
    """Return the rows made from the records, and one note per comparison that was not made.

    `force` compares with a run on another kind of machine when there is none on the same.
    """
    rows = rows_of(records)
    compared = [_compared(row, rows, force) for row in rows]
    notes = list(dict.fromkeys(note for _, note in compared if note))
    return [row for row, _ in compared], notes


def ratio(above: Spread, below: Spread) -> Spread:
    """Return above / below: of the medians, and least and most over all pairs of repeats.

    Repeats are not paired in time: each might have met each, and the spread is the widest.
    """
    return Spread(
        above.middle / below.middle,
        above.low / below.high,
        above.high / below.low,
        above.count * below.count,
    )


def same_machine(row: Row, others: Sequence[Row], force: bool) -> tuple[Sequence[Row], str]:
    """Return the rows that may be compared with `row`, and the mark of such a comparison.

    Those of its kind of machine; without any, none, or if forced all of them, marked `?`.
    """
    here = [other for other in others if other.machine == row.machine]
    if here or not force:
        return here, ""
    return others, "?"


def accuracy_mark(row: Row, base: Row) -> str:
    """Return `!` when the test score is unknown or lower than the base's by more than a point."""
    if row is base:
        return ""
    if row.accuracy is None or base.accuracy is None:
        return "!"
    return "!" * (row.accuracy.middle < base.accuracy.middle - ACCURACY_TOLERANCE)


def _compared(row: Row, rows: Sequence[Row], force: bool) -> tuple[Row, str | None]:
    """Return the row with its speed-ups, or with the note that says why it has none."""
    if row.seconds is None or row.seconds.low <= 0:
        return row, None
    timed = [other for other in rows if other.seconds is not None and other.seconds.low > 0]
    over_own, own_mark = _over_own(row, timed, force)
    own = dataclasses.replace(row, over_own=over_own, own_mark=own_mark)
    singles = [other for other in timed if other.strategy == "single" and other.work == row.work]
    what = f"{row.strategy} on {row.dataset} at {row.ranks} rank{'s'[: row.ranks > 1]}"
    if not singles:
        return own, f"no speed-up for {what}: no `single` run with the same settings"
    allowed, mark = same_machine(row, singles, force)
    if not allowed:
        return own, (
            f"no speed-up for {what}: its `single` runs are of another machine "
            f"({singles[0].machine}); --force compares them all the same"
        )
    base = _fairest(row, allowed)
    over_single = _times_as_fast(row, base)
    mark += accuracy_mark(row, base)
    return dataclasses.replace(own, over_single=over_single, speedup_mark=mark), None


def _over_own(row: Row, timed: Sequence[Row], force: bool) -> tuple[Spread | None, str]:
    """Return the speed-up over the same strategy, equally set, on one rank, and its mark."""
    alone = [
        other
        for other in timed
        if (other.strategy, other.ranks, other.work) == (row.strategy, 1, row.work)
        and settings_text(other.settings) == settings_text(row.settings)
    ]
    allowed, mark = same_machine(row, alone, force)
    if not allowed:
        return None, ""
    return _times_as_fast(row, allowed[0]), mark + accuracy_mark(row, allowed[0])


def _times_as_fast(row: Row, base: Row) -> Spread:
    assert row.seconds is not None and base.seconds is not None  # chosen for having them
    if row is base:
        return Spread(1.0, 1.0, 1.0, 1)  # a run beside itself has no spread
    return ratio(base.seconds, row.seconds)


def _fairest(row: Row, singles: Sequence[Row]) -> Row:
    """Return what to be compared with: trained as long, if there is such a run, and the fastest.

    A single process with another number of threads is still a single process: a speed-up over the
    slower of two would flatter.
    """

    def length(one: Row) -> str:
        return settings_text({name: one.settings.get(name) for name in TRAINING_LENGTH})

    as_long = [single for single in singles if length(single) == length(row)]
    return min(as_long or singles, key=lambda single: single.seconds.middle)  # type: ignore[union-attr]
