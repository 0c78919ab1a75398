"""What the two runs of `make demo` show, in sentences: curve, accuracy, speed-up, what to run next.

    python -m gnn_core.report.demo results/demo

The folder holds the record of `single` and one of several ranks, of the same settings.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("pandas")

from gnn_core.files import path_argument
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted, percent, three_digits
from gnn_core.report.rows import Row, row_of, steps_per_epoch, work_of
from gnn_core.report.sentences import MUCH_COMMUNICATION, start_command
from gnn_core.report.tables.agreement import curves_table
from gnn_core.usage import Parser, UsageError

_ROUNDING = 1e-5  # of a loss in the first steps, where few sums of fp32 lie behind it
_ROUNDING_LATER = 1e-2  # of any loss: differences of the first steps grow from step to step
_SMALL_PART = 0.02  # of an epoch: not worth a word
_A_CORE = 0.75  # a rank that got less was kept from computing
_WIDTH = 100  # columns


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process); return its exit code."""
    return guarded(lambda: _print(arguments))


def _print(arguments: Sequence[str] | None) -> int:
    parser = Parser.of(__doc__, prog="python -m gnn_core.report.demo")
    parser.add_argument("folder", type=path_argument, help="folder of the two records")
    options: argparse.Namespace = parser.parse_args(arguments)
    records, problems = read_records(options.folder)
    for problem in problems:
        print(f"not used: {problem}", file=sys.stderr)
    for sentence in sentences(records):
        print(textwrap.fill(sentence, _WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    print("What to run next (after `source .venv/bin/activate`):")
    for command, what in commands(records[-1]):
        print(f"  {command:<72} # {what}")
    return 0


def sentences(records: Sequence[RunRecord]) -> list[str]:
    """What the newest run of several ranks and one of `single` like it say, one point an entry.

    Raises:
        UsageError: one of them is missing, or they did not do the same work.
    """
    good = [record for record in records if record.status == "ok"]
    alone, together = _pair(good)
    return [
        *_chosen(records, alone, together),
        *_curve(alone, together),
        *_accuracy(alone, together),
        *_gain(alone, together),
        *_limits(alone, together),
    ]


def _pair(good: Sequence[RunRecord]) -> tuple[RunRecord, RunRecord]:
    """The newest run of `single` and of several ranks that have equal settings."""
    several = [one for one in good if one.world_size > 1 and one.same_curve]
    for together in reversed(several):
        for alone in reversed(good):
            if alone.strategy == "single" and work_of(alone) == work_of(together):
                return alone, together
    raise UsageError(
        "expected a run of `single` and one of several ranks with equal settings, got "
        f"{counted(len(good), 'run')} that ended well; make demo makes both"
    )


def _chosen(records: Sequence[RunRecord], alone: RunRecord, together: RunRecord) -> Iterator[str]:
    """Which runs are compared, where the folder has others too."""
    if len(records) > 2:
        named = " and ".join(
            f"{one.strategy} on {counted(one.world_size, 'rank')} ({one.dataset.name}, started "
            f"{one.started_at[:19]}, run {one.run_id[:8]})"
            for one in (alone, together)
        )
        yield (
            f"Of {len(records)} runs, compared are the newest two with equal settings: {named}. "
            "For all of them: python -m gnn_core.report.analysis."
        )


def _curve(alone: RunRecord, together: RunRecord) -> Iterator[str]:
    numbers = curves_table([alone, together]).numbers
    if numbers.empty:  # runs that kept no step losses
        return
    steps, largest, first = (
        numbers[name].iloc[-1] for name in ("steps", "largest", "largest_first")
    )
    found = (
        f"over {steps} steps no training loss of {together.world_size} ranks differs from that of "
        f"one process by more than {100 * largest:.2g} %, in the first ten by {100 * first:.2g} %"
    )
    if first <= _ROUNDING and largest <= _ROUNDING_LATER:
        yield f"Same curve: {found}, which is rounding (sums taken in another order)."
    else:
        yield f"Not the same curve: {found}. That is more than rounding: please report it."


def _accuracy(alone: RunRecord, together: RunRecord) -> Iterator[str]:
    one, several = (run.final.get("test_accuracy") for run in (alone, together))
    if one is None or several is None:
        return
    word = "Same accuracy" if abs(one - several) < 0.0005 else "Accuracy"
    yield (
        f"{word}: {100 * one:.2f} % of the test nodes by one process, {100 * several:.2f} % by "
        f"{together.world_size} ranks."
    )


def _gain(alone: RunRecord, together: RunRecord) -> Iterator[str]:
    one, several = row_of([alone]), row_of([together])
    if one.seconds is None or several.seconds is None:  # of a single epoch, which is a warm-up
        return
    ranks, before, after = several.ranks, one.seconds.middle, several.seconds.middle
    speedup = before / after
    took = f"an epoch took {three_digits(after)} s instead of {three_digits(before)} s"
    if steps := steps_per_epoch(alone):
        took += f", a step {1000 * after / steps:.0f} ms instead of {1000 * before / steps:.0f} ms"
    if speedup > 1:
        yield (
            f"Gained: {ranks} ranks were {speedup:.2f} times as fast as one process ({took}), "
            f"{percent(speedup / ranks)} of the ideal {ranks}."
        )
    else:
        yield (
            f"Not gained: {ranks} ranks did not pay here, with {speedup:.2f} times the speed of "
            f"one process ({took})."
        )


def _limits(alone: RunRecord, together: RunRecord) -> Iterator[str]:
    several, one = row_of([together]), row_of([alone])
    if several.crowded:
        cores = together.machine.get("cores_available")
        yield (
            f"Why: {several.ranks} ranks share {counted(int(cores or 1), 'core')} and take turns, "
            "so that they cannot be faster here; what is shown is that the curve is the same."
        )
    elif (least := _least_cores((alone, together))) is not None and least < _A_CORE:
        yield (
            f"Do not trust these times: a rank got {least:.2f} of a core on average, so other "
            "programs were using this machine. Run it again when it is idle."
        )
    elif parts := list(_parts(one, several)):
        yield f"What limits it: {'; '.join(parts)}."


def _parts(one: Row, several: Row) -> Iterator[str]:
    """What kept the ranks from their share of the ideal, as clauses."""
    share = several.communicate_share
    if one.seconds is None or several.seconds is None or share is None:
        return
    ranks = several.ranks
    if share > _SMALL_PART:
        much = ", much of it" if share >= MUCH_COMMUNICATION else ", some of it"
        yield f"{percent(share)} of an epoch is communication{much} waiting for the slower rank"
    rest = (1 - share) * several.seconds.middle * ranks
    longer = rest / (one.seconds.middle * (1 - (one.communicate_share or 0.0)))
    if longer > 1 + _SMALL_PART:
        yield (
            f"the rest took {percent(longer - 1)} longer than 1/{ranks} of one process's time, as "
            "the ranks share memory and caches, and some neighbours are computed by several of them"
        )


def _least_cores(runs: Sequence[RunRecord]) -> float | None:
    """CPU seconds per second of the rank that got least; None where nothing was sampled."""
    known = [
        used.cpu_cores_mean
        for run in runs
        for used in run.resources
        if used is not None and used.cpu_cores_mean is not None
    ]
    return min(known, default=None)


def commands(last: RunRecord) -> list[tuple[str, str]]:
    """What to type next on the machine of that run, and what it is for."""
    cores = last.machine.get("cores_available") or 1
    ranks = max(2, cores)
    return [
        (start_command("horovod", ranks, "--dataset cora"), "a real graph"),
        (start_command("horovod", ranks, "--dataset synthetic-arxiv"), "a larger one"),
        ("make compare", "every strategy, three rounds"),
        ("make report", "a sweep and a page of HTML"),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
