"""Hold the prediction of `gnn_core.report.scaling` to what 4 hosts do, made on this one machine.

    results/scaling_hosts.sh                                    # as root, on a quiet machine
    python tests/hosts/measure_hosts.py --rates 100 --rounds 1  # a look at it

For each speed of the links an allreduce is probed on 1, 2 and 4 hosts, and the default graph is
trained on as many. From 1 and 2 of them the formula is fitted and predicts what 4 will take; then
that is compared. Nothing of 4 hosts goes into the fit.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from gnn_core.bench.frame import write_bench  # noqa: E402
from gnn_core.measure import machine  # noqa: E402
from gnn_core.measure.records import read_records  # noqa: E402
from gnn_core.measure.run_record import RunRecord  # noqa: E402
from gnn_core.report.prediction.allreduce import Cost, fit  # noqa: E402
from gnn_core.report.prediction.probe_files import Probe, read_probes  # noqa: E402
from gnn_core.report.prediction.work import communicate_of, efficiency_of, predict, work_in  # noqa: E402
from gnn_core.report.tables.benches import bench_table, read_benches  # noqa: E402
from gnn_core.sweep.launches import seen_from_root  # noqa: E402
from gnn_core.usage import Parser, UsageError  # noqa: E402
from tests.hosts.namespace_hosts import Hosts, Link, can_delay, obstacle  # noqa: E402

COUNTS = (1, 2, 4)  # of hosts, with a rank on each
FITTED = (1, 2)
COLUMNS = [
    "link",
    "hosts",
    "predicted ms",
    "probed ms",
    "off by",
    "all sizes",
    "in training ms",
    "training off by",
    "efficiency predicted",
    "measured",
    "loss apart",
]


@dataclass(frozen=True)
class Trial:
    """What was measured over links of one speed."""

    link: Link
    probes: list[Probe]  # beside COUNTS
    records: list[RunRecord]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; 2 after a mistake reported in one line, 130 after Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # past every `finally`
    try:
        options = _parse(argv)
        if problem := obstacle():
            raise UsageError(f"expected a machine that several hosts can be made on: {problem}")
        hardware = machine.hardware()  # before the measurement is a load of its own
        delay = options.delay_ms / 1000 if can_delay() else 0.0
        trials = [_trial(Link(rate, delay), options) for rate in options.rates]
        record = _record(trials, options, hardware)
        with tempfile.TemporaryDirectory() as folder:
            file = options.json or Path(folder, "hosts.json")
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bench(file, record)
            table = bench_table(read_benches(file)[0][0])
        print("\n".join([table.markdown(), "", *table.notes]))
    except KeyboardInterrupt:
        return 130
    except (UsageError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__)
    add = parser.add_argument
    add("--rates", type=float, nargs="+", default=[1000.0, 100.0], help="Mbit/s of a link")
    add("--delay-ms", type=float, default=0.5, help="of a link, where the kernel has netem")
    add("--rounds", type=int, default=3, help="runs of training on each number of hosts")
    add("--epochs", type=int, default=4, help="of each run, the first a warm-up")
    add("--seconds", type=float, default=3.0, help="of a probe for each message size, about")
    add(
        "--bytes",
        type=int,
        nargs="+",
        default=[4**power for power in range(1, 13)],
        help="message sizes of a probe",
    )
    add("--train-flags", default="", help="more words for horovod_gnn/train.py")
    add("--records", type=Path, metavar="DIR", help="keep the run records, by link (default: no)")
    add("--json", type=Path, metavar="FILE", help="also write a record of all figures")
    options = parser.parse_args(argv)
    if options.records is not None and any(options.records.glob("**/*.jsonl*")):
        raise UsageError(f"--records: expected a folder without records, got {options.records}")
    if min(options.rates) <= 0 or options.rounds < 1 or options.epochs < 2:
        raise UsageError("expected --rates above 0, 1 round or more and 2 epochs or more")
    return options


def _trial(link: Link, options: argparse.Namespace) -> Trial:
    """Probe and train over links of one speed, rounds in turn."""
    with tempfile.TemporaryDirectory() as scratch, Hosts(max(COUNTS), link) as hosts:
        folder = Path(scratch, "records")
        if options.records is not None:
            # As short as it can be: it stands in the records, which tell no paths of a machine.
            folder = seen_from_root(options.records) / f"{link.megabits_per_second:g}mbit"
        for number in range(options.rounds):
            for count in COUNTS:
                _say(f"{link}: training on {count} of the hosts, round {number + 1}")
                flags = ["--epochs", str(options.epochs), "--records", str(folder)]
                flags += ["--progress", "off", *shlex.split(options.train_flags)]
                _mpirun(hosts, count, "horovod_gnn/train.py", flags)
        records, problems = read_records(ROOT / folder)
        if problems:
            raise RuntimeError(f"a record cannot be used: {problems[0]}")
        message = work_in(records, "horovod", None).message_bytes
        files = [Path(scratch, f"{count}.json") for count in COUNTS]
        for count, file in zip(COUNTS, files, strict=True):
            _say(f"{link}: probing {count} of the hosts")
            sizes = sorted({*options.bytes, message})
            flags = ["--bytes", *map(str, sizes), "--seconds", str(options.seconds)]
            _mpirun(hosts, count, "horovod_gnn/probe.py", [*flags, "--json", str(file)])
        probes = [file.probe for file in read_probes(files, "horovod")]
    _require_hosts(probes, records)
    return Trial(link, probes, records)


def _mpirun(hosts: Hosts, count: int, program: str, flags: Sequence[str]) -> None:
    done = hosts.mpirun(count, [sys.executable, program, *flags], cwd=ROOT, timeout=1800)
    if done.returncode:
        said = done.stderr[-1500:] or done.stdout[-500:]
        raise RuntimeError(f"{program} on {count} hosts ended with {done.returncode}: {said}")


def _require_hosts(probes: Sequence[Probe], records: Sequence[RunRecord]) -> None:
    """Raise RuntimeError unless each rank was on a host of its own and every run went well."""
    names = [f"h{number}" for number in range(1, max(COUNTS) + 1)]
    for hosts, ranks in (
        *((probe.hosts, probe.num_ranks) for probe in probes),
        *((run.hosts, run.world_size) for run in records),
    ):
        if hosts != names[:ranks]:
            raise RuntimeError(f"expected {ranks} ranks on {names[:ranks]}, got {hosts}")
    for run in records:
        if run.status != "ok":
            raise RuntimeError(f"a run on {run.world_size} hosts {run.status}: {run.error}")


def _record(
    trials: Sequence[Trial], options: argparse.Namespace, hardware: dict[str, Any]
) -> dict[str, Any]:
    """Everything that was measured and predicted, as JSON can hold it."""
    cores = hardware["cores_available"]
    notes = [
        "hosts: network namespaces of one machine, a rank on each, joined by a switch; each link "
        "is limited in both directions (tc)",
        f"fitted on probes of {FITTED[0]} and {FITTED[1]} hosts, message sizes that training does "
        f"not use; the rows of {max(COUNTS)} hosts are what the formula is tested by",
        "predicted, probed and in training: ms of an allreduce as large as that of a step; off by: "
        "predicted against measured; all sizes: the median of that, without its sign, over the "
        "sizes of the probe",
        "in training: the communicate section, which holds the wait for slower ranks too, and is "
        "not what the formula is about",
        "efficiency: against the run on 1 host; the predicted one knows nothing of cores that "
        "hosts share",
        "loss apart: largest relative distance of a step's loss to that on 1 host",
    ]
    if cores is not None and cores < max(COUNTS):
        notes.append(
            f"{max(COUNTS)} hosts share {cores} cores: their computing is crowded, and their waits "
            "count as communication"
        )
    if options.delay_ms and not can_delay():
        notes.append("this kernel has no netem: no delay was added, latency is that of the machine")
    if (hardware["load_average"] or 0) > 0.5:
        notes.append("other programs were running: trust none of the times")
    return {
        "benchmark": "allreduce and training over limited links: predicted and measured",
        **machine.origin(hardware),
        "settings": {
            "links": [str(trial.link) for trial in trials],
            "rounds": options.rounds,
            "epochs": options.epochs,
            "train_flags": options.train_flags or None,
        },
        "probes": [
            {"link": str(trial.link), **vars(probe)} for trial in trials for probe in trial.probes
        ],
        "columns": COLUMNS,
        "rows": [row for trial in trials for row in _rows(trial)],
        "notes": [*notes, *(line for trial in trials for line in _constants(trial))],
    }


def _rows(trial: Trial) -> list[list[Any]]:
    work = work_in(trial.records, "horovod", None)
    rows = []
    for probe in trial.probes[1:]:
        count = probe.num_ranks
        probed = probe.median_seconds[probe.message_bytes.index(work.message_bytes)]
        run = next(one for one in work.runs if one.ranks == count)
        cost = _cost(trial, work.message_bytes)
        predicted = predict(work, cost, count)
        seconds = predicted.communicate_seconds
        rows.append(
            [
                str(trial.link),
                count,
                1000 * seconds,
                1000 * probed,
                f"{100 * (seconds / probed - 1):+.0f} %",
                f"{100 * _usual_error(probe, cost):.0f} %",
                1000 * communicate_of(run),
                f"{100 * (seconds / communicate_of(run) - 1):+.0f} %",
                f"{100 * predicted.efficiency:.0f} %",
                f"{100 * efficiency_of(work, run):.0f} %",
                f"{_distance(trial.records, count):.1e}",
            ]
        )
    return rows


def _usual_error(probe: Probe, cost: Cost) -> float:
    """The relative error of the formula, its sign left off, median over the sizes of a probe."""
    predicted = cost.seconds(probe.num_ranks, probe.message_bytes)
    return float(np.median(np.abs(predicted / np.array(probe.median_seconds) - 1)))


def _cost(trial: Trial, message_bytes: int) -> Cost:
    """Return the constants from the probes of FITTED hosts, without the message of training."""
    ranks, sizes, seconds = zip(
        *(
            (probe.num_ranks, size, median)
            for probe in trial.probes
            for size, median in zip(probe.message_bytes, probe.median_seconds, strict=True)
            if probe.num_ranks in FITTED and size != message_bytes
        ),
        strict=True,
    )
    return fit(ranks, sizes, seconds).cost


def _constants(trial: Trial) -> list[str]:
    cost = _cost(trial, work_in(trial.records, "horovod", None).message_bytes)
    alpha, beta = cost.alpha_seconds, cost.beta_seconds_per_byte
    rate = f"{8e-6 / beta:.0f} Mbit/s" if beta else "no limit"
    return [
        f"{trial.link}: fixed part {1000 * cost.fixed_seconds:.2f} ms, alpha {1e6 * alpha:.0f} us, "
        f"beta {1e9 * beta:.2f} ns a byte ({rate})"
    ]


def _distance(records: Sequence[RunRecord], count: int) -> float:
    """The largest relative distance of a step's loss on so many hosts to that on one of them."""
    alone = next(run.step_losses for run in records if run.world_size == 1) or []
    apart = []
    for run in records:
        if run.world_size == count:
            for loss, other in zip(run.step_losses or [], alone, strict=True):
                assert loss is not None and other is not None  # of a run that went well
                apart.append(abs(loss - other) / abs(other))
    return max(apart)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
