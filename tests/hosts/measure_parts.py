"""What parts cost in time: replicated features, features in parts, and adjacency in parts, too.

    python tests/hosts/measure_parts.py --json parts-hosts.json        # as root, on a quiet machine
    python tests/hosts/measure_parts.py --rates --rounds 1 --epochs 2  # this host alone, any user

Two ranks of this host, and a rank on each of four hosts over limited links, train the same graph.
The variants take turns, so that whatever else the machine does meets all alike. The hosts are
network namespaces of this machine; they share its cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from gnn_core.bench.frame import (  # noqa: E402
    Variant,
    add_json_flag,
    median_and_range,
    ratios,
    require_place,
    run_training,
    table_text,
    take_turns,
    write_bench,
)
from gnn_core.data import datasets  # noqa: E402
from gnn_core.data.partition.make import Request, make_partition  # noqa: E402
from gnn_core.launch import guarded  # noqa: E402
from gnn_core.measure import machine  # noqa: E402
from gnn_core.measure.records import read_records  # noqa: E402
from gnn_core.measure.run_record import RunRecord, epoch_seconds  # noqa: E402
from gnn_core.sweep.launches import Launch  # noqa: E402
from gnn_core.usage import Parser, UsageError, finite, whole  # noqa: E402
from tests.hosts.namespace_hosts import Hosts, Link, obstacle  # noqa: E402

HERE, APART = 2, 4  # ranks on this host, and hosts with a rank on each
VARIANTS = ("replicated", "features in parts", "adjacency in parts, too")
COLUMNS = [
    *("ranks", "variant", "ms a step", "range", "x replicated", "rows MiB", "sampling MiB"),
    *("exchange", "sampling", "loss apart"),
]
NOTES = (
    "ms a step: of an epoch's seconds, the median over a run's epochs but the first, then over "
    "rounds; x replicated: of the same round, median (least .. most)",
    "rows, sampling MiB: sent by a rank in a step for rows of features, and for neighbours that "
    "the owners of nodes drew; exchange, sampling: seconds of that, in a thread beside the "
    "training, as a share of it",
    "loss apart: largest relative distance of a step's loss to that of the first run",
    "hosts: network namespaces of one machine, a rank on each, which share its cores: their "
    "computing is crowded; each link is limited in both directions",
)
Train = Callable[[Sequence[str]], RunRecord]


@dataclass(frozen=True)
class _Trial:
    """What some ranks measured in all rounds."""

    ranks: str
    records: dict[str, list[RunRecord]]  # by variant


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; 2 after a mistake reported in one line."""
    return guarded(lambda: _run(_parse(argv)))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--dataset", default="synthetic-arxiv", metavar="NAME", help="(default: %(default)s)")
    add("--fanouts", default="10,5", metavar="10,5", help="(default: %(default)s)")
    add("--cache", type=finite(0), default=0.2, help="share of a rank's rows (default: 0.2)")
    text = "of a run, the first of which is not counted (default: 2)"
    add("--epochs", type=whole(2), default=2, metavar="N", help=text)
    add("--rounds", type=whole(), default=3, metavar="N", help="on this host (default: 3)")
    add("--host-rounds", type=whole(), default=1, metavar="N", help="on hosts (default: 1)")
    add("--rates", type=finite(1), nargs="*", default=[1000.0, 100.0], help="Mbit/s of a link")
    add_json_flag(parser)
    return parser.parse_args(argv)


def _run(options: argparse.Namespace) -> int:
    require_place(options.json)
    if options.rates and (problem := obstacle()):
        raise UsageError(f"--rates: {problem}; give --rates alone for this host only")
    hardware = machine.hardware()
    with tempfile.TemporaryDirectory() as folder:
        flags = _flags(options, Path(folder))
        trials = [_trial(f"{HERE} here", _trained_here, flags[HERE], options.rounds)]
        for rate in options.rates:
            link = Link(rate)
            with Hosts(APART, link) as hosts:
                train = partial(_trained_on, hosts)
                trials.append(
                    _trial(f"{APART} hosts, {link}", train, flags[APART], options.host_rounds)
                )
    record = _record(trials, options, hardware)
    text, notes = table_text(record)
    print("\n".join([text, *notes]))
    if options.json is not None:
        write_bench(options.json, record)
    return 0


