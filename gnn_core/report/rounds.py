"""Run records -> comparisons: contenders that took turns, set against each other by round.

A machine that other programs slow down slows down neighbours in time alike. So a ratio is taken
between two runs of one round, and only the ratios of all rounds are joined. Rounds are not written
down anywhere: one ends where a contender comes again, or where nothing ran for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gnn_core.measure.run_record import RunRecord, epoch_seconds
from gnn_core.report.rows import Row, Spread, grouped, machine_kind, row_of, settings_of
from gnn_core.report.rows import settings_text as text_of
from gnn_core.strategies import STRATEGIES, order_of

_PAUSE_SECONDS = 600.0  # runs further apart than that are no neighbours in time


@dataclass(frozen=True)
class Contender:
    """All runs of one strategy at one number of ranks in one comparison."""

    row: Row
    by_round: Mapping[int, float]  # round -> seconds per epoch of its run that ended well
    pss: int | None  # bytes of all processes together at the end: median over runs
    peak_rss: int | None  # bytes of the process that took most: largest over runs

    @property
    def name(self) -> str:
        """Strategy and ranks, starred where they outnumber the cores."""
        ranks = self.row.ranks
        star = "*" if self.row.crowded else ""
        return f"`{self.row.strategy}` at {ranks} rank{'s'[: ranks != 1]}{star}"

    def times_as_fast(self, other: Contender | None) -> Spread | None:
        """Return how many times as fast as `other` in the rounds that have both; None without."""
        theirs = other.by_round if other is not None else {}
        both = sorted(self.by_round.keys() & theirs.keys())
        return Spread.of(theirs[at] / self.by_round[at] for at in both if self.by_round[at] > 0)


@dataclass(frozen=True)
class Comparison:
    """Contenders of one graph, one machine and one set of settings, and how often they met."""

    dataset: str
    typed_dataset: str  # value of --dataset: a name, or a folder
    machine: str
    settings: Mapping[str, Any]
    contenders: tuple[Contender, ...]  # by strategy, then by ranks
    rounds: int

    @property
    def timed(self) -> list[Contender]:
        """Those whose seconds are known."""
        return [contender for contender in self.contenders if contender.row.seconds is not None]

    def own_single(self, contender: Contender) -> Contender | None:
        """Return the one process of the same framework."""
        return self.one_process(STRATEGIES[contender.row.strategy].single)

    def one_process(self, strategy: str) -> Contender | None:
        """Return the contender of a strategy on one rank whose seconds are known, if there is."""
        found = (one for one in self.timed if (one.row.strategy, one.row.ranks) == (strategy, 1))
        return next(found, None)

    @property
    def fastest_single(self) -> Contender | None:
        """The fastest of one rank, whatever the framework, launched or not."""
        return fastest(contender for contender in self.timed if contender.row.ranks == 1)


def fastest(contenders: Iterable[Contender]) -> Contender | None:
    """Return the contender of fewest seconds per epoch; None of none."""
    timed = [
        (one.row.seconds.middle, at, one) for at, one in enumerate(contenders) if one.row.seconds
    ]
    return min(timed, default=(0.0, 0, None))[2]


def comparisons(records: Iterable[RunRecord]) -> list[Comparison]:
    """Return the comparisons that the records make up, by data set and settings."""
    groups = grouped(
        records,
        lambda run: (
            *(run.dataset.name, run.dataset.fingerprint, machine_kind(run)),
            text_of(_common_settings(run)),
        ),
    )
    found = [_comparison(runs) for runs in groups]
    return sorted(found, key=lambda one: (one.dataset, one.machine, text_of(one.settings)))


def _common_settings(record: RunRecord) -> dict[str, Any]:
    """Return the settings without the launcher's controller, which only some contenders have."""
    return {name: value for name, value in settings_of(record).items() if name != "controller"}


def _who(run: RunRecord) -> tuple[int, int, tuple[int, ...], str]:
    hosts = tuple(run.ranks_per_host)
    return order_of(run.strategy), run.world_size, hosts, run.controller or ""


def _comparison(runs: Sequence[RunRecord]) -> Comparison:
    rounds = _rounds(runs)
    turns: dict[Any, list[tuple[int, RunRecord]]] = {}
    for at, one_round in enumerate(rounds):
        for run in one_round:
            turns.setdefault(_who(run), []).append((at, run))
    return Comparison(
        dataset=runs[0].dataset.name,
        typed_dataset=str(runs[0].config.get("dataset", runs[0].dataset.name)),
        machine=machine_kind(runs[0]),
        settings=_common_settings(runs[0]),
        contenders=tuple(_contender(turns[who]) for who in sorted(turns)),
        rounds=len(rounds),
    )


def _rounds(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Cut the runs, in order of their start, where one comes again or after a pause."""
    rounds: list[list[RunRecord]] = []
    end = None
    for run in sorted(runs, key=lambda run: (run.started_at, run.run_id)):
        start = datetime.fromisoformat(run.started_at)
        paused = end is not None and (start - end).total_seconds() > _PAUSE_SECONDS
        if not rounds or paused or _who(run) in map(_who, rounds[-1]):
            rounds.append([])
        rounds[-1].append(run)
        end = datetime.fromisoformat(run.finished_at or run.started_at)
    return rounds


def _contender(turns: Sequence[tuple[int, RunRecord]]) -> Contender:
    good = [(at, run) for at, run in turns if run.status == "ok"]
    seconds = {at: epoch_seconds(run) for at, run in good}
    held = Spread.of(_pss(run) for _, run in good)
    peaks = [rank.peak_rss_bytes for _, run in good for rank in run.memory if rank.peak_rss_bytes]
    return Contender(
        row=row_of([run for _, run in turns]),
        by_round={at: value for at, value in seconds.items() if value is not None},
        pss=round(held.middle) if held else None,
        peak_rss=max(peaks, default=None),
    )


def _pss(run: RunRecord) -> int | None:
    """Return the sum over processes; replicas that share a process have one entry together."""
    known = [process.pss_bytes for process in run.memory if process.pss_bytes is not None]
    return sum(known) if known and len(known) == len(run.memory) else None
