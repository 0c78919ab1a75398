"""Measure what an allreduce costs between the ranks as they are placed: seconds by message size.

    horovodrun -np 2 python horovod_gnn/probe.py                         # 4 bytes to 16 MiB
    horovodrun -np 2 -H one:1,two:1 python horovod_gnn/probe.py --json two.json
    mpirun -np 1 python horovod_gnn/probe.py --json one.json          # what no network is part of

The collective is that of training, `Parallel.sum_` of one fp32 buffer. Before each the ranks meet,
then all of them wait for the same part of Horovod's cycle: in training a step comes at any moment
of it, and right behind a barrier it would always come at the worst one. A repetition takes as long
as its slowest rank. `python -m gnn_core.report.scaling` predicts larger worlds from the files.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from gnn_core.launch import guarded, launched_rank, require_packages

if __name__ == "__main__":
    require_packages("torch")

import numpy as np
import torch

from gnn_core.bench.frame import add_json_flag, table_text, was_busy, write_bench
from gnn_core.measure import machine
from gnn_core.number_text import counted, three_digits
from gnn_core.usage import Parser, UsageError, finite, whole
from horovod_gnn.parallel import HorovodWorld, SingleProcess

_SIZES = tuple(4**power for power in range(1, 13))  # 4 B .. 16 MiB
_WARM_UP = 3
_LEAST = 5  # repetitions, however slow
_GOLDEN = 0.6180339887498949  # its multiples, mod 1, fill an interval evenly in any number


def main(
    join: Callable[[], SingleProcess] = HorovodWorld,
    strategy: str = "horovod",
    argv: Sequence[str] | None = None,
) -> int:
    """Meet the other ranks by `join`, measure, print and write; 0. Raises UsageError."""
    hardware = machine.hardware()  # before the probe is a load of its own
    parallel = join()
    with parallel.errors_on_all_ranks():
        options = _parse(argv)
    torch.set_num_threads(1)
    cycle_seconds = _cycle_seconds(strategy)
    samples = []
    for num_bytes in options.bytes:
        samples.append(_measure(parallel, num_bytes, cycle_seconds, options))
        _log(f"{num_bytes} bytes: {counted(len(samples[-1]), 'repetition')} done")
    with parallel.errors_on_all_ranks():
        if parallel.rank == 0:
            _report(_record(parallel, strategy, options, samples, hardware), options.json)
    parallel.leave()
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__)
    add = parser.add_argument
    add(
        "--bytes",
        type=whole(4, 1 << 30),
        nargs="+",
        default=list(_SIZES),
        metavar="N",
        help="message sizes, multiples of 4 (default: 4 .. 16777216 in powers of 4)",
    )
    add(
        "--repetitions",
        type=whole(_LEAST),
        default=100,
        help="of each size, fewer where they would take longer than --seconds (default: 100)",
    )
    add("--seconds", type=finite(0, 86_400), default=4.0, help="for each size, about (default: 4)")
    add_json_flag(parser)
    options = parser.parse_args(argv)
    for size in options.bytes:
        if size % 4:
            raise UsageError(f"--bytes: expected multiples of 4, got {size}")
    if not options.seconds > 0:
        raise UsageError(f"--seconds: expected more than 0, got {options.seconds:g}")
    # Rank 0 writes it; another host need not have that folder.
    if options.json is not None and launched_rank() == 0 and not options.json.parent.is_dir():
        raise UsageError(f"--json: expected a folder that is there, got {options.json.parent}")
    return options


def _measure(
    parallel: SingleProcess, num_bytes: int, cycle_seconds: float, options: argparse.Namespace
) -> np.ndarray:
    """Seconds `[repetitions]` of one allreduce, float64, of the slowest rank of each."""
    message = torch.zeros(num_bytes // 4)
    # The count has to be one on all ranks: it is settled by what the warm-up took the slowest.
    usual = min(_once(parallel, message, 0.0) for _ in range(_WARM_UP))
    slowest = max(parallel.gather(usual)) + cycle_seconds
    count = int(np.clip(options.seconds / slowest, _LEAST, options.repetitions))
    mine = [
        _once(parallel, message, cycle_seconds * (number * _GOLDEN % 1.0))
        for number in range(count)
    ]
    return np.max(parallel.gather(mine), axis=0)


def _once(parallel: SingleProcess, message: torch.Tensor, pause_seconds: float) -> float:
    parallel.barrier()
    time.sleep(pause_seconds)  # a wait that computes would take the core from a slower rank
    begun = time.perf_counter()
    parallel.sum_(message)
    return time.perf_counter() - begun


def _cycle_seconds(strategy: str) -> float:
    """How often Horovod's thread looks for work, as `parallel` sets it; 0 of others."""
    if strategy != "horovod":
        return 0.0
    return float(os.environ.get("HOROVOD_CYCLE_TIME", 0)) / 1000


def _record(
    parallel: SingleProcess,
    strategy: str,
    options: argparse.Namespace,
    samples: Sequence[np.ndarray],
    hardware: dict[str, Any],
) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, as JSON can hold it."""
    hosts = list(dict.fromkeys(parallel.rank_hosts))
    quartiles = [np.percentile(some, (25, 50, 75)).tolist() for some in samples]
    placed = f"{counted(parallel.world_size, 'rank')} on {counted(len(hosts), 'host')}"
    notes = [
        "ms of the slowest rank: median and quartiles over the repetitions",
        "each behind a barrier and a pause, at any moment of Horovod's cycle"
        if _cycle_seconds(strategy)
        else "each behind a barrier",
    ]
    if was_busy(hardware):
        notes.append("other programs are running: these are the times that they leave")
    return {
        "benchmark": f"allreduce, {strategy}, {placed}",
        **machine.origin(hardware),
        "settings": {
            "strategy": strategy,
            "ranks": parallel.world_size,
            "hosts": len(hosts),
            "cycle_ms": 1000 * _cycle_seconds(strategy) or None,
        },
        "probe": {
            "strategy": strategy,
            "controller": parallel.controller,
            "num_ranks": parallel.world_size,
            "hosts": hosts,
            "ranks_per_host": [parallel.rank_hosts.count(host) for host in hosts],
            "message_bytes": options.bytes,
            "repetitions": [len(some) for some in samples],
            "lower_quartile_seconds": [low for low, _, _ in quartiles],
            "median_seconds": [middle for _, middle, _ in quartiles],
            "upper_quartile_seconds": [high for _, _, high in quartiles],
        },
        "columns": ["bytes", "median ms", "quartiles", "MB/s", "repetitions"],
        "rows": [
            [
                size,
                1000 * middle,
                f"{three_digits(1000 * low)} .. {three_digits(1000 * high)}",
                size / middle / 1e6,
                len(some),
            ]
            for size, (low, middle, high), some in zip(
                options.bytes, quartiles, samples, strict=True
            )
        ],
        "notes": notes,
    }


def _report(record: dict[str, Any], file: Path | None) -> None:
    table, notes = table_text(record)
    print("\n".join([record["benchmark"], "", table, "", *notes]), flush=True)
    if file is not None:
        write_bench(file, record)


def _log(line: str) -> None:
    if launched_rank() == 0:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(guarded(main))
