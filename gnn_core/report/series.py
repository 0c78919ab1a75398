"""Rows -> series of growing ranks: strong scaling apart from weak scaling.

Strong: the work stays, the ranks grow (equal global batch). Weak: the work of a rank stays (equal
`global_batch_size / world_size`), so that the global batch grows with the ranks. All other settings
are equal in a series, and so are graph, machine, strategy, and whether one host holds all ranks. A
row of one rank can begin both. A row of several ranks can stand in one of each where a whole grid
of batches was measured, but no series ever holds rows of both kinds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from gnn_core.report.rows import Row, same_machine, settings_text
from gnn_core.strategies import STRATEGIES

_LAUNCH = ("controller", "pin")  # what a launched strategy has and one process has not


@dataclass(frozen=True)
class Series:
    """Rows of one strategy that differ in their ranks (weak: and in the global batch with them)."""

    rows: tuple[Row, ...]  # ascending ranks
    base: Row | None  # of one rank: of the strategy itself, else of its framework's one process
    base_mark: str = ""  # "?": the base ran on another machine

    @property
    def line(self) -> tuple[Row, ...]:
        """The rows, and before them the base where it is the strategy's own."""
        own = self.base is not None and self.base.strategy == self.rows[0].strategy
        if self.base is None or self.base is self.rows[0] or not own:
            return self.rows
        return (self.base, *self.rows)


@dataclass(frozen=True)
class Scaling:
    """The series that some rows make up."""

    strong: tuple[Series, ...]
    weak: tuple[Series, ...]


def scaling_series(rows: Sequence[Row], *, force: bool = False) -> Scaling:
    """Sort rows into strong and weak series, in the order of the rows.

    A series has at least two numbers of ranks, its base or the `single` of its speed-up among
    them. A row without seconds or without a global batch is in no series. `force` takes a base of
    another kind of machine when there is none on the same.
    """
    timed = [row for row in rows if row.seconds is not None and _batch(row) is not None]
    return Scaling(*(tuple(_series(timed, weak, force)) for weak in (False, True)))


def local_batch_size(row: Row) -> Fraction | None:
    """Return the targets per step and rank; a fraction, since ranks may share a step unevenly."""
    batch = _batch(row)
    return None if batch is None else Fraction(batch, row.ranks)


def _series(rows: Sequence[Row], weak: bool, force: bool) -> Iterable[Series]:
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        spread_out = len(row.ranks_per_host) > 1  # what a network adds is no matter of ranks
        key = (row.strategy, row.machine, spread_out, _alike(row, weak, launched=True))
        groups.setdefault(key, []).append(row)
    for group in groups.values():
        ascending = sorted(group, key=lambda row: (row.ranks, row.ranks_per_host))
        base, mark = _base(ascending[0], rows, weak, force)
        counts = {row.ranks for row in ascending} | ({base.ranks} if base else set())
        # A speed-up over a `single` of another framework, or with more threads, is strong scaling.
        strong = not weak and any(row.over_single for row in ascending)
        if len(counts) > 1 or (strong and ascending[-1].ranks > 1):
            yield Series(tuple(ascending), base, mark)


def _base(first: Row, rows: Sequence[Row], weak: bool, force: bool) -> tuple[Row | None, str]:
    """Return the run of one rank that a series begins with, and the mark of a foreign machine."""
    if first.ranks == 1:
        return first, ""
    for strategy in dict.fromkeys((first.strategy, STRATEGIES[first.strategy].single)):
        own = strategy == first.strategy
        alone = [row for row in rows if (row.strategy, row.ranks) == (strategy, 1)]
        alone = [row for row in alone if _alike(row, weak, own) == _alike(first, weak, own)]
        allowed, mark = same_machine(first, alone, force)
        if allowed:
            return allowed[0], mark
    return None, ""


def _alike(row: Row, weak: bool, launched: bool) -> Hashable:
    """Return what the rows of a series have in common; `launched`: settings of launchers too."""
    apart = ("global_batch_size", *(() if launched else _LAUNCH))
    settings = {name: value for name, value in row.settings.items() if name not in apart}
    batch = local_batch_size(row) if weak else _batch(row)
    return row.dataset, row.fingerprint, settings_text(settings), batch


def _batch(row: Row) -> int | None:
    value: Any = row.settings.get("global_batch_size")
    return value if isinstance(value, int) and value > 0 else None
