"""How long a run takes to start: `python -m baselines.start_bench` times it under every launcher.

From the command to the first training step, by the record that each run leaves: its end, less the
seconds of its only epoch and of its evaluation. Cold runs find nothing: no compiled kernels, and
the files of the Python environment not in memory, as far as no other process has them open.
The launchers take turns, so that whatever else the machine does meets them alike.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from gnn_core.bench.frame import (
    Variant,
    add_json_flag,
    add_rounds_flag,
    columns_text,
    median_and_range,
    require_place,
    run_training,
    take_turns,
    was_busy,
    write_bench,
)
from gnn_core.config import RunConfig
from gnn_core.data import datasets
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.measure.run_record import RunRecord
from gnn_core.strategies import STRATEGIES
from gnn_core.sweep.launches import Launch
from gnn_core.usage import Parser, whole

# Name for --only -> title of the row.
_TITLES = {
    "single": "python baselines/single.py",
    "horovodrun": "horovodrun, Horovod",
    "mpirun-horovod": "mpirun, Horovod",
    "torchrun": "torchrun, ddp",
    "mpirun-ddp": "mpirun, ddp",
}
_KERNELS = "NUMBA_CACHE_DIR"  # where Numba keeps what it has compiled, instead of __pycache__


def main() -> int:
    """Measure and print; the exit code."""
    options = _parse()
    require_place(options.json)
    hardware = machine.hardware()  # before the benchmark is a load of its own
    datasets.load(options.dataset, progress=print)
    commands = _commands(options.dataset, options.ranks)
    for name in options.only:  # compiles kernels, fetches files
        print(f"warming up  {_TITLES[name]}", file=sys.stderr, flush=True)
        _start_seconds(commands[name])
    warm, cold = (
        [Variant(_TITLES[name], partial(measure, commands[name])) for name in options.only]
        for measure in (_start_seconds, _cold_start_seconds)
    )
    take_turns(warm, options.rounds, "{:6.2f} s, warm".format)
    take_turns(cold, options.cold_rounds, "{:6.2f} s, cold".format)
    record = _record(options, warm, cold, hardware)
    print("\n".join([columns_text(record["rows"], (30, 22, 22)), *record["notes"]]))
    if options.json:
        write_bench(options.json, record)
    return 0


def _parse() -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m baselines.start_bench")
    add = parser.add_argument
    add("--dataset", default=RunConfig().dataset, help="as in training (default: %(default)s)")
    add("--ranks", type=whole(), default=2, help="of the launchers (default: %(default)s)")
    add_rounds_flag(parser, 5, "warm starts of each")
    add("--cold-rounds", type=whole(), default=1, help="cold starts of each (default: %(default)s)")
    add(
        "--only",
        nargs="+",
        choices=[*_TITLES],
        default=[*_TITLES],
        metavar="NAME",
        help=f"of {', '.join(_TITLES)} (default: all)",
    )
    add_json_flag(parser)
    return parser.parse_args()


def _commands(dataset: str, ranks: int) -> dict[str, list[str]]:
    """The words that start each way, as a user types them. Raises UsageError without a launcher."""
    flags = ["--dataset", dataset, "--epochs", "1", "--progress", "off"]
    mpirun = [str(Path(sys.executable).parent / "mpirun"), "-np", str(ranks), sys.executable]
    return {
        "single": Launch("single", 1).command(flags),
        "horovodrun": Launch("horovod", ranks).command(flags),
        "mpirun-horovod": [*mpirun, STRATEGIES["horovod"].program, *flags],
        "torchrun": Launch("ddp", ranks).command(flags),
        "mpirun-ddp": [*mpirun, STRATEGIES["ddp"].program, *flags],
    }


def _start_seconds(command: Sequence[str]) -> float:
    """Run the command to its end; the seconds until its first step. Raises UsageError."""
    started = time.time()
    return _first_step_at(run_training(command, " ".join(command))) - started


def _first_step_at(record: RunRecord) -> float:
    assert record.finished_at is not None  # nor are the seconds of a run that ended
    assert record.training_seconds is not None and record.evaluation_seconds is not None
    ended = datetime.fromisoformat(record.finished_at).timestamp()
    return ended - record.training_seconds - record.evaluation_seconds


def _cold_start_seconds(command: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as empty:
        os.environ[_KERNELS] = empty
        try:
            for file in _environment_files():
                _drop_from_memory(file)
            return _start_seconds(command)
        finally:
            del os.environ[_KERNELS]


def _environment_files() -> Iterator[Path]:
    """Every file of the Python environment that this program runs in."""
    return (path for path in Path(sys.prefix).rglob("*") if path.is_file())


def _drop_from_memory(file: Path) -> None:
    """Let the kernel forget a file that it keeps in memory, unless a process has mapped it."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _record(
    options: argparse.Namespace,
    warm: Sequence[Variant[float]],
    cold: Sequence[Variant[float]],
    hardware: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, as JSON can hold it."""
    notes = [
        "seconds from the command to the first training step: median (least .. most)",
        "cold: no compiled kernels, and the files of the Python environment not in memory",
    ]
    if was_busy(hardware):
        notes.append("other programs are running: these are the times that they leave")
    return {
        "benchmark": "start of a run",
        **machine.origin(hardware),
        "settings": {
            "dataset": options.dataset,
            "ranks": options.ranks,
            "rounds": options.rounds,
            "cold_rounds": options.cold_rounds,
        },
        "columns": ["started by", "warm s", "cold s"],
        "rows": [
            [one.name, median_and_range(one.results, 1), median_and_range(other.results, 1)]
            for one, other in zip(warm, cold, strict=True)
        ],
        "notes": notes,
    }


if __name__ == "__main__":
    sys.exit(guarded(main))
