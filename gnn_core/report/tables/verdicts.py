"""A comparison in plain sentences, each worked out from its numbers; without them, no sentence."""

from __future__ import annotations

from collections.abc import Iterable

from gnn_core.number_text import counted, percent, three_digits
from gnn_core.report.rounds import Comparison, fastest
from gnn_core.report.rows import ACCURACY_TOLERANCE, Spread
from gnn_core.report.tables.slowdowns import slowdown
from gnn_core.strategies import STRATEGIES


def verdicts(comparison: Comparison) -> list[str]:
    """Return what the numbers of a comparison say, a sentence or two to a point."""
    return [
        *_fastest_of_all(comparison),
        *_fastest_at_equal_ranks(comparison),
        *_against_own_single(comparison),
        *_communication(comparison),
        *_accuracies(comparison),
        *_missing(comparison),
    ]


def ratio_text(ratio: Spread) -> str:
    """Return `1.55 (1.50..1.61)`; a single round has no spread."""
    if ratio.count < 2:
        return f"{ratio.middle:.2f}"
    return f"{ratio.middle:.2f} ({ratio.low:.2f}..{ratio.high:.2f})"


def _fastest_of_all(comparison: Comparison) -> Iterable[str]:
    best = fastest(comparison.timed)
    if best is None or best.row.seconds is None or len(comparison.timed) < 2:
        return
    seconds = three_digits(best.row.seconds.middle)
    sentence = f"{best.name} is the fastest with {seconds} s per epoch"
    base = comparison.fastest_single
    ratio = best.times_as_fast(base) if base is not None and base is not best else None
    if base is not None and ratio is not None:
        sentence += f", {_times(ratio)} {base.name}, the fastest run of one rank"
    yield sentence


def _fastest_at_equal_ranks(comparison: Comparison) -> Iterable[str]:
    for ranks in sorted({one.row.ranks for one in comparison.timed}):
        compared = [one for one in comparison.timed if one.row.ranks == ranks]
        best = fastest(compared)
        if best is None or len(compared) < 2:
            continue
        ratios = [(one, best.times_as_fast(one)) for one in compared if one is not best]
        parts = [f"{ratio_text(ratio)} as `{one.row.strategy}`" for one, ratio in ratios if ratio]
        if parts:
            yield f"{best.name}, times as fast at as many ranks: {_listed(parts)}"


def _against_own_single(comparison: Comparison) -> Iterable[str]:
    for one in comparison.timed:
        base = comparison.own_single(one)
        if base is None or one.row.ranks < 2:
            continue
        ratio = one.times_as_fast(base)
        if ratio is None:
            continue
        if ratio.low > 1:
            verb = "beats"
        elif ratio.high > 1:
            verb = "does not always beat"
        else:
            verb = "does not beat"
        once = ", in one round" if ratio.count == 1 else ""
        yield f"{one.name} {verb} its own `{base.row.strategy}`: {_times(ratio)} it{once}"
        if why := slowdown(one.row, ratio.middle, base.row.strategy):
            yield why


def _communication(comparison: Comparison) -> Iterable[str]:
    parts = [
        f"{one.name} {percent(one.row.communicate_share)}"
        for one in comparison.timed
        if one.row.ranks > 1 and one.row.communicate_share is not None
    ]
    if parts:
        yield f"share of an epoch spent communicating: {_listed(parts)}"


def _accuracies(comparison: Comparison) -> Iterable[str]:
    yield from (
        f"the test score of {one.name} is not compared: `{one.row.strategy}` trains on a loss "
        "curve of its own"
        for one in comparison.contenders
        if one.row.accuracy and not one.row.same_curve
    )
    known = [
        (one.row.accuracy.middle, one)
        for one in comparison.contenders
        if one.row.accuracy and one.row.same_curve
    ]
    if len(known) < 2:
        return
    low, worst = min(known, key=lambda pair: pair[0])
    high, best = max(known, key=lambda pair: pair[0])
    of_links = best.row.score_name == "mrr"
    scores = "test MRRs" if of_links else "test accuracies"
    least, most = (f"{one:.4f}" if of_links else f"{100 * one:.2f}" for one in (low, high))
    unit = "" if of_links else " %"
    apart = f"{ACCURACY_TOLERANCE:g}" if of_links else f"{100 * ACCURACY_TOLERANCE:g} point"
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


def _missing(comparison: Comparison) -> Iterable[str]:
    """Name who was not there in every round: its numbers rest on fewer, or on none."""
    parts = [
        f"{one.name} {len(one.by_round)}"
        for one in comparison.contenders
        if len(one.by_round) < comparison.rounds
    ]
    if parts:
        yield f"of {counted(comparison.rounds, 'round')}, {_listed(parts)} ended well"
    for base in dict.fromkeys(STRATEGIES[one.row.strategy].single for one in comparison.timed):
        if comparison.find(base, 1) is None:
            yield f"no run of `{base}` to measure its framework against"


def _times(ratio: Spread) -> str:
    return f"{ratio_text(ratio)} times as fast as"


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else parts[0]
