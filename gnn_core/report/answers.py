"""What a reader of a report wants to know first, each answer worked out from the records.

Which strategy is fastest here, what that costs in accuracy, how it scales, and what to run next. An
answer that the records do not give says what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnn_core.report.rows.rounds import Comparison, Contender, comparisons, fastest
from gnn_core.report.rows.summary import ACCURACY_TOLERANCE
from gnn_core.report.schema import RunRecord
from gnn_core.report.tables.cells import counted, percent, three_digits
from gnn_core.report.tables.verdicts import ratio_text

MUCH_COMMUNICATION = 0.25
"""From this share of an epoch on, larger steps are the next thing to try."""
GOOD_EFFICIENCY = 0.7
"""Down to this speed-up per rank, more ranks are the next thing to try."""
ENOUGH_SEEDS = 3
_STARTS = {
    "single": "python baselines/single.py",
    "horovod": "horovodrun -np {ranks} python horovod_gnn/train.py",
    "ddp": "torchrun --standalone --nproc-per-node {ranks} baselines/ddp.py",
    "one": "python tf_mirrored/train.py --strategy one",
    "mirrored": "python tf_mirrored/train.py --strategy mirrored --replicas {ranks}",
    "multiworker": "mpirun -np {ranks} python tf_mirrored/train.py --strategy multiworker",
}


@dataclass(frozen=True)
class Answer:
    """A question and what the records say to it, in Markdown."""

    question: str
    text: str


def answers(records: Sequence[RunRecord]) -> dict[str, list[Answer]]:
    """Return the answers by data set; of several settings of one, those of most contenders count.

    A data set of which no run could be timed is left out.
    """
    found: dict[str, Comparison] = {}
    for comparison in comparisons(records):
        other = found.get(comparison.dataset)
        if comparison.timed and (other is None or _weight(comparison) > _weight(other)):
            found[comparison.dataset] = comparison
    return {name: _answers(comparison) for name, comparison in found.items()}


def start_command(strategy: str, ranks: int, *flags: str) -> str:
    """Return what a user types to train with a strategy, from the root of the project."""
    return " ".join([_STARTS[strategy].format(ranks=ranks), *flags])


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
    elif len(comparison.timed) > 1:
        text += "; more ranks do not pay on this graph and these cores"
    else:
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
    lines = []
    for one in several:
        base = comparison.own_single(one)
        ratio = one.times_as_fast(base) if base is not None else None
        if ratio is None:
            continue
        share = one.row.communicate_share
        talk = f", {percent(share)} of an epoch communicating" if share is not None else ""
        lines.append(
            (ratio.middle / one.row.ranks, f"{one.name} {ratio_text(ratio)} times{talk}")
        )
    if not lines:
        return "Unknown: nothing ran on more than one rank beside its own single process."
    lines.sort(reverse=True)
    text = "Against one process of the same framework: " + "; ".join(line for _, line in lines)
    if any(one.row.crowded for one in several):
        text += ". `*`: ranks share cores, so that this is no speed-up that counts"
    return f"{text}."


def _next(comparison: Comparison, best: Contender) -> str:
    row, dataset = best.row, f"--dataset {comparison.dataset}"
    base = comparison.own_single(best)
    ratio = best.times_as_fast(base) if base is not None and base is not best else None
    share = row.communicate_share or 0.0
    steps = []
    if row.crowded:
        steps.append("the same where each rank has a core of its own")
    elif row.ranks == 1:
        steps.append(f"stay with one process (`{start_command(row.strategy, 1, dataset)}`)")
    elif ratio is not None and ratio.middle / row.ranks >= GOOD_EFFICIENCY:
        more = start_command(row.strategy, 2 * row.ranks, dataset)
        steps.append(f"twice the ranks, if there are cores for them: `{more}`")
    else:
        steps.append(f"train with `{start_command(row.strategy, row.ranks, dataset)}`")
    if row.ranks > 1 and share >= MUCH_COMMUNICATION:
        steps.append(
            f"larger steps, since {percent(share)} of an epoch is communication: "
            f"`--global-batch-size {2 * int(row.settings.get('global_batch_size') or 512)}`, "
            "and see what it does to the accuracy"
        )
    if row.accuracy is None or row.accuracy.count < ENOUGH_SEEDS:
        than = "" if row.accuracy is None else f" than {row.accuracy.count}"
        steps.append(f"more seeds{than}, to know how far accuracies lie apart by chance")
    text = "; ".join(steps)
    return f"{text[0].upper()}{text[1:]}."
