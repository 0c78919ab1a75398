"""Stragglers benchmark: what one slow rank costs, with equal shares and with `--balance`.

    python -m baselines.stragglers_bench                                # 2 ranks, one at half speed
    python -m baselines.stragglers_bench --dataset synthetic-arxiv --epochs 3
    python -m baselines.stragglers_bench --strategy ddp --speed 0.7 --json stragglers.json

The last rank is stopped for a part of every few milliseconds (SIGSTOP, SIGCONT), as by another
program on its core. With equal shares every step waits for it. *Of what is there*: targets per
second, against those of ranks that are all at full speed, times the mean speed of the ranks. Runs
take turns; their loss curves are compared as well.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gnn_core.bench.frame import (
    Variant,
    add_json_flag,
    add_rounds_flag,
    median_and_range,
    ratios,
    require_place,
    run_training,
    table_text,
    take_turns,
    write_bench,
)
from gnn_core.config import parse_config
from gnn_core.data import datasets
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.measure.run_record import RunRecord
from gnn_core.sweep.launches import Launch
from gnn_core.usage import Parser, UsageError, whole

_PERIOD_SECONDS = 0.005  # shorter than a step: longer stops stall all ranks, whatever the shares
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "RANK")
_ALL_ALIKE, _SLOWED, _BALANCED = "all at full speed", "one slowed", "one slowed, --balance"


def main(argv: Sequence[str] | None = None) -> int:
    """Let the variants take turns and print what they took; the exit code."""
    options = _parse(argv)
    hardware = machine.hardware()  # before the benchmark is a load of its own
    flags = ["--dataset", options.dataset, "--epochs", str(options.epochs)]
    flags += ["--eval-every", str(options.epochs), "--progress", "off"]
    config = parse_config(flags, "compare")
    require_place(options.json)
    datasets.load(config.dataset, config.data_root, config.cache_dir, progress=_say)

    def run(name: str) -> RunRecord:
        more = ["--balance", str(options.balance)] if name == _BALANCED else []
        command = Launch(options.strategy, options.ranks).command([*flags, *more])
        slow = contextlib.nullcontext() if name == _ALL_ALIKE else _slowed(options)
        with slow:
            return run_training(command, name)

    names = (_ALL_ALIKE, _SLOWED, _BALANCED)
    variants = [Variant(name, partial(run, name)) for name in names]
    take_turns(variants, options.rounds, lambda record: f"{_rate(record):,.0f} targets/s")
    result = _result(options, {one.name: one.results for one in variants}, hardware)
    table, notes = table_text(result)
    print("\n".join([table, "", *(f"- {note}" for note in notes)]))
    if options.json:
        write_bench(options.json, result)
    return 0


def _rate(record: RunRecord) -> float:
    """Targets per second in the median epoch of the second half, when shares have settled."""
    late = record.epochs[len(record.epochs) // 2 :]
    rates = [epoch.num_targets / epoch.seconds for epoch in late if epoch.seconds]
    if not rates:
        raise UsageError("a run failed: it trained for no epoch that counts")
    return statistics.median(rates)


@contextlib.contextmanager
def _slowed(options: argparse.Namespace) -> Iterator[None]:
    """Slow the last rank of what is started meanwhile."""
    done = threading.Event()
    thread = threading.Thread(target=_slow_down, args=(options.ranks - 1, options.speed, done))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _slow_down(rank: int, speed: float, done: threading.Event) -> None:
    """Let that rank run for a part of the time, from when it is there."""
    found: psutil.Process | None = None
    while not done.wait(_PERIOD_SECONDS * speed):
        found = found or _process_of(rank)
        if found is None:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            found.send_signal(signal.SIGSTOP)
            done.wait(_PERIOD_SECONDS * (1 - speed))
            found.send_signal(signal.SIGCONT)


def _process_of(rank: int) -> psutil.Process | None:
    """The process of a rank that this one has started."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words, names = child.cmdline(), child.environ()
            is_python = bool(words) and Path(words[0]).name.startswith("python")
            given = [names[name] for name in _RANK_VARIABLES if name in names]
            if is_python and given and given[0] == str(rank):
                return child
    return None


def _result(
    options: argparse.Namespace, runs: dict[str, list[RunRecord]], hardware: dict[str, Any]
) -> dict[str, Any]:
    """Everything that was measured, as JSON can hold it."""
    rates = {name: [_rate(record) for record in records] for name, records in runs.items()}
    there = (options.ranks - 1 + options.speed) / options.ranks
    rows: list[list[Any]] = []
    for name, mine in rates.items():
        speeds = 1.0 if name == _ALL_ALIKE else there
        possible = [rate * speeds for rate in rates[_ALL_ALIKE]]
        edges = runs[name][-1].epochs[-1].rank_edges
        rows.append(
            [
                name,
                statistics.median(mine),
                f"{min(mine):,.0f} .. {max(mine):,.0f}",
                median_and_range(ratios(mine, possible)),
                f"{edges[-1] / sum(edges):.2f}",
            ]
        )
    losses = np.array(
        [record.step_losses for records in runs.values() for record in records], np.float64
    )
    apart = float(np.abs(losses / losses[0] - 1).max())
    return {
        "benchmark": "stragglers",
        **machine.origin(hardware),
        "settings": {
            "dataset": options.dataset,
            "strategy": options.strategy,
            "ranks": options.ranks,
            "speed": options.speed,
            "balance": options.balance,
            "epochs": options.epochs,
            "rounds": options.rounds,
        },
        "rates": rates,
        "columns": ["run", "targets/s", "range", "of what is there", "share of the last rank"],
        "rows": rows,
        "notes": [
            "targets/s: median over the second half of the epochs, then over rounds; ratios are "
            "made round by round: median (least .. most)",
            f"of what is there: targets/s / those of all at full speed x {there:g}, the mean speed "
            "of the ranks",
            f"slowed: the last rank is stopped for {1 - options.speed:.0%} of every "
            f"{_PERIOD_SECONDS:g} s; share: of the sampled edges, in the last epoch",
            f"loss of a step: at most {apart:.0e} apart over all runs, relatively",
        ],
    }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m baselines.stragglers_bench", allow_abbrev=False)
    add = parser.add_argument
    add("--dataset", default="synthetic", metavar="NAME", help="data set (default: synthetic)")
    add("--strategy", default="horovod", choices=("horovod", "ddp"), help="(default: horovod)")
    add("--ranks", type=whole(2), default=2, metavar="N", help="processes (default: 2)")
    add("--speed", type=float, default=0.5, metavar="X", help="of the last rank (default: 0.5)")
    add("--balance", type=whole(), default=10, metavar="N", help="as in training (default: 10)")
    add("--epochs", type=whole(2), default=10, metavar="N", help="of a run (default: 10)")
    add_rounds_flag(parser, 5, "how often each takes its turn")
    add_json_flag(parser)
    options = parser.parse_args(argv)
    if not 0.05 <= options.speed < 1:
        parser.error(f"--speed: expected 0.05 or more, below 1, got {options.speed}")
    return options


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(guarded(main))
