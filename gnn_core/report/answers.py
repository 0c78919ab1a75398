"""What a reader of a report wants to know first, each answer worked out from the records.

Which strategy is fastest here, what that costs in accuracy, how it scales, and what to run next. An
answer that the records do not give says what is missing. Every command in an answer can be run.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnn_core import models
from gnn_core.config import OPTIONS, RunConfig, UsageError
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted, percent, three_digits
from gnn_core.report.rounds import Comparison, Contender, comparisons, fastest
from gnn_core.report.rows import ACCURACY_TOLERANCE, TASKS, task_of
from gnn_core.report.table import ratio_text
from gnn_core.report.tables.side_by_side import distinguishing_settings
from gnn_core.report.tables.slowdowns import MUCH_COMMUNICATION, larger_batch, slowdown, threads_of
from gnn_core.settings.flags import write_flags
from gnn_core.strategies import STRATEGIES

GOOD_EFFICIENCY = 0.7
"""Down to this speed-up per rank, more ranks are the next thing to try."""
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Answer:
    """A question and what the records say to it, in Markdown."""

    question: str
    text: str


def answers(records: Sequence[RunRecord]) -> dict[str, list[Answer]]:
    """Return the answers by data set and task; of several settings, those of most contenders.

    The key names the task where a data set has both, and the settings where it has several. A data
    set of which no run could be timed is left out.
    """
    timed = [comparison for comparison in comparisons(records) if comparison.timed]
    best: dict[tuple[str, str], Comparison] = {}
    for comparison in timed:
        which = comparison.dataset, task_of(comparison.settings)
        if which not in best or _weight(comparison) > _weight(best[which]):
            best[which] = comparison
    ordered = sorted(best, key=lambda which: (which[0], list(TASKS).index(which[1])))
    return {
        ", ".join(filter(None, _name(best[which], timed))): _answers(best[which])
        for which in ordered
    }


def _name(comparison: Comparison, others: Sequence[Comparison]) -> tuple[str, str, str]:
    """Return data set, task and settings, empty where the data set has no others."""
    task = task_of(comparison.settings)
    here = [one for one in others if one.dataset == comparison.dataset]
    alike = [one for one in here if task_of(one.settings) == task]
    texts = dict(zip(map(id, alike), distinguishing_settings(alike), strict=True))
    return comparison.dataset, TASKS[task] if len(alike) < len(here) else "", texts[id(comparison)]


def start_command(strategy: str, ranks: int, *flags: str) -> str:
    """Return what a user types to train with a strategy, from the root of the project."""
    return " ".join([*STRATEGIES[strategy].words(ranks), *flags])


def _weight(comparison: Comparison) -> tuple[int, int]:
    return len(comparison.timed), comparison.rounds


def _answers(comparison: Comparison) -> list[Answer]:
    best = fastest(comparison.timed)
    assert best is not None  # something was timed
    return [
        Answer("Which is fastest here?", _which(comparison, best)),
        Answer("What does that cost in accuracy?", _cost(comparison, best)),
        Answer("How does it scale?", _scaling(comparison, best)),
        Answer("What to run next?", _next(comparison, best)),
    ]


def _which(comparison: Comparison, best: Contender) -> str:
    assert best.row.seconds is not None  # timed
    text = f"{best.name}: **{three_digits(best.row.seconds.middle)} s per epoch**"
    base = comparison.fastest_single
    ratio = best.times_as_fast(base) if base is not None and base is not best else None
    if ratio is not None and base is not None:
        text += f", {ratio_text(ratio)} times as fast as {base.name}, the fastest of one rank"
    elif any(one.row.ranks > 1 for one in comparison.timed):
        text += "; more ranks do not pay on this graph and these cores"
    elif len(comparison.timed) == 1:
        text += "; there is nothing else to compare it with"
    return f"{text}."


def _cost(comparison: Comparison, best: Contender) -> str:
    base = comparison.own_single(best)
    score, unit = best.row.accuracy, "points" if best.row.score_name == "accuracy" else "of MRR"
    if score is None:
        return f"Unknown: {best.name} has no test score."
    scale = 100 if best.row.score_name == "accuracy" else 1
    digits = 2 if scale == 100 else 4
    own = f"{scale * score.middle:.{digits}f}{' %' if scale == 100 else ''}"
    if base is None or base.row.accuracy is None:
        return f"Unknown: it has {own}, and there is no run of one process to set beside it."
    if base is best:
        return f"Nothing: it is the one process that others are set beside ({own})."
    if not best.row.same_curve:
        return (
            f"{own}, where {base.name} has {scale * base.row.accuracy.middle:.{digits}f}: "
            f"`{best.row.strategy}` trains on a loss curve of its own."
        )
    lost = base.row.accuracy.middle - score.middle
    seeds = counted(min(score.count, base.row.accuracy.count), "seed")
    if abs(scale * lost) < 0.5 * 10**-digits:
        return f"**Nothing**: {own}, to the last digit that of {base.name}, over {seeds}."
    verb = "Loses" if lost > 0 else "Gains"
    if abs(lost) <= ACCURACY_TOLERANCE:
        return (
            f"Next to nothing: {own}, {abs(scale * lost):.{digits}f} {unit} "
            f"{'below' if lost > 0 else 'above'} {base.name}, over {seeds}."
        )
    return f"**{verb} {abs(scale * lost):.{digits}f} {unit}** against {base.name}: {own}."


def _scaling(comparison: Comparison, best: Contender) -> str:
    several = [one for one in comparison.timed if one.row.ranks > 1]
    lines, slow = [], []
    for one in several:
        base = comparison.own_single(one)
        ratio = one.times_as_fast(base) if base is not None else None
        if base is None or ratio is None:
            continue
        if why := slowdown(one.row, ratio.middle, base.row.strategy):
            slow.append(why)
        share = one.row.communicate_share
        talk = f", {percent(share)} of an epoch communicating" if share is not None else ""
        lines.append((ratio.middle / one.row.ranks, f"{one.name} {ratio_text(ratio)} times{talk}"))
    if not lines:
        return "Unknown: nothing ran on more than one rank beside its own single process."
    lines.sort(reverse=True)
    text = "Against one process of the same framework: " + "; ".join(line for _, line in lines)
    if "*" in text:
        text += ". `*`: ranks share cores, so that this is no speed-up that counts"
    return "\n\n".join([f"{text}.", *dict.fromkeys(slow)])


def _next(comparison: Comparison, best: Contender) -> str:
    row = best.row
    steps = [_first_step(comparison, best)]
    share = row.communicate_share or 0.0
    batch = larger_batch(row)
    if row.ranks > 1 and not row.crowded and share >= MUCH_COMMUNICATION and batch is not None:
        command = _command(comparison, best, row.ranks, {"global_batch_size": batch})
        steps.append(
            f"larger steps, since {percent(share)} of an epoch is communication{command}, and see "
            "what it does to the accuracy"
        )
    if row.accuracy is None or row.accuracy.count < ENOUGH_SEEDS:
        than = "" if row.accuracy is None else f" than {row.accuracy.count}"
        steps.append(f"more seeds{than}, to know how far accuracies lie apart by chance")
    text = "; ".join(steps)
    return f"{text[0].upper()}{text[1:]}."


def _first_step(comparison: Comparison, best: Contender) -> str:
    row = best.row
    if row.crowded:
        return "the same where each rank has a core of its own"
    if row.ranks == 1:
        return f"stay with one process{_command(comparison, best, 1)}"
    base = comparison.own_single(best)
    ratio = best.times_as_fast(base) if base is not None else None
    if ratio is None or ratio.middle / row.ranks < GOOD_EFFICIENCY:
        return f"train with {best.name}{_command(comparison, best, row.ranks)}"
    if max(row.ranks_per_host) * 2 * threads_of(row) > (row.cores or 0):
        return (
            f"train with {best.name}{_command(comparison, best, row.ranks)}: twice the ranks need "
            "a machine with more cores, or more hosts"
        )
    return f"twice the ranks{_command(comparison, best, 2 * row.ranks)}"


def _command(
    comparison: Comparison, one: Contender, ranks: int, changes: Mapping[str, Any] | None = None
) -> str:
    """Return ` (`command`)` that trains as `one` did but for ranks and `changes`; else nothing.

    There is none for runs on several hosts, whose names it would need, and for settings that the
    programs do not take together or that belong to another program.
    """
    settings = {**one.row.settings, **(changes or {})}
    settings.pop("controller", None)
    if len(one.row.ranks_per_host) > 1 or not settings.keys() <= OPTIONS.keys():
        return ""
    where = {"dataset": comparison.typed_dataset}
    where |= {"task": "link"} if task_of(settings) == "link" else {}
    try:
        config = RunConfig.from_dict({**where, **settings})
        config.validate_world(ranks)
        usual = RunConfig.from_dict(where).to_dict()
    except UsageError:
        return ""
    asked = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.to_dict().items()
        if name in settings and value != usual[name] and value is not None
    }
    strategy = STRATEGIES[one.row.strategy]
    has_model = strategy.framework == "torch" or config.model == models.DEFAULT
    if not has_model or strategy.refuses.keys() & {OPTIONS[name].flag for name in asked}:
        return ""
    flags = shlex.join(write_flags({**where, **asked}))
    return f" (`{start_command(one.row.strategy, ranks, flags)}`)"
