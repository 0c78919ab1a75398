"""What ranks on two hosts wait for: Horovod's ways to negotiate and torch's Gloo, taking turns.

    python tests/hosts/measure_controllers.py --json controllers.json     # as root, quiet machine

The hosts are network namespaces of this machine, a rank on each, joined by a link of `--rate`. As
on one host, the default graph is trained; seconds of an epoch and of its allreduces are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from gnn_core.bench.frame import median_and_range, write_bench  # noqa: E402
from gnn_core.measure import machine  # noqa: E402
from gnn_core.measure.records import read_records  # noqa: E402
from gnn_core.report.tables.benches import bench_table, read_benches  # noqa: E402
from gnn_core.usage import Parser, UsageError  # noqa: E402
from tests.hosts.namespace_hosts import Hosts, Link, obstacle  # noqa: E402

TRAIN = "horovod_gnn/train.py"
ENTRIES: dict[str, tuple[str, dict[str, str]]] = {  # name: program, environment of its ranks
    "horovod over mpi": (TRAIN, {}),
    "horovod over mpi, cycles of 0.5 ms": (
        TRAIN,
        {"HOROVOD_WAKE_ON_ENQUEUE": "0", "HOROVOD_CYCLE_TIME": "0.5"},
    ),
    "horovod over mpi, cycles of 5 ms": (
        TRAIN,
        {"HOROVOD_WAKE_ON_ENQUEUE": "0", "HOROVOD_CYCLE_TIME": "5"},
    ),
    "ddp over gloo": ("baselines/ddp.py", {}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; 2 after a mistake reported in one line."""
    parser = Parser.of(__doc__)
    add = parser.add_argument
    add("--rate", type=float, default=1000.0, help="Mbit/s of a link (default: %(default)s)")
    add("--rounds", type=int, default=3, help="how often each takes its turn")
    add("--epochs", type=int, default=6, help="of each run, the first of which is not counted")
    add("--json", type=Path, metavar="FILE", help="also write a record of all figures")
    options = parser.parse_args(argv)
    if problem := obstacle():
        print(f"error: {problem}", file=sys.stderr)
        return 2
    hardware = machine.hardware()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ENTRIES}
    with Hosts(2, Link(options.rate, 0.0)) as hosts:
        names = list(ENTRIES)
        for number in range(options.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                seconds[name].append(_run(hosts, *ENTRIES[name], options.epochs))
                print(f"round {number + 1}  {name}  {seconds[name][-1]}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        path = options.json or Path(folder, "bench.json")
        write_bench(path, _record(options, hardware, seconds))
        benches, _ = read_benches(path)
        table = bench_table(benches[0])
        print("\n".join([table.markdown(), "", *(f"- {note}" for note in table.notes)]))
    return 0


def _run(
    hosts: Hosts, program: str, environment: dict[str, str], epochs: int
) -> tuple[float, float]:
    """Median seconds of an epoch after the first, and of `communicate` in it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"{name}={value}" for name, value in environment.items()]
        flags = ["--epochs", str(epochs), "--progress", "off", "--records", folder]
        command = ["env", *settings, sys.executable, program, *flags]
        done = hosts.mpirun(2, command, cwd=ROOT, timeout=600)
        records, _ = read_records(folder) if done.returncode == 0 else ([], [])
        if not records:
            raise UsageError(f"{program} ended with {done.returncode}: {done.stderr[-500:]}")
        laps = records[0].epochs[1:]
        communicate = statistics.median(lap.sections["communicate"] for lap in laps)
        return statistics.median(lap.seconds for lap in laps), communicate


def _record(
    options: argparse.Namespace, hardware: Any, seconds: dict[str, list[tuple[float, float]]]
) -> dict[str, Any]:
    first = next(iter(seconds))
    rows = []
    for name, rounds in seconds.items():
        ratios = [a[0] / b[0] for a, b in zip(seconds[first], rounds, strict=True)]
        communicate = statistics.median(one[1] for one in rounds)
        rows.append(
            [
                name,
                statistics.median(one[0] for one in rounds),
                communicate,
                median_and_range(ratios),
            ]
        )
    return {
        "benchmark": "controllers on two hosts",
        **machine.origin(hardware),
        "settings": {
            "dataset": "synthetic",
            "mbit_per_second": options.rate,
            "epochs": options.epochs,
            "rounds": options.rounds,
        },
        "seconds": seconds,
        "columns": ["two hosts", "s/epoch", "communicate", "x as fast"],
        "rows": rows,
        "notes": [
            "hosts: network namespaces of one machine, a rank on each",
            "s/epoch and communicate: medians of a run's epochs but the first, then of the rounds; "
            f"x as fast: as {first}, round by round: median (least .. most)",
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