def _flags(options: argparse.Namespace, folder: Path) -> dict[int, dict[str, list[str]]]:
    """The flags of each variant, by ranks; the partitions are made first."""
    graph = datasets.load(options.dataset, progress=_say)
    common = ["--dataset", options.dataset, "--epochs", str(options.epochs), "--progress", "off"]
    common += ["--fanouts", options.fanouts, "--layers", str(options.fanouts.count(",") + 1)]
    common += ["--eval", "sampled", "--eval-nodes", "1", "--eval-every", str(options.epochs)]
    found = {}
    for ranks in {HERE, APART} if options.rates else {HERE}:
        parts = folder / f"parts-{ranks}"
        make_partition(graph, Request(ranks, topology=True), parts)
        cache = int(options.cache * graph.feature_bytes / ranks)
        in_parts = [*common, "--partitions", str(parts), "--fetch-cache", f"{cache >> 10}KiB"]
        found[ranks] = {
            VARIANTS[0]: common,
            VARIANTS[1]: in_parts,
            VARIANTS[2]: [*in_parts, "--partition-topology"],
        }
    return found


def _trained_here(flags: Sequence[str]) -> RunRecord:
    launcher, *words = Launch("horovod", HERE).command(flags)
    return run_training([launcher, "--mpi", *words], "horovod")


def _trained_on(hosts: Hosts, flags: Sequence[str]) -> RunRecord:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "horovod_gnn/train.py", *flags, "--records", folder]
        done = hosts.mpirun(APART, command, cwd=ROOT, timeout=1800)
        records, _ = read_records(folder)
        if done.returncode or not records:
            raise UsageError(f"{APART} hosts ended with {done.returncode}: {done.stderr[-500:]}")
        return records[-1]


def _trial(ranks: str, train: Train, flags: dict[str, list[str]], rounds: int) -> _Trial:
    variants = [Variant(f"{ranks}, {name}", partial(train, flags[name])) for name in VARIANTS]
    take_turns(variants, rounds, lambda record: f"{_step_ms(record):8.1f} ms a step")
    records = [variant.results for variant in variants]
    return _Trial(ranks, dict(zip(VARIANTS, records, strict=True)))


def _step_ms(record: RunRecord) -> float:
    seconds = epoch_seconds(record)
    if seconds is None:
        raise UsageError("a run trained for no epoch that counts")
    return 1000 * seconds * len(record.epochs) / len(record.step_losses or [])


def _record(
    trials: Sequence[_Trial], options: argparse.Namespace, hardware: dict[str, Any]
) -> dict[str, Any]:
    first = trials[0].records[VARIANTS[0]][0].step_losses or []
    names = ("dataset", "fanouts", "cache", "epochs", "rounds", "host_rounds")
    return machine.origin(hardware) | {
        "benchmark": "training on parts",
        "settings": {name: getattr(options, name) for name in names},
        "milliseconds": {
            trial.ranks: {name: [_step_ms(run) for run in runs] for name, runs in found.items()}
            for trial in trials
            for found in [trial.records]
        },
        "columns": COLUMNS,
        "rows": [_row(trial, name, first) for trial in trials for name in VARIANTS],
        "notes": list(NOTES),
    }


def _row(trial: _Trial, name: str, first: Sequence[float | None]) -> list[Any]:
    runs = trial.records[name]
    mine = [_step_ms(run) for run in runs]
    whole = [_step_ms(run) for run in trial.records[VARIANTS[0]]]
    cells: list[Any] = [None] * 4
    run = runs[-1]
    if (exchange := run.exchange) is not None:
        steps = exchange.steps * run.world_size * 2**20
        seconds = (exchange.seconds, exchange.sampling_seconds)
        cells = [round(exchange.bytes_sent / steps, 3), round(exchange.sampling_bytes / steps, 3)]
        training = run.training_seconds or 1.0
        cells += [f"{100 * one / training:.0f} %" for one in seconds]
    apart = max(
        abs((loss or 0.0) - (other or 0.0)) / abs(other or 1.0)
        for run in runs
        for loss, other in zip(run.step_losses or [], first, strict=True)
    )
    return [
        trial.ranks,
        name,
        round(statistics.median(mine), 1),
        f"{min(mine):.1f} .. {max(mine):.1f}",
        median_and_range(ratios(mine, whole)),
        *cells,
        f"{apart:.1e}",
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
