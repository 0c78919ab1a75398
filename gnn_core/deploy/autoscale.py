"""The command `autoscale`: how many workers an elastic job is to have, said, simulated or set."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gnn_core.deploy.scaling_policy import (
    Curve,
    Outcome,
    Policy,
    Standing,
    Terms,
    decide,
    simulated,
    static,
)
from gnn_core.files import path_argument, read_regular
from gnn_core.measure import machine
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord, epoch_seconds
from gnn_core.number_text import three_digits
from gnn_core.usage import UsageError, finite, one_line, whole
from gnn_core.whole_file import write_whole

_DESCRIPTION = """\
How many workers an elastic job is to have, by runs on several numbers of workers and a policy.

    python -m gnn_core.deploy autoscale results/scaling --policy efficiency:0.7
    kubectl logs job/ringsage-elastic-launcher > job.log
    python -m gnn_core.deploy autoscale results/scaling --policy budget:12 --price 0.8 \\
        --log job.log --max 8 --apply ringsage-elastic --dry-run
    python -m gnn_core.deploy autoscale results/scaling --policy deadline:90 --log job.log \\
        --host-file hosts --hosts a b c d        # of a job that horovodrun started
    python -m gnn_core.deploy autoscale results/scaling --simulate --price 0.8 --epochs 100 \\
        --policy efficiency:0.7 --policy deadline:90 --figure autoscale.svg

Call it again and again while the job runs: what it decides follows from the log so far.

