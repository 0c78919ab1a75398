"""The table of strategies that took turns on one graph: seconds, two speed-ups, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import NOTHING, percent, three_digits
from gnn_core.report.rows.rounds import Comparison, Contender, comparisons
from gnn_core.report.tables.cells import Table, differing_settings, graph_mark
from gnn_core.report.tables.footprint import GIB
from gnn_core.report.tables.speed import (
    CROWDED,
    not_ok_text,
    ranks_text,
    score_heading,
    score_text,
    seconds_range_text,
    spread_numbers,
)
from gnn_core.report.tables.verdicts import ratio_text, verdicts

_MEANING = (
    "s/epoch: median over epochs after the warm-up, then over rounds; min..max: over rounds",
    "speed-ups are ratios of two runs of one round, then median (least..most) over rounds; larger "
    "is faster; x own: against one process of the same framework (`single` of torch, `one` of "
    "Keras); x fastest: against the fastest of one rank",
    "GiB; PSS: of all processes together at the end of a run, shared pages counted once; peak RSS: "
    "of the largest process",
)
Cell = Callable[[Comparison, Contender], str]


def side_by_side_table(records: Sequence[RunRecord]) -> Table:
    """Return one line per strategy and ranks, and below them what they say in sentences."""
    contests = comparisons(records)
    lines = [(contest, one) for contest in contests for one in contest.contenders]
    differing = differing_settings(
        [one.row.settings | {"graph": graph_mark(one.row.fingerprint)} for _, one in lines],
        [contest.dataset for contest, _ in lines],
        precision=True,
    )
    machines = list(dict.fromkeys(contest.machine for contest in contests))
    texts = {id(one): text for (_, one), text in zip(lines, differing, strict=True)}
    columns: dict[str, Cell] = {
        "dataset": lambda contest, _: contest.dataset,
        "strategy": lambda _, one: one.row.strategy,
        "ranks": lambda _, one: ranks_text(one.row),
        "runs": lambda _, one: str(one.row.runs),
        "s/epoch": lambda _, one: three_digits(one.row.seconds.middle if one.row.seconds else None),
        "min..max": lambda _, one: seconds_range_text(one.row),
        "x own": lambda contest, one: _ratio(one, contest.own_single(one)),
        "x fastest": lambda contest, one: _ratio(one, contest.fastest_single),
        "communicate": lambda _, one: percent(one.row.communicate_share),
        score_heading(one.row.score_name for _, one in lines): lambda _, one: score_text(
            one.row.accuracy, one.row.score_name
        ),
        "PSS": lambda _, one: _gib(one.pss),
        "peak RSS": lambda _, one: _gib(one.peak_rss),
        "not ok": lambda _, one: not_ok_text(one.row),
    }
    if any(differing):
        columns["settings"] = lambda _, one: texts[id(one)] or NOTHING
    if len(machines) > 1:
        columns["machine"] = lambda contest, _: f"M{machines.index(contest.machine) + 1}"
        named = [f"machine M{number}: {kind}" for number, kind in enumerate(machines, start=1)]
    else:
        named = [f"machine: {kind}" for kind in machines]
    crowded = [CROWDED] if any(one.row.crowded for _, one in lines) else []
    return Table(
        headings=tuple(columns),
        cells=tuple(tuple(show(*line) for show in columns.values()) for line in lines),
        notes=(
            *(
                ", ".join(filter(None, (contest.dataset, texts[id(contest.contenders[0])])))
                + f": {sentence}"
                for contest in contests
                for sentence in verdicts(contest)
            ),
            *_MEANING,
            *crowded,
            *named,
        ),
        numbers=pd.DataFrame([_numbers(contest, one) for contest, one in lines]),
    )


def distinguishing_settings(contests: Sequence[Comparison]) -> list[str]:
    """Return for each comparison what tells it from others of its data set: settings, graph."""
    return differing_settings(
        [
            {**one.settings, "graph": graph_mark(one.contenders[0].row.fingerprint)}
            for one in contests
        ],
        [one.dataset for one in contests],
        precision=True,
    )


def _numbers(contest: Comparison, one: Contender) -> dict[str, Any]:
    row, base, best = one.row, contest.own_single(one), contest.fastest_single
    return {
        "dataset": contest.dataset,
        "strategy": row.strategy,
        "ranks": row.ranks,
        "crowded": row.crowded,
        "rounds": contest.rounds,
        "runs": row.runs,
        **spread_numbers("seconds_per_epoch", row.seconds),
        **spread_numbers("speedup_own", one.times_as_fast(base) if base else None),
        **spread_numbers("speedup_fastest", one.times_as_fast(best) if best else None),
        "communicate_share": row.communicate_share,
        f"test_{row.score_name}": row.accuracy and row.accuracy.middle,
        "pss_bytes": one.pss,
        "peak_rss_bytes": one.peak_rss,
        "failed": row.failed,
        "interrupted": row.interrupted,
        "machine": contest.machine,
    }


def _ratio(one: Contender, base: Contender | None) -> str:
    if one is base:
        return "1.00"  # a run beside itself has no spread
    ratio = None if base is None else one.times_as_fast(base)
    return NOTHING if ratio is None else ratio_text(ratio)


def _gib(value: int | None) -> str:
    return three_digits(None if value is None else value / GIB)
