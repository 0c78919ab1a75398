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
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("torch")

import numpy as np
from torch import Tensor

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from baselines.process_group import ProcessGroup, join
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
from gnn_core.config import RunConfig, parse_config
from gnn_core.data import datasets
from gnn_core.measure import machine
from gnn_core.measure.run_record import epoch_seconds
from gnn_core.strategies import STRATEGIES
from gnn_core.sweep.launches import ROOT, Launch
from gnn_core.training.job import run_job
from gnn_core.training.preparation import open_graph
from gnn_core.training.trainer import Trainer
from gnn_core.usage import Parser, UsageError, whole
from horovod_gnn.learner import TorchLearner, set_up_torch

_UNCOUPLED = "--uncoupled"  # first word of the command line of the bound's own processes
_TIMES = "RINGSAGE_BENCH_TIMES"  # the folder in which they leave when each step was done


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
    """Let the variants take turns and print what they took; the exit code."""
    options, flags = _parse(sys.argv[1:])
    hardware = machine.hardware()  # before the benchmark is a load of its own
    config = parse_config(flags, "compare")
    require_place(options.json)
    datasets.load(config.dataset, config.data_root, config.cache_dir, progress=_log)
    commands = _commands(options.ranks, flags)
    in_step: list[float] = []  # of the bound's steps, by round
    with tempfile.TemporaryDirectory() as times, _computing(options.busy):
        os.environ[_TIMES] = times

        def seconds_of(name: str) -> float:
            found = epoch_seconds(run_training(commands[name], name))
            if found is None:
                raise UsageError(f"{name} failed: it trained for no epoch that counts")
            if name == "bound":
                in_step.append(_in_step(Path(times), options.epochs))
            return found

        variants = [Variant(name, partial(seconds_of, name)) for name in commands]
        take_turns(variants, options.rounds, "{:8.3f} s/epoch".format)
    seconds = {one.name: one.results for one in variants} | {"bound, in step": in_step}
    result = _result(options, {name: seconds[name] for name in _meanings(options.ranks)}, hardware)
    table, notes = table_text(result)
    print("\n".join([table, "", *(f"- {note}" for note in notes)]))
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


def _meanings(ranks: int) -> dict[str, str]:
    """What each row of the table is, in the order of the rows."""
    return {
        "single": "one process",
        "bound": f"{ranks} processes, each on its slice of every batch, that exchange nothing",
        "bound, in step": "the same, each step as long as its slowest rank's",
        "horovod over mpi": "`horovodrun --mpi`",
        "horovod over gloo": "`horovodrun --gloo`",
        "ddp": "`torchrun`, over Gloo",
    }


def _commands(ranks: int, flags: Sequence[str]) -> dict[str, list[str]]:
    """The command of each variant, by name."""
    horovod = Launch("horovod", ranks).command(flags)
    ddp = Launch("ddp", ranks).command(flags)
    program = ddp.index(str(ROOT / "baselines" / "ddp.py"))
    bound = [*ddp[:program], str(Path(__file__).resolve()), _UNCOUPLED, *ddp[program + 1 :]]
    return {
        "single": Launch("single", 1).command(flags),
        "bound": bound,
        "horovod over mpi": [horovod[0], "--mpi", *horovod[1:]],
        "horovod over gloo": [horovod[0], "--gloo", *horovod[1:]],
        "ddp": ddp,
    }


def _in_step(folder: Path, epochs: int) -> float:
    """Median seconds of an epoch but the first, had the bound's processes met after every step."""
    times = [json.loads(path.read_text()) for path in sorted(folder.glob("*.times"))]
    steps = np.diff(np.array(times), axis=1).max(axis=0)
    per_epoch = len(steps) // epochs
    return float(np.median(steps[-(epochs - 1) * per_epoch :].reshape(-1, per_epoch).sum(axis=1)))


def _result(
    options: argparse.Namespace, seconds: Mapping[str, Sequence[float]], hardware: dict[str, Any]
) -> dict[str, Any]:
    """Everything that was measured, as JSON can hold it."""
    bounds = (seconds["bound"], seconds["bound, in step"])
    rows = []
    for name, mine in seconds.items():
        shares = [median_and_range(ratios(bound, mine)) for bound in bounds]
        rows.append(
            [
                name,
                statistics.median(mine),
                f"{min(mine):.3f} .. {max(mine):.3f}",
                median_and_range(ratios(seconds["single"], mine)),
                *([None, None] if name == "single" else shares),
            ]
        )
    others = hardware["others_running"]
    return {
        "benchmark": "ranks",
        **machine.origin(hardware),
        "settings": {
            "dataset": options.dataset,
            "ranks": options.ranks,
            "epochs": options.epochs,
            "rounds": options.rounds,
            "busy": options.busy or None,
        },
        "seconds": {name: list(mine) for name, mine in seconds.items()},
        "columns": ["ranks", "s/epoch", "range", "x single", "of the bound", "of it in step"],
        "rows": rows,
        "notes": [
            "s/epoch: median over the epochs of a run but its first, then over rounds; ratios are "
            "made round by round: median (least .. most)",
            *(f"{name}: {meaning}" for name, meaning in _meanings(options.ranks).items()),
            "of the bound: seconds of the bound / seconds; of it in step: seconds of the bound in "
            "step / seconds, and what is lacking to 1 there is what communication costs",
            *([f"busy: {options.busy} other processes computed meanwhile"] if options.busy else []),
            *([f"other programs were running as it began: {others} processes"] if others else []),
        ],
    }


def _log(line: str) -> None:
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
    add_rounds_flag(parser, 5, "how often each takes its turn")
    add(
        "--busy",
        type=whole(0, 1024),
        default=0,
        metavar="N",
        help="let so many processes of other work compute meanwhile (default: 0)",
    )
    add_json_flag(parser)
    options = parser.parse_args(words)
    flags = ["--dataset", options.dataset, "--epochs", str(options.epochs)]
    return options, [*flags, "--eval-every", str(options.epochs), "--progress", "off"]


def _train_uncoupled(words: Sequence[str]) -> int:
    """Be one of the bound's processes."""

    def build(config: RunConfig, world: ProcessGroup) -> Trainer:
        config, graph = open_graph(config, world, set_up_torch)
        return Trainer("ddp", config, graph, world, TorchLearner.of(config, graph, world))

    uncoupled = partial(join, group=UncoupledRanks)
    return run_job(lambda: parse_config(words, "ddp", STRATEGIES["ddp"].refuses), uncoupled, build)


if __name__ == "__main__":
    if sys.argv[1:2] == [_UNCOUPLED]:
        code = guarded(partial(_train_uncoupled, sys.argv[2:]))
        sys.stdout.flush()
        os._exit(code)  # as baselines/ddp.py, and for its reason
    sys.exit(guarded(main))
