"""Ranks benchmark: what several ranks gain on this machine, judged against what it has to give.

    python -m baselines.ranks_bench                                  # the default graph, 2 ranks
    python -m baselines.ranks_bench --dataset synthetic-arxiv --epochs 2 --rounds 3
    python -m baselines.ranks_bench --busy 1 --json ranks.json       # on a machine with other work

One process, then Horovod over MPI, Horovod over Gloo and torch.distributed with the same ranks,
take turns. So does the *bound*: as many processes, each training on its slice of every batch as a
rank would, that never exchange a gradient. What the bound loses against a perfect speed-up is lost
to memory and cores that processes share and to neighbours that both slices need. Its weights drift
apart, so it leaves no record. Ranks that exchange gradients wait in every step for the slowest of
them; *in step* is what the bound's own steps add up to if each takes as long as its slowest rank.
Only the distance from there is the price of communication.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from baselines.process_group import ProcessGroup, join
from gnn_core.bench.bench_file import origin, spread_text, write_bench
from gnn_core.config import parse_config
from gnn_core.data import datasets
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.measure.records import read_records, require_writable
from gnn_core.measure.run_record import epoch_seconds
from gnn_core.report.tables.benches import Bench, bench_table
from gnn_core.strategies import STRATEGIES
from gnn_core.sweep.child import reason, run_to_end
from gnn_core.sweep.launches import ROOT, Launch
from gnn_core.training.run import run
from gnn_core.usage import Parser, UsageError, whole
from horovod_gnn.learner import torch_framework

_UNCOUPLED = "--uncoupled"  # first word of the command line of the bound's own processes
_TIMES = "RINGSAGE_BENCH_TIMES"  # the folder in which they leave when each step was done


@dataclass
class Entry:
    """One way to train, and the median seconds of an epoch of its run in each round."""

    name: str
    meaning: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)


class UncoupledRanks(ProcessGroup):
    """Ranks that start together and then train each by itself: their sums stay their own."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.sums: list[tuple[int, float]] = []  # elements and time of each

    def sum_(self, tensor: Tensor) -> Tensor:
        """Leave `tensor` as it is, and note when it was to be summed."""
        self.sums.append((tensor.numel(), time.monotonic()))
        return tensor

    def leave(self) -> None:
        """Write the times of the training steps, whose sums are the largest, and part."""
        largest = max(elements for elements, _ in self.sums)
        times = [when for elements, when in self.sums if elements == largest]
        Path(os.environ[_TIMES], f"{self.rank}.times").write_text(json.dumps(times))
        super().leave()


def main() -> int:
    """Let the entries take turns and print what they took; the exit code."""
    options, flags = _parse(sys.argv[1:])
    hardware = machine.hardware()  # before the benchmark is a load of its own
    config = parse_config(flags, "compare")
    if options.json:
        require_writable(options.json.parent, "json")
    datasets.load(config.dataset, config.data_root, config.cache_dir, progress=_say)
    with tempfile.TemporaryDirectory() as folder, _computing(options.busy):
        records = Path(folder)
        os.environ[_TIMES] = folder
        entries = _entries(options.ranks, [*flags, "--records", folder])
        in_step = Entry("bound, in step", "the same, each step as long as its slowest rank's", [])
        for number in range(options.rounds):
            first = number % len(entries)
            for entry in entries[first:] + entries[:first]:
                entry.seconds.append(_seconds(entry, records))
                if entry.name == "bound":
                    in_step.seconds.append(_in_step(records, options.epochs))
                _say(
                    f"round {number + 1}/{options.rounds}  {entry.name:<18}"
                    f"{entry.seconds[-1]:8.3f} s/epoch"
                )
    result = _result(options, [*entries[:2], in_step, *entries[2:]], hardware)
    table = bench_table(Bench(**{one.name: result[one.name] for one in fields(Bench)}))
    print("\n".join([table.text(), "", *(f"- {note}" for note in table.notes)]))
    if options.json:
        write_bench(options.json, result)
    return 0