Policies: efficiency:SHARE is the fastest size with a speed-up per worker of at least SHARE;
budget:MONEY the fastest that costs at most so much an hour; deadline:MINUTES the cheapest that ends
within MINUTES from now, or with --simulate from the start.
"""
_RECENT_EPOCHS = 5
_MOST_LOG_BYTES = 1 << 30
_EPOCH = re.compile(r"epoch (\d+)/(\d+)  .*?  (\d+\.\d+) s \(")
_RANKS = re.compile(r"(?:^|>\s*|: ?)ranks      (\d+): ")
_GOES_ON = re.compile(r"goes on    on (\d+) ranks?\b")


def add_command(commands: Any) -> None:
    """Add the command, with its flags, to those of a parser (`add_subparsers`)."""
    parser = commands.add_parser(
        "autoscale",
        help="say or set how many workers an elastic job is to have",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("records", nargs="+", type=path_argument, metavar="RECORDS", help="of runs, or folders")
    add("--policy", action="append", required=True, help="see above; several with --simulate")
    add("--strategy", default="horovod", help="of the runs (default: horovod)")
    add("--dataset", metavar="NAME", help="where the records are of several")
    add(
        "--price",
        type=finite(1e-9),
        default=1.0,
        metavar="X",
        help="of a worker and hour (default: 1, so that costs are worker-hours)",
    )
    add("--min", type=whole(), default=1, metavar="N", help="workers at least (default: 1)")
    add(
        "--max",
        type=whole(),
        metavar="N",
        help="workers at most (default: as many as the records, or --hosts, have)",
    )
    add(
        "--resize-seconds",
        type=finite(0),
        metavar="S",
        help="without training when workers join or go (default: as the records of elastic runs "
        "among RECORDS have it, else 15)",
    )
    add("--log", type=path_argument, metavar="FILE", help="what the running job has printed")
    add("--simulate", action="store_true", help="a whole run by each policy, beside fixed sizes")
    add("--epochs", type=whole(), metavar="N", help="of --simulate (default: as in the records)")
    add("--figure", type=path_argument, metavar="FILE", help="of --simulate: .svg, .png or .pdf")
    add("--json", type=path_argument, metavar="FILE", help="of --simulate: a record of all figures")
    add("--apply", metavar="MPIJOB", help="set the workers of this job with kubectl")
    add("--namespace", metavar="NAME", help="of --apply (default: kubectl's)")
    add(
        "--host-file", type=path_argument, metavar="FILE", help="write the hosts to use, one a line"
    )
    add(
        "--hosts",
        nargs="+",
        default=[],
        metavar="HOST",
        help="of --host-file, the first ones first",
    )
    add("--dry-run", action="store_true", help="print what --apply or --host-file would do")


def run(options: argparse.Namespace) -> int:
    """Do what the flags say; the exit code. Raises UsageError."""
    policies = [Policy.of(text) for text in options.policy]
    _require_sense(options)
    records, problems = read_records(*options.records)
    for problem in problems:
        print(f"not used: {problem}", file=sys.stderr)
    runs = runs_of(records, options.strategy, options.dataset)
    curve = curve_of(runs)
    pause = options.resize_seconds
    terms = Terms(
        price=options.price,
        fewest=options.min,
        most=options.max or len(options.hosts) or curve.most,
        resize_seconds=resize_seconds(records) if pause is None else pause,
    )
    if options.simulate:
        return _simulate(options, curve, policies, terms, runs)
    now = Standing(0, options.epochs or _epochs_of(runs))
    if options.log is not None:
        job = read_log(_text_of(options.log))
        now = Standing(job.workers, job.epochs_left)
        if job.epoch_seconds is not None and curve.fewest <= job.workers <= curve.most:
            curve = curve.scaled(job.workers, job.epoch_seconds)
    (policy,) = policies
    if policy.kind == "deadline":
        now = Standing(now.workers, now.epochs_left, 60 * policy.limit)
    workers = decide(curve, policy, terms, now)
    _say_decision(curve, policy, terms, now, workers)
    if now.workers != workers:
        _set(options, workers)
    return 0


def _require_sense(options: argparse.Namespace) -> None:
    """Raise UsageError for flags that do not go together."""
    sets = options.apply is not None or options.host_file is not None
    if options.simulate and (sets or options.log is not None):
        raise UsageError("--simulate: expected no --log, --apply or --host-file: leave them out")
    if not options.simulate and len(options.policy) > 1:
        raise UsageError("--policy: expected one, got several: only --simulate compares them")
    for name in ("figure", "json"):
        if getattr(options, name) is not None and not options.simulate:
            raise UsageError(f"--{name}: it is of --simulate: add that, or leave it out")
    if options.apply is not None and options.host_file is not None:
        raise UsageError("--apply, --host-file: expected one of them, got both")
    if sets and options.log is None:
        raise UsageError("--log: expected what the running job has printed, got none")
    if options.max is not None and options.max < options.min:
        raise UsageError(f"--max: expected {options.min}, the --min, or more, got {options.max}")
    if options.host_file is not None and len(options.hosts) < (options.max or options.min):
        raise UsageError(
            f"--hosts: expected {options.max or options.min} names or more, got "
            f"{len(options.hosts)}"
        )
    if options.figure is not None and options.figure.suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"--figure: expected a name in .svg, .png or .pdf, got {options.figure}")


# --- what was measured ----------------------------------------------------------------------------


def runs_of(records: Sequence[RunRecord], strategy: str, dataset: str | None) -> list[RunRecord]:
    """The runs that tell of scaling: of one strategy, data set, settings and kind of processor.

    Raises UsageError where there are none, or several of these.
    """
    runs = [
        one
        for one in records
        if one.status == "ok"
        and one.strategy == strategy
        and dataset in (None, one.dataset.name)
        and not one.ranks_changed
        and epoch_seconds(one) is not None
    ]
    if not runs:
        raise UsageError(
            f"RECORDS: expected runs of {strategy}{f' on {dataset}' if dataset else ''} that ended "
            "well, with two epochs or more, got none"
        )
    for what, values in (
        ("data set", {one.dataset.name for one in runs}),
        ("set of settings", {one.config_digest for one in runs}),
        ("kind of processor", {str(one.machine.get("cpu_model")) for one in runs}),
    ):
        if len(values) > 1:
            change = "add --dataset" if what == "data set" else "name fewer records"
            raise UsageError(f"RECORDS: expected runs of one {what}, got {len(values)}: {change}")
    return runs


def curve_of(runs: Sequence[RunRecord]) -> Curve:
    """Median seconds of an epoch by number of workers, of which each has one rank."""
    found: defaultdict[int, list[float]] = defaultdict(list)
    for one in runs:
        if (seconds := epoch_seconds(one)) is not None:
            found[one.world_size].append(seconds)
    return Curve({size: statistics.median(found[size]) for size in sorted(found)})


def resize_seconds(records: Sequence[RunRecord]) -> float:
    """Median seconds without training when workers went or joined; 15 where no run tells."""
    waits = [world.seconds_between for one in records for world in one.worlds]
    known = [seconds for seconds in waits if seconds is not None]
    return statistics.median(known) if known else 15.0


def _epochs_of(runs: Sequence[RunRecord]) -> int:
    return max(int(one.config.get("epochs", 1)) for one in runs)


@dataclass(frozen=True)
class RunningJob:
    """Where a job stands, by what it has printed."""

    workers: int
    epochs_left: int
    epoch_seconds: float | None  # median of its last epochs on these workers; None before any


def read_log(text: str) -> RunningJob:
    """Read what a job has printed, whatever its launcher puts before each line.

    Raises UsageError where it has not said yet how many ranks it has and how many epochs.
    """
    workers = epoch = epochs = 0
    seconds: list[float] = []
    for line in text.splitlines():
        if found := _RANKS.search(line) or _GOES_ON.search(line):
            workers, seconds = int(found[1]), []
        elif found := _EPOCH.search(line):
            epoch, epochs = int(found[1]), int(found[2])
            seconds.append(float(found[3]))
    if not workers or not epochs:
        raise UsageError(
            "--log: expected the output of a job that has trained an epoch, with its line of ranks "
            "and a line for each epoch (--progress lines), got none: wait for it"
        )
    recent = seconds[-_RECENT_EPOCHS:]
    return RunningJob(workers, epochs - epoch, statistics.median(recent) if recent else None)


def _text_of(file: Path) -> str:
    try:
        return read_regular(file, _MOST_LOG_BYTES).decode("utf-8", errors="replace")
    except OSError as problem:
        raise UsageError(f"--log: cannot read {file}: {problem.strerror}") from None


# --- the decision ---------------------------------------------------------------------------------


def _say_decision(curve: Curve, policy: Policy, terms: Terms, now: Standing, workers: int) -> None:
    before = f" (now {now.workers})" if now.workers else ""
    print(
        f"workers    {workers}{before}: {policy}; {curve.at(workers):.2f} s an epoch, efficiency "
        f"{curve.efficiency(workers):.2f}, {workers * terms.price:g} an hour, "
        f"{now.epochs_left * curve.at(workers) / 60:.1f} min for {now.epochs_left:g} epochs"
    )


def _set(options: argparse.Namespace, workers: int) -> None:
    """Give the job so many workers, or say how that is done. Raises UsageError."""
    if options.host_file is not None:
        hosts = options.hosts[:workers]
        print(f"hosts      {' '.join(hosts)} to {options.host_file}")
        if not options.dry_run:
            write_whole(options.host_file, "".join(f"{host}\n" for host in hosts))
    if options.apply is not None:
        words = patch_command(options.apply, options.namespace, workers)
        print(f"kubectl    {shlex.join(words)}")
        if not options.dry_run:
            _do(words)


def patch_command(job: str, namespace: str | None, workers: int) -> list[str]:
    """The words that give an MPIJob so many workers."""
    path = "/spec/mpiReplicaSpecs/Worker/replicas"
    change = [{"op": "replace", "path": path, "value": workers}]
    where = ["--namespace", namespace] if namespace else []
    return ["kubectl", "patch", "mpijob", job, *where, "--type=json", "-p", json.dumps(change)]


def _do(words: Sequence[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise UsageError(f"--apply: {words[0]}: {one_line(problem)}; --dry-run prints it") from None
    if done.returncode:
        raise UsageError(f"--apply: kubectl: {one_line(done.stderr)[:300]}")


# --- the simulation -------------------------------------------------------------------------------


def _simulate(
    options: argparse.Namespace,
    curve: Curve,
    policies: Sequence[Policy],
    terms: Terms,
    runs: Sequence[RunRecord],
) -> int:
    epochs = options.epochs or _epochs_of(runs)
    sizes = [size for size in curve.seconds if terms.fewest <= size <= terms.most]
    fixed = [static(curve, terms, size, epochs) for size in sizes]
    by_policy = [simulated(curve, policy, terms, epochs) for policy in policies]
    rows = table(fixed, by_policy)
    widths = (18, 12, 12, 12, 16, 18)
    for row in [_COLUMNS, *rows]:
        cells = [three_digits(cell) if isinstance(cell, float) else str(cell) for cell in row]
        print(
            "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        )
    if options.json is not None:
        record = _record(options, curve, terms, epochs, rows, runs)
        write_whole(options.json, json.dumps(record, indent=1) + "\n")
    if options.figure is not None:
        # matplotlib takes most of a second to import
        from gnn_core.deploy.scaling_figure import draw

        draw(fixed, by_policy, options.figure)
        print(f"drew       {options.figure}", file=sys.stderr)
    return 0


_COLUMNS = ("run", "minutes", "cost", "x time", "cost saved %", "workers")


def table(fixed: Sequence[Outcome], by_policy: Sequence[Outcome]) -> list[list[Any]]:
    """A row for each fixed size and each policy, beside the fixed size that is fastest."""
    fastest = min(fixed, key=lambda one: (one.seconds, one.cost))
    return [
        [
            one.name,
            one.seconds / 60,
            one.cost,
            one.seconds / fastest.seconds,
            round(100 * (1 - one.cost / fastest.cost), 6) + 0.0,  # no -0
            _spans(one.sizes),
        ]
        for one in [*fixed, *by_policy]
    ]


def _spans(sizes: Sequence[int]) -> str:
    """The workers of a run, as in `2 x 60, 1 x 40`: so many workers for so many epochs."""
    spans: list[list[int]] = []
    for size in sizes:
        if not spans or spans[-1][0] != size:
            spans.append([size, 0])
        spans[-1][1] += 1
    return ", ".join(f"{size} x {count}" for size, count in spans)


def _record(
    options: argparse.Namespace,
    curve: Curve,
    terms: Terms,
    epochs: int,
    rows: Sequence[Sequence[Any]],
    runs: Sequence[RunRecord],
) -> dict[str, Any]:
    """Everything that was simulated, as JSON can hold it, in the form of a benchmark."""
    commit, is_dirty = machine.commit()
    return {
        "benchmark": "autoscale",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": runs[0].machine,
        "versions": machine.versions(),
        "commit": commit,
        "dirty": is_dirty,
        "settings": {
            "dataset": runs[0].dataset.name,
            "strategy": options.strategy,
            "epochs": epochs,
            "price": terms.price,
            "resize_seconds": terms.resize_seconds,
        },
        "curve": {str(size): seconds for size, seconds in curve.seconds.items()},
        "columns": list(_COLUMNS),
        "rows": [list(row) for row in rows],
        "notes": [
            "simulated: median seconds of an epoch of runs on so many workers, and the time "
            "without training when their number changes",
            "x time, cost saved: beside the fixed number of workers that is fastest; workers: "
            "number x epochs",
        ],
    }
