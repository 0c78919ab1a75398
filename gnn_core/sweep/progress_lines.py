"""The output of a sweep: the plan in one line, then one line per run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gnn_core.measure.run_record import epoch_seconds
from gnn_core.number_text import counted, three_digits
from gnn_core.sweep.launches import seen_from_root
from gnn_core.sweep.plan import Plan
from gnn_core.sweep.run_turn import LOG, Outcome
from gnn_core.sweep.time_left import in_words
from gnn_core.sweep.turns import Turn


def opening(plan: Plan, num_turns: int, num_done: int, left_seconds: float | None) -> str:
    """Return the plan in one line, with what is there already and how long the rest may take."""
    factors = [
        counted(len(plan.launches), "contender"),
        counted(len(plan.datasets), "data set"),
        counted(len(plan.seeds), "seed"),
        counted(plan.repeats, "repeat"),
    ]
    line = f"{' x '.join(factors)}, records in {seen_from_root(plan.records)}"
    if num_done:
        line += f"; {num_done} of {counted(num_turns, 'run')} are there already"
    else:
        line += f"; {counted(num_turns, 'run')}"
    return line + _left(left_seconds, "; ")


def of_turn(
    turn: Turn,
    outcome: Outcome,
    number: int,
    turns: Sequence[Turn],
    records: Path,
    left_seconds: float | None,
) -> str:
    """Return the line of a run that has ended, the `number`-th of the plan to be done."""
    if outcome.error is None:
        result = f"{three_digits(epoch_seconds(outcome.record))} s/epoch"
    else:
        log = seen_from_root(records / turn.place / LOG)
        result = f"{outcome.record.status}: {outcome.error}; see {log}"
    columns = [*columns_of(turn, number, turns), result, f"took {in_words(outcome.seconds)}"]
    return "   ".join(["  ".join(columns[:-2]), *columns[-2:]]) + _left(left_seconds, "   ")


def columns_of(turn: Turn, number: int, turns: Sequence[Turn]) -> list[str]:
    """Return which run it is, in columns as wide as the whole plan needs."""
    digits = math.ceil(math.log10(len(turns) + 1))
    graph = max(len(one.dataset.label) for one in turns)
    names = [_who(one) for one in turns]
    return [
        f"[{number:>{digits}}/{len(turns)}] {turn.dataset.label:<{graph}}",
        f"{_who(turn):<{max(map(len, names))}}",
        f"seed {turn.seed}",
        f"repeat {turn.repeat}",
    ]


def _who(turn: Turn) -> str:
    return f"{turn.launch.strategy} x{turn.launch.ranks}"


def _left(seconds: float | None, before: str) -> str:
    return f"{before}about {in_words(seconds)} left" if seconds else ""
