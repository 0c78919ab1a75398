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
from pathlib import Path
from typing import Any

from gnn_core.bench.bench_file import origin, spread_text, write_bench
from gnn_core.config import RunConfig
from gnn_core.data import datasets
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.measure.records import read_records, require_writable
from gnn_core.measure.run_record import RunRecord
from gnn_core.sweep.child import reason, run_to_end
from gnn_core.sweep.launches import Launch
from gnn_core.usage import Parser, UsageError, whole

# By the name for --only: the title of the row.
_WAYS = {
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
    if options.json:
        require_writable(Path(options.json).parent, "json")
    hardware = machine.hardware()  # before the benchmark is a load of its own
    datasets.load(options.dataset, progress=print)
    commands = _commands(options.dataset, options.ranks)
    seconds: dict[str, dict[str, list[float]]] = {
        name: {"warm": [], "cold": []} for name in options.only
    }
    for name in options.only:  # compiles kernels, fetches files
        print(f"warming up  {_WAYS[name]}", flush=True)
        _start_seconds(commands[name])
    measure = {"warm": _start_seconds, "cold": _cold_start_seconds}
    for state, rounds in (("warm", options.rounds), ("cold", options.cold_rounds)):
        for number in range(1, rounds + 1):
            for name in options.only:
                found = measure[state](commands[name])
                seconds[name][state].append(found)
                print(f"{state} {number}/{rounds}  {_WAYS[name]:<28}{found:6.2f} s", flush=True)
    record = _record(options, seconds, hardware)
    for row in record["rows"]:
        print("{:<30}{:>22}{:>22}".format(*row))
    print("\n".join(record["notes"]))
    if options.json:
        write_bench(Path(options.json), record)
    return 0


def _parse() -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m baselines.start_bench")
    add = parser.add_argument
    add("--dataset", default=RunConfig().dataset, help="as in training (default: %(default)s)")
    add("--ranks", type=whole(), default=2, help="of the launchers (default: %(default)s)")
    add("--rounds", type=whole(), default=5, help="warm starts of each (default: %(default)s)")
    add("--cold-rounds", type=whole(), default=1, help="cold starts of each (default: %(default)s)")
    add(
        "--only",
        nargs="+",
        choices=[*_WAYS],
        default=[*_WAYS],
        metavar="NAME",
        help=f"of {', '.join(_WAYS)} (default: all)",
    )
    add("--json", type=path_argument, metavar="FILE", help="also write a record of all figures")
    return parser.parse_args()


def _commands(dataset: str, ranks: int) -> dict[str, list[str]]:
    """The words that start each way, as a user types them. Raises UsageError without a launcher."""
    flags = ["--dataset", dataset, "--epochs", "1", "--progress", "off"]
    mpirun = [str(Path(sys.executable).parent / "mpirun"), "-np", str(ranks), sys.executable]
    return {
        "single": Launch("single", 1).command(flags),
        "horovodrun": Launch("horovod", ranks).command(flags),
        "mpirun-horovod": [*mpirun, "horovod_gnn/train.py", *flags],
        "torchrun": Launch("ddp", ranks).command(flags),
        "mpirun-ddp": [*mpirun, "baselines/ddp.py", *flags],
    }


def _start_seconds(command: Sequence[str]) -> float:
    """Run the command to its end; the seconds until its first step. Raises UsageError."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        started = time.time()
        code = run_to_end([*command, "--records", folder], log)
        records, _ = read_records(folder)
        if code != 0 or not records or records[-1].finished_at is None:
            raise UsageError(f"{' '.join(command)} failed: {reason(log, code)}")
        return _first_step_at(records[-1]) - started


def _first_step_at(record: RunRecord) -> float:
    assert record.finished_at is not None
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
    seconds: Mapping[str, Mapping[str, Sequence[float]]],
    hardware: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, as JSON can hold it."""
    notes = [
        "seconds from the command to the first training step: median (least .. most)",
        "cold: no compiled kernels, and the files of the Python environment not in memory",
    ]
    if (hardware["load_average"] or 0) > 0.5:
        notes.append("other programs are running: these are the times that they leave")
    return {
        "benchmark": "start of a run",
        **origin(hardware),
        "settings": {
            "dataset": options.dataset,
            "ranks": options.ranks,
            "rounds": options.rounds,
            "cold_rounds": options.cold_rounds,
        },
        "columns": ["started by", "warm s", "cold s"],
        "rows": [
            [_WAYS[name], spread_text(of["warm"], 1), spread_text(of["cold"], 1)]
            for name, of in seconds.items()
        ],
        "notes": notes,
    }


if __name__ == "__main__":
    sys.exit(guarded(main))
