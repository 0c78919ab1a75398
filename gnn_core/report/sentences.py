"""Rows and comparisons in plain sentences, worked out from their numbers; without, no sentence.

`slowdown` says why ranks gain little, `verdicts` what stands below a table of strategies that took
turns, `answers` what a reader of a report wants to know first. An answer that the records do not
give says what is missing. Every command in an answer can be run.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnn_core import models
from gnn_core.config import OPTIONS, RunConfig, UsageError
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted, percent, three_digits
from gnn_core.report.rounds import Comparison, Contender, comparisons, fastest
from gnn_core.report.rows import ACCURACY_TOLERANCE, TASKS, Row, Spread, task_of
from gnn_core.report.table import differing_settings, graph_mark, ratio_text, score_text
from gnn_core.settings.flags import write_flags
from gnn_core.strategies import STRATEGIES

LEAST_EFFICIENCY = 0.5
"""Speed-up per rank below which a sentence explains a row: at 2 ranks, slower than one process."""
MUCH_COMMUNICATION = 0.25
"""Share of an epoch from which on communication is named as a cause."""
SHORT_STEP_SECONDS = 0.05
"""Below it, what a step costs whatever its size (the allreduce's latency, waiting) is a cause."""
GOOD_EFFICIENCY = 0.7
"""Down to this speed-up per rank, more ranks are the next thing to try."""
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Answer:
    """A question and what the records say to it, in Markdown."""

    question: str
    text: str


def slowdown(row: Row, speedup: float | None, base: str, own_base: Row | None = None) -> str | None:
    """Return why `row` gains little, and what to change; None where it gains enough.

    Args:
        row: what ran, on one rank or several.
        speedup: seconds of an epoch of the base / those of the row; None when unknown.
        base: the name of what it is compared with.
        own_base: one process of the row's framework, with its speed-up over the same base; None
            when that is the base, or did not run.
    """
    if row.ranks < 2 or speedup is None or speedup / row.ranks >= LEAST_EFFICIENCY:
        return None
    gain = "do not pay" if speedup <= 1 else "pay little"
    slower = own_base.speedup if own_base is not None else None
    if own_base is not None and slower and speedup / slower / row.ranks >= LEAST_EFFICIENCY:
        causes = (
            f"Its framework is slower: one process of it, `{own_base.strategy}`, is {slower:.2f} "
            f"times as fast as `{base}`, and {row.ranks} ranks are {speedup / slower:.2f} times as "
            f"fast as `{own_base.strategy}`; train with `{base}` or another strategy of its "
            "framework"
        )
    else:
        causes = _causes(row)
    return (
        f"{row.ranks} ranks of `{row.strategy}` {gain}: {speedup:.2f} times as fast as `{base}`, "
        f"an efficiency of {100 * speedup / row.ranks:.0f} %. {causes}."
    )


def _causes(row: Row) -> str:
    """Return the causes that the row's numbers show, and what to change."""
    if row.crowded:
        threads, cores = _threads(row), row.cores or 1
        needed = f"{max(row.ranks_per_host)} ranks x {counted(threads, 'thread')}"
        most = max(1, int(cores // threads))
        return f"{needed} share {counted(cores, 'core')}; start {most} at most on such a host"
    found, changes = [], []
    share = row.communicate_share or 0.0
    if share >= MUCH_COMMUNICATION:
        found.append(f"{100 * share:.0f} % of an epoch is communication")
    if row.step_seconds is not None and row.step_seconds.middle < SHORT_STEP_SECONDS:
        found.append(
            f"a step of {1000 * row.step_seconds.middle:.3g} ms has too little work to divide: "
            "whatever its size, it has an allreduce and waits for the slowest rank"
        )
    if found:
        batch = larger_batch(row)
        larger = [f"`--global-batch-size {batch}`"] if batch else []
        ways = ", ".join([*larger, "a wider model", "a larger graph"])
        changes.append(f"give a step more work ({ways}) or train in one process")
    if row.others_running:
        found.append(f"processes of other programs were running as it began ({row.others_running})")
        changes.append("repeat it on a quiet machine")
    if not found:
        return "Neither communication, short steps nor other programs explain it; repeat the runs"
    sentence = ", and ".join(found)
    return f"{sentence[0].upper()}{sentence[1:]}; {', and '.join(changes)}"


def _threads(row: Row) -> int:
    return int(row.settings.get("threads") or 1)


def larger_batch(row: Row) -> int | None:
    """Return twice the global batch; None where the training split has fewer targets than that."""
    batch = row.settings.get("global_batch_size")
    return 2 * batch if isinstance(batch, int) and 2 * batch <= row.num_targets else None


def verdicts(contest: Comparison) -> list[str]:
    """Return what the numbers of a comparison say, a sentence or two to a point."""
    said = (
        _fastest,
        _fastest_at_equal_ranks,
        _against_own_single,
        _communication,
        _scores,
        _missing,
    )
    return [sentence for say in said for sentence in say(contest)]


def _over_fastest_single(contest: Comparison, best: Contender) -> tuple[str, str] | None:
    """Return how many times as fast as the fastest of one rank, and its name."""
    base = contest.fastest_single
    ratio = None if base is best else best.times_as_fast(base)
    return (ratio_text(ratio), base.name) if base is not None and ratio is not None else None


def _over_own(contest: Comparison) -> Iterable[tuple[Contender, Contender, Spread]]:
    """Yield those of several ranks with their framework's one process and the speed-up over it."""
    for one in contest.timed:
        base = contest.own_single(one)
        ratio = one.times_as_fast(base)
        if base is not None and ratio is not None and one.row.ranks > 1:
            yield one, base, ratio


def _fastest(contest: Comparison) -> Iterable[str]:
    best = fastest(contest.timed)
    if best is None or best.row.seconds is None or len(contest.timed) < 2:
        return
    seconds = three_digits(best.row.seconds.middle)
    over = _over_fastest_single(contest, best)
    than = f", {over[0]} times as fast as {over[1]}, the fastest run of one rank" if over else ""
    yield f"{best.name} is the fastest with {seconds} s per epoch{than}"


def _fastest_at_equal_ranks(contest: Comparison) -> Iterable[str]:
    for ranks in sorted({one.row.ranks for one in contest.timed}):
        compared = [one for one in contest.timed if one.row.ranks == ranks]
        best = fastest(compared)
        ratios = [(one, best.times_as_fast(one)) for one in compared if best and one is not best]
        parts = [f"{ratio_text(ratio)} as `{one.row.strategy}`" for one, ratio in ratios if ratio]
        if best and parts:
            yield f"{best.name}, times as fast at as many ranks: {_listed(parts)}"


def _against_own_single(contest: Comparison) -> Iterable[str]:
    for one, base, ratio in _over_own(contest):
        verb = "beats" if ratio.low > 1 else "does not always beat" if ratio.high > 1 else ""
        once = ", in one round" if ratio.count == 1 else ""
        yield (
            f"{one.name} {verb or 'does not beat'} its own `{base.row.strategy}`: "
            f"{ratio_text(ratio)} times as fast as it{once}"
        )
        if why := slowdown(one.row, ratio.middle, base.row.strategy):
            yield why


def _communication(contest: Comparison) -> Iterable[str]:
    shares = [(one, one.row.communicate_share) for one in contest.timed if one.row.ranks > 1]
    parts = [f"{one.name} {percent(share)}" for one, share in shares if share is not None]
    if parts:
        yield f"share of an epoch spent communicating: {_listed(parts)}"


def _scores(contest: Comparison) -> Iterable[str]:
    judged = [(one.row.accuracy.middle, one) for one in contest.contenders if one.row.accuracy]
    yield from (
        f"the test score of {one.name} is not compared: `{one.row.strategy}` trains on a loss "
        "curve of its own"
        for _, one in judged
        if not one.row.same_curve
    )
    known = [pair for pair in judged if pair[1].row.same_curve]
    if len(known) < 2:
        return
    low, worst = min(known, key=lambda pair: pair[0])
    high, best = max(known, key=lambda pair: pair[0])
    name = best.row.score_name
    scores, unit, apart = "test accuracies", " %", f"{100 * ACCURACY_TOLERANCE:g} point"
    if name == "mrr":
        scores, unit, apart = "test MRRs", "", f"{ACCURACY_TOLERANCE:g}"
    least, most = score_text(low, name), score_text(high, name)
    if high - low <= ACCURACY_TOLERANCE:
        yield (
            f"the {scores} agree: all {len(known)} lie between {least} and {most}{unit}, no more "
            f"than {apart} apart"
        )
    else:
        yield (
            f"the {scores} do not agree: {worst.name} has {least}{unit}, {best.name} "
            f"{most}{unit}, more than {apart} apart"
        )


def _missing(contest: Comparison) -> Iterable[str]:
    """Name who was not there in every round: its numbers rest on fewer, or on none."""
    rare = [one for one in contest.contenders if len(one.by_round) < contest.rounds]
    parts = [f"{one.name} {len(one.by_round)}" for one in rare]
    if parts:
        yield f"of {counted(contest.rounds, 'round')}, {_listed(parts)} ended well"
    for base in dict.fromkeys(STRATEGIES[one.row.strategy].single for one in contest.timed):
        if contest.one_process(base) is None:
            yield f"no run of `{base}` to measure its framework against"


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else parts[0]


def answers(records: Sequence[RunRecord]) -> dict[str, list[Answer]]:
    """Return the answers by data set and task; of several settings, those of most contenders.

    The key names the task where a data set has both, and the settings where it has several. A data
    set of which no run could be timed is left out.
    """
    timed = [contest for contest in comparisons(records) if contest.timed]
    best: dict[tuple[str, str], Comparison] = {}
    for contest in timed:
        which = contest.dataset, task_of(contest.settings)
        if which not in best or _weight(contest) > _weight(best[which]):
            best[which] = contest
    ordered = sorted(best, key=lambda which: (which[0], list(TASKS).index(which[1])))
    return {
        ", ".join(filter(None, _name(best[which], timed))): _answers(best[which])
        for which in ordered
    }


def _weight(contest: Comparison) -> tuple[int, int]:
    return len(contest.timed), contest.rounds


def _name(contest: Comparison, others: Sequence[Comparison]) -> tuple[str, str, str]:
    """Return data set, task and settings, empty where the data set has no others."""
    task = task_of(contest.settings)
    here = [one for one in others if one.dataset == contest.dataset]
    alike = [one for one in here if task_of(one.settings) == task]
    texts = dict(zip(map(id, alike), distinguishing_settings(alike), strict=True))
    return contest.dataset, TASKS[task] if len(alike) < len(here) else "", texts[id(contest)]


def distinguishing_settings(contests: Sequence[Comparison]) -> list[str]:
    """Return for each comparison what tells it from others of its data set: settings, graph."""
    rows = [one.contenders[0].row for one in contests]
    settings = [
        {**contest.settings, "graph": graph_mark(row.fingerprint)}
        for contest, row in zip(contests, rows, strict=True)
    ]
    return differing_settings(settings, [row.dataset for row in rows], precision=True)


def _answers(contest: Comparison) -> list[Answer]:
    best = fastest(contest.timed)
    assert best is not None  # something was timed
    return [
        Answer("Which is fastest here?", _which(contest, best)),
        Answer("What does that cost in accuracy?", _cost(contest, best)),
        Answer("How does it scale?", _scaling(contest)),
        Answer("What to run next?", _next(contest, best)),
    ]


def _which(contest: Comparison, best: Contender) -> str:
    assert best.row.seconds is not None  # timed
    text = f"{best.name}: **{three_digits(best.row.seconds.middle)} s per epoch**"
    if over := _over_fastest_single(contest, best):
        return f"{text}, {over[0]} times as fast as {over[1]}, the fastest of one rank."
    if any(one.row.ranks > 1 for one in contest.timed):
        return f"{text}; more ranks do not pay on this graph and these cores."
    alone = "; there is nothing else to compare it with" * (len(contest.timed) == 1)
    return f"{text}{alone}."


def _cost(contest: Comparison, best: Contender) -> str:
    base, score, name = contest.own_single(best), best.row.accuracy, best.row.score_name
    if score is None:
        return f"Unknown: {best.name} has no test score."
    scale, digits, unit, sign = (
        (100, 2, "points", " %") if name == "accuracy" else (1, 4, "of MRR", "")
    )
    own = score_text(score.middle, name) + sign
    if base is None or base.row.accuracy is None:
        return f"Unknown: it has {own}, and there is no run of one process to set beside it."
    if base is best:
        return f"Nothing: it is the one process that others are set beside ({own})."
    if not best.row.same_curve:
        return (
            f"{own}, where {base.name} has {score_text(base.row.accuracy.middle, name)}: "
            f"`{best.row.strategy}` trains on a loss curve of its own."
        )
    lost = base.row.accuracy.middle - score.middle
    by = f"{abs(scale * lost):.{digits}f} {unit}"
    seeds = counted(min(score.count, base.row.accuracy.count), "seed")
    if abs(scale * lost) < 0.5 * 10**-digits:
        return f"**Nothing**: {own}, to the last digit that of {base.name}, over {seeds}."
    if abs(lost) <= ACCURACY_TOLERANCE:
        where = "below" if lost > 0 else "above"
        return f"Next to nothing: {own}, {by} {where} {base.name}, over {seeds}."
    return f"**{'Loses' if lost > 0 else 'Gains'} {by}** against {base.name}: {own}."


def _scaling(contest: Comparison) -> str:
    lines, slow = [], []
    for one, base, ratio in _over_own(contest):
        slow.append(slowdown(one.row, ratio.middle, base.row.strategy))
        share = one.row.communicate_share
        talk = f", {percent(share)} of an epoch communicating" if share is not None else ""
        lines.append((ratio.middle / one.row.ranks, f"{one.name} {ratio_text(ratio)} times{talk}"))
    if not lines:
        return "Unknown: nothing ran on more than one rank beside its own single process."
    lines.sort(reverse=True)
    text = "Against one process of the same framework: " + "; ".join(line for _, line in lines)
    if "*" in text:
        text += ". `*`: ranks share cores, so that this is no speed-up that counts"
    return "\n\n".join([f"{text}.", *filter(None, dict.fromkeys(slow))])


def _next(contest: Comparison, best: Contender) -> str:
    row = best.row
    steps = [_first_step(contest, best)]
    share = row.communicate_share or 0.0
    batch = larger_batch(row)
    if row.ranks > 1 and not row.crowded and share >= MUCH_COMMUNICATION and batch is not None:
        command = _command(contest, best, row.ranks, {"global_batch_size": batch})
        steps.append(
            f"larger steps, since {percent(share)} of an epoch is communication{command}, and see "
            "what it does to the accuracy"
        )
    if row.accuracy is None or row.accuracy.count < ENOUGH_SEEDS:
        than = "" if row.accuracy is None else f" than {row.accuracy.count}"
        steps.append(f"more seeds{than}, to know how far accuracies lie apart by chance")
    text = "; ".join(steps)
    return f"{text[0].upper()}{text[1:]}."


def _first_step(contest: Comparison, best: Contender) -> str:
    row = best.row
    if row.crowded:
        return "the same where each rank has a core of its own"
    if row.ranks == 1:
        return f"stay with one process{_command(contest, best, 1)}"
    ratio = best.times_as_fast(contest.own_single(best))
    train = f"train with {best.name}{_command(contest, best, row.ranks)}"
    if ratio is None or ratio.middle / row.ranks < GOOD_EFFICIENCY:
        return train
    if max(row.ranks_per_host) * 2 * _threads(row) > (row.cores or 0):
        return f"{train}: twice the ranks need a machine with more cores, or more hosts"
    return f"twice the ranks{_command(contest, best, 2 * row.ranks)}"


def start_command(strategy: str, ranks: int, *flags: str) -> str:
    """Return what a user types to train with a strategy, from the root of the project."""
    return " ".join([*STRATEGIES[strategy].words(ranks), *flags])


def _command(
    contest: Comparison, one: Contender, ranks: int, changes: Mapping[str, Any] | None = None
) -> str:
    """Return ` (`command`)` that trains as `one` did but for ranks and `changes`; else nothing.

    There is none for runs on several hosts, whose names it would need, and for settings that the
    programs do not take together or that belong to another program.
    """
    settings = {**one.row.settings, **(changes or {})}
    settings.pop("controller", None)
    if len(one.row.ranks_per_host) > 1 or not settings.keys() <= OPTIONS.keys():
        return ""
    where = {"dataset": contest.typed_dataset}
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