@contextlib.contextmanager
def _computing(count: int) -> Iterator[None]:
    """So many processes of other work, which compute as long as this lasts."""
    program = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
    command, quiet = [sys.executable, "-c", program], subprocess.DEVNULL
    others = [subprocess.Popen(command, stdin=quiet, stderr=quiet) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _entries(ranks: int, flags: Sequence[str]) -> list[Entry]:
    horovod = Launch("horovod", ranks).command(flags)
    ddp = Launch("ddp", ranks).command(flags)
    program = ddp.index(str(ROOT / "baselines" / "ddp.py"))
    bound = [*ddp[:program], str(Path(__file__).resolve()), _UNCOUPLED, *ddp[program + 1 :]]
    return [
        Entry("single", "one process", Launch("single", 1).command(flags)),
        Entry(
            "bound",
            f"{ranks} processes, each on its slice of every batch, that exchange nothing",
            bound,
        ),
        Entry("horovod over mpi", "`horovodrun --mpi`", [horovod[0], "--mpi", *horovod[1:]]),
        Entry("horovod over gloo", "`horovodrun --gloo`", [horovod[0], "--gloo", *horovod[1:]]),
        Entry("ddp", "`torchrun`, over Gloo", ddp),
    ]


def _seconds(entry: Entry, records: Path) -> float:
    """Run it once; the median seconds of its epochs. Raises UsageError where it fails."""
    log = records / "run.log"
    code = run_to_end(entry.command, log)
    found = read_records(*records.glob("*.jsonl"))[0] if any(records.glob("*.jsonl")) else []
    seconds = epoch_seconds(found[0]) if found else None
    if code or seconds is None:
        raise UsageError(f"{entry.name} failed: {reason(log, code)}")
    for path in records.glob("*.jsonl"):
        path.unlink()
    return seconds


def _in_step(records: Path, epochs: int) -> float:
    """Median seconds of an epoch but the first, had the bound's processes met after every step."""
    times = [json.loads(path.read_text()) for path in sorted(records.glob("*.times"))]
    steps = np.diff(np.array(times), axis=1).max(axis=0)
    per_epoch = len(steps) // epochs
    return float(np.median(steps[-(epochs - 1) * per_epoch :].reshape(-1, per_epoch).sum(axis=1)))


def _result(
    options: argparse.Namespace, entries: Sequence[Entry], hardware: dict[str, Any]
) -> dict[str, Any]:
    """Everything that was measured, as JSON can hold it."""
    single, bound, in_step = (entry.seconds for entry in entries[:3])
    rows = []
    for entry in entries:
        shares = [spread_text(_ratios(whole, entry.seconds)) for whole in (bound, in_step)]
        rows.append(
            [
                entry.name,
                statistics.median(entry.seconds),
                f"{min(entry.seconds):.3f} .. {max(entry.seconds):.3f}",
                spread_text(_ratios(single, entry.seconds)),
                *([None, None] if entry is entries[0] else shares),
            ]
        )
    others = hardware["others_running"]
    return {
        "benchmark": "ranks",
        **origin(hardware),
        "settings": {
            "dataset": options.dataset,
            "ranks": options.ranks,
            "epochs": options.epochs,
            "rounds": options.rounds,
            "busy": options.busy or None,
        },
        "seconds": {entry.name: entry.seconds for entry in entries},
        "columns": ["ranks", "s/epoch", "range", "x single", "of the bound", "of it in step"],
        "rows": rows,
        "notes": [
            "s/epoch: median over the epochs of a run but its first, then over rounds; ratios are "
            "made round by round: median (least .. most)",
            *(f"{entry.name}: {entry.meaning}" for entry in entries),
            "of the bound: seconds of the bound / seconds; of it in step: seconds of the bound in "
            "step / seconds, and what is lacking to 1 there is what communication costs",
            *([f"busy: {options.busy} other processes computed meanwhile"] if options.busy else []),
            *([f"other programs were running as it began: {others} processes"] if others else []),
        ],
    }


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the flags that every run gets."""
    parser = Parser.of(__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--dataset", default="synthetic", metavar="NAME", help="data set (default: synthetic)")
    add("--ranks", type=whole(), default=2, metavar="N", help="processes (default: 2)")
    add(
        "--epochs",
        type=whole(2),
        default=10,
        metavar="N",
        help="epochs of a run, of which the first is not counted (default: 10)",
    )
    add(
        "--rounds",
        type=whole(),
        default=5,
        metavar="N",
        help="how often each takes its turn (default: 5)",
    )
    add(
        "--busy",
        type=whole(0, 1024),
        default=0,
        metavar="N",
        help="let so many processes of other work compute meanwhile (default: 0)",
    )
    add("--json", type=path_argument, metavar="FILE", help="also write a record of all figures")
    options = parser.parse_args(words)
    flags = ["--dataset", options.dataset, "--epochs", str(options.epochs)]
    return options, [*flags, "--eval-every", str(options.epochs), "--progress", "off"]


def _train_uncoupled(words: Sequence[str]) -> int:
    """Be one of the bound's processes."""
    framework = torch_framework("ddp", partial(join, group=UncoupledRanks))
    return run(lambda: parse_config(words, "ddp", STRATEGIES["ddp"].refuses), framework)


if __name__ == "__main__":
    if sys.argv[1:2] == [_UNCOUPLED]:
        code = guarded(partial(_train_uncoupled, sys.argv[2:]))
        sys.stdout.flush()
        os._exit(code)  # as baselines/ddp.py, and for its reason
    sys.exit(guarded(main))
