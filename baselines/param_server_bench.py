"""A parameter server beside DDP: `python -m baselines.param_server_bench` lets both take turns.

    python -m baselines.param_server_bench --dataset synthetic-100k --epochs 6
    python -m baselines.param_server_bench --only sync async --slow --rounds 5 --json server.json

Each variant trains to the end and leaves a record: seconds of an epoch, test score
and bytes. With --slow each is also run with one worker at half its speed, by a signal that stops it
half of the time. What trains on another loss curve is to be compared by its score, too.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import psutil

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
from gnn_core.measure.run_record import RunRecord, epoch_seconds
from gnn_core.sweep.launches import Launch
from gnn_core.usage import Parser, whole

# Name for --only -> strategy, title of the row, flags.
_VARIANTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "single": ("single", "one process", ()),
    "ddp": ("ddp", "DDP", ()),
    "sync": ("param-server", "server, staleness 0", ()),
    "stale": ("param-server", "server, staleness 3", ("--staleness", "3")),
    "async": ("param-server", "server, asynchronous", ("--staleness", "inf")),
    "fp16": ("param-server", "server, fp16", ("--compress", "fp16")),
    "topk": ("param-server", "server, topk:0.01", ("--compress", "topk:0.01")),
}
_DUTY_SECONDS = 0.1  # that a slow worker runs, and then is stopped
_WIDTHS = (34, 22, 15, 12, 26)


def main() -> int:
    """Measure and print; the exit code."""
    options = _parse()
    require_place(options.json)
    hardware = machine.hardware()  # before the benchmark is a load of its own
    datasets.load(options.dataset, progress=print)
    variants = []
    for name in options.only:
        strategy, title, flags = _VARIANTS[name]
        ranks = 1 if strategy == "single" else options.workers
        words = ["--dataset", options.dataset, "--epochs", str(options.epochs), *flags]
        command = Launch(strategy, ranks).command([*words, "--progress", "off"])
        variants.append(Variant(title, partial(run_training, command, title)))
        if options.slow and ranks > 1:
            title = f"{title}, one slow"
            variants.append(Variant(title, partial(_run_with_a_slow_one, command, title)))
    take_turns(variants, options.rounds, _shown)
    record = _record(options, variants, hardware)
    print(
        "\n".join([columns_text([record["columns"], *record["rows"]], _WIDTHS), *record["notes"]])
    )
    if options.json:
        write_bench(options.json, record)
    return 0


def _parse() -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m baselines.param_server_bench")
    add = parser.add_argument
    add("--dataset", default=RunConfig().dataset, help="as in training (default: %(default)s)")
    add("--workers", type=whole(), default=2, help="and ranks of DDP (default: %(default)s)")
    add("--epochs", type=whole(2), default=5, help="of each run (default: %(default)s)")
    add("--slow", action="store_true", help="also run each with one worker at half its speed")
    add_rounds_flag(parser, 3, "runs of each")
    add(
        "--only",
        nargs="+",
        choices=[*_VARIANTS],
        default=[*_VARIANTS],
        metavar="NAME",
        help=f"of {', '.join(_VARIANTS)} (default: all)",
    )
    add_json_flag(parser)
    return parser.parse_args()


def _run_with_a_slow_one(command: Sequence[str], name: str) -> RunRecord:
    with _slowed():
        return run_training(command, name)


@contextlib.contextmanager
def _slowed() -> Iterator[None]:
    """Stop a worker, or rank 1, of what this process starts, half of the time."""
    over = threading.Event()

    def slow() -> None:
        chosen: psutil.Process | None = None
        while not over.is_set():
            with contextlib.suppress(psutil.Error):
                if chosen is None or not chosen.is_running():
                    chosen = next(filter(_is_slowed, psutil.Process().children(True)), None)
                if chosen is not None:
                    chosen.send_signal(signal.SIGSTOP)
                    over.wait(_DUTY_SECONDS)
                    chosen.send_signal(signal.SIGCONT)
            over.wait(_DUTY_SECONDS)

    thread = threading.Thread(target=slow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_slowed(process: psutil.Process) -> bool:
    words = process.cmdline()
    if "worker" in words:
        return True
    return any("ddp.py" in word for word in words) and process.environ().get("RANK") == "1"


def _shown(run: RunRecord) -> str:
    return f"{epoch_seconds(run) or 0.0:.2f} s an epoch"


def _record(
    options: argparse.Namespace, variants: Sequence[Variant[RunRecord]], hardware: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, as JSON can hold it."""
    notes = [
        "seconds of an epoch: median (least .. most) over runs of the median of "
        "epochs after the first",
        "MB a step: gradients and weights on the wire, of all workers of a server; of DDP, what a "
        "rank gives to the allreduce",
        "staleness: slices by the number of older steps that were unfinished when they were begun",
    ]
    if was_busy(hardware):
        notes.append("other programs are running: these are the times that they leave")
    names = ("dataset", "workers", "epochs", "rounds")
    return {
        "benchmark": "parameter server",
        **machine.origin(hardware),
        "settings": {name: getattr(options, name) for name in names},
        "columns": ["trained by", "s an epoch", "test score, %", "MB a step", "staleness"],
        "rows": [_row(one) for one in variants],
        "runs": {
            one.name: [
                {
                    "epoch_seconds": epoch_seconds(run),
                    "final": run.final,
                    "parameter_server": run.parameter_server and vars(run.parameter_server),
                }
                for run in one.results
            ]
            for one in variants
        },
        "notes": notes,
    }


def _row(variant: Variant[RunRecord]) -> list[str]:
    runs = variant.results
    scores = [run.final.get("test_accuracy", run.final.get("test_mrr")) or 0.0 for run in runs]
    seconds = [epoch_seconds(run) or 0.0 for run in runs]
    first = runs[0]
    steps = len(first.step_losses or ()) or 1
    server = first.parameter_server
    sent = first.allreduce_bytes_per_step or 0
    if server is not None:
        sent = (server.bytes_pulled + server.bytes_pushed) // steps
    counts = {} if server is None else server.unfinished_steps
    return [
        variant.name,
        median_and_range(seconds),
        f"{100 * statistics.median(scores):.2f}",
        f"{sent / 1e6:.3f}",
        " ".join(f"{value}:{count}" for value, count in counts.items()) or "-",
    ]


if __name__ == "__main__":
    sys.exit(guarded(main))
