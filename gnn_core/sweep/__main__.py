"""Run a plan: strategies x ranks x data sets x seeds x repeats, taking turns, one record each.

    python -m gnn_core.sweep results/plans/short.yaml             # run it, or go on with it
    python -m gnn_core.sweep results/plans/short.yaml --dry-run   # its commands, in order
    python -m gnn_core.sweep plan.yaml --retry-failed             # failed runs once more
    python -m gnn_core.sweep plan.yaml --turn 7                   # run number 7 of --dry-run alone

A plan is a YAML file; whatever is left out has the value that stands here:

    strategies: [single, horovod, ddp, one, mirrored, multiworker, param-server]
    ranks: [1, 2]                    # of those that can have several
    datasets: [synthetic]            # also, with own settings, {name: cit-hepth, task: link}
    seeds: [0]
    repeats: 3
    epochs: 4                        # the first of a run warms up and is not counted
    threads: 1                       # of each rank
    scaling: strong                  # weak: the global batch is local_batch_size times the ranks
    flags: {}                        # further settings of every run, such as {hidden: 64, lr: 1e-3}
    records: results/sweeps/plan     # named after the plan's file

Each run is the command that a user would type, started in the repository root: paths to data are
relative to it. Runs alternate, so that whatever else the machine does meets all strategies alike.
Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 stop the run; the same command goes on. A run is done
when its folder has its record; other settings have other folders. A run that fails is recorded,
with its output in run.log beside the record, and the rest goes on.

Exit code 0, 1 when a run has failed, 2 for a mistake reported in one line, 130 when stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from gnn_core.files import expanded, path_argument
from gnn_core.launch import guarded, under_launcher
from gnn_core.measure import machine
from gnn_core.measure.records import require_writable
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted
from gnn_core.settings.flags import write_flags
from gnn_core.streams import optional_output
from gnn_core.sweep.child import stoppable
from gnn_core.sweep.launches import ROOT, seen_from_root
from gnn_core.sweep.plan import Plan, read_plan
from gnn_core.sweep.progress_lines import columns_of, of_turn, opening
from gnn_core.sweep.run_turn import take_turn
from gnn_core.sweep.time_left import recorded_seconds, seconds_left
from gnn_core.sweep.turns import Turn, in_order, result_in
from gnn_core.usage import Parser, UsageError, whole

_PROGRAM = "python -m gnn_core.sweep"


def main() -> int:
    """Read the plan, run what is left of it; the exit code."""
    options = _parse(sys.argv[1:])
    if under_launcher():
        raise UsageError(
            f"expected to be started once, by `{_PROGRAM}`, and not by a launcher: it launches the "
            "ranks itself"
        )
    plan = read_plan(options.plan)
    if options.records is not None:
        records = expanded(str(options.records), "--records").absolute()
        plan = dataclasses.replace(plan, records=records)
    turns = _chosen(in_order(plan), options.turn)
    commands = [turn.command(plan.records) for turn in turns]  # a missing launcher is reported now
    results = {turn.place: result_in(plan.records / turn.place) for turn in turns}
    again = ("failed",) if options.retry_failed else ()
    done = {
        place: record for place, record in results.items() if record and record.status not in again
    }
    if options.dry_run:
        return _show(turns, commands, done)
    try:
        require_writable(plan.records)
    except UsageError as problem:
        reason = str(problem).partition(";")[0].removeprefix("--records")
        raise UsageError(f"{options.plan}: records{reason}; --records gives another one") from None
    try:
        locked = plan.records / turns[0].place if options.turn else plan.records
        with _alone(locked, options.plan), stoppable(), optional_output():
            left = [turn for turn in turns if turn.place not in done]
            return _prepare(left) or _run(plan, turns, left, done)
    except KeyboardInterrupt:
        print(f"stopped; go on with: {_PROGRAM} {shlex.join(sys.argv[1:])}", flush=True)
        return 130


def _chosen(turns: list[Turn], number: int | None) -> list[Turn]:
    """The one of that number, from 1; all without one. Raises UsageError."""
    if number is None:
        return turns
    if number > len(turns):
        raise UsageError(
            f"--turn: expected a number from 1 to {len(turns)}, which the plan has, got {number}"
        )
    return [turns[number - 1]]


@contextlib.contextmanager
def _alone(folder: Path, file: Path) -> Iterator[None]:
    """Two sweeps of one plan would do each run twice, at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".sweep.lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout:
        raise UsageError(
            f"{file}: another sweep writes to {seen_from_root(folder)}; wait for its end, or "
            "give --records"
        ) from None


def _show(
    turns: Sequence[Turn], commands: Sequence[list[str]], done: Mapping[Path, RunRecord]
) -> int:
    """Print the command of each run, in order, as it can be typed in the repository root."""
    for number, (turn, command) in enumerate(zip(turns, commands, strict=True), start=1):
        state = f"  {done[turn.place].status}, there already" if turn.place in done else ""
        print("  ".join(columns_of(turn, number, turns)) + state)
        print(f"    {shlex.join(machine.presentable(command, ROOT))}")
    return 0


def _prepare(left: Sequence[Turn]) -> int:
    """Prepare the graphs, so that no launch does it in its turn; the exit code.

    By the command that a user would type: the report never looks at the data.
    """
    graphs: dict[tuple[str, ...], None] = {}  # as a set that keeps the order
    for turn in left:
        where = {
            name: turn.settings[name]
            for name in ("data_root", "cache_dir")
            if name in turn.settings
        }
        graphs[turn.dataset.name, *write_flags(where)] = None
    for words in graphs:
        prepare = [sys.executable, "-m", "gnn_core.data.datasets", "prepare", *words]
        if code := subprocess.run(prepare, cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
            return code  # it has said why
    return 0


def _run(
    plan: Plan, turns: Sequence[Turn], left: Sequence[Turn], done: Mapping[Path, RunRecord]
) -> int:
    """Give each run that is left its turn; 1 when one has not ended well, now or before."""
    good = [turn for turn in turns if turn.place in done and done[turn.place].status == "ok"]
    took = [(turn.kind, recorded_seconds(done[turn.place])) for turn in good]
    num_bad = len(done) - len(good)
    first = seconds_left([turn.kind for turn in left], took)
    print(opening(plan, len(turns), len(done), first), flush=True)
    for at, turn in enumerate(left, start=1):
        outcome = take_turn(turn, plan.records)
        if outcome.error is None:
            took.append((turn.kind, outcome.seconds))
        else:
            num_bad += 1
        until = seconds_left([one.kind for one in left[at:]], took)
        print(of_turn(turn, outcome, len(done) + at, turns, plan.records, until), flush=True)
    records = seen_from_root(plan.records)
    if num_bad:
        bad = f"{num_bad} of {counted(len(turns), 'run')}"
        print(f"{bad} did not end well; the reasons are recorded, --retry-failed tries again")
    print(f"records in {records}\npython -m gnn_core.report.analysis {shlex.quote(str(records))}")
    return 1 if num_bad else 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog=_PROGRAM, allow_abbrev=False)
    parser.add_argument(
        "plan", type=path_argument, metavar="PLAN", help="YAML file that says what to run"
    )
    parser.add_argument(
        "--records",
        type=path_argument,
        metavar="DIR",
        help="put the records there, not where the plan says",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the runs with their commands, start none"
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="repeat runs that have failed, too"
    )
    parser.add_argument(
        "--turn",
        type=whole(),
        metavar="N",
        help="do run number N of the plan alone, while others do theirs, as in an array of Slurm",
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(guarded(main))
