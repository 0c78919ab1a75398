"""Disk training benchmark: epochs with features on disk, under a memory limit, and in memory.

    python -m gnn_core.bench.disk_training                          # features of 4 x 1536 MiB
    python -m gnn_core.bench.disk_training --dataset synthetic:papers=1e6 --memory-mib 1024
    python -m gnn_core.bench.disk_training --folder /mnt/nvme --json disk-training.json

The graph is a data set whose features are replaced by random numbers, as many as it takes to be
`--times` larger than the limit, in a folder that is removed in the end. The run on disk is in a
memory control group of that limit, without swap: page cache counts. Making a group needs root, or a
delegated one. The run in memory has no limit, and its features are in the page cache beforehand;
the machine needs as much memory. Both must have the same loss in every step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gnn_core.bench.frame import (
    Variant,
    add_json_flag,
    add_rounds_flag,
    origin,
    require_place,
    table_text,
    take_turns,
    was_busy,
    write_bench,
)
from gnn_core.bench.memory_group import Used, run_measured
from gnn_core.data import datasets
from gnn_core.data.checks import ARRAY_NAMES
from gnn_core.data.graph import Graph
from gnn_core.data.store import GraphWriter
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord
from gnn_core.sweep.launches import Launch
from gnn_core.usage import Parser, UsageError, whole, wholes

_DISK, _MEMORY = "on disk", "in memory"
_PIECE_BYTES = 64 << 20
_EVALUATED = 512  # nodes of each split, at the end of a run


@dataclass(frozen=True)
class Run:
    """One training run and what it used."""

    record: RunRecord
    used: Used

    @property
    def first(self) -> float:
        """Seconds of the first epoch."""
        return self.record.epochs[0].seconds

    @property
    def later(self) -> float:
        """Median seconds of the others."""
        return float(statistics.median(epoch.seconds for epoch in self.record.epochs[1:]))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 after a mistake reported in one line."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    require_place(options.json)
    hardware = machine.hardware()  # before the benchmark is a load of its own
    graph = datasets.load(options.dataset, None, None, progress=_say)
    with _wide_graph(graph, options) as folder:
        features = np.load(folder / "features.npy", mmap_mode="r")
        variants = [
            Variant(_DISK, partial(_trained, folder, options, True)),
            Variant(_MEMORY, partial(_trained, folder, options, False)),
        ]
        take_turns(
            variants,
            options.rounds,
            lambda run: f"first epoch {run.first:.2f} s, later {run.later:.2f} s",
        )
        _require_same_losses(variants)
        record = _record(options, variants, hardware, features.shape)
    text, notes = table_text(record)
    print("\n".join([text, *notes]))
    if options.json:
        write_bench(options.json, record)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m gnn_core.bench.disk_training")
    add = parser.add_argument
    text = "whose edges are trained on (default: %(default)s)"
    add("--dataset", default="synthetic:papers=2e6", metavar="NAME", help=text)
    text = "limit of the run on disk (default: %(default)s)"
    add("--memory-mib", type=whole(), default=1536, metavar="N", help=text)
    text = "features are so many times the limit (default: %(default)s)"
    add("--times", type=whole(1, 100), default=4, metavar="N", help=text)
    text = "training targets of an epoch (default: %(default)s)"
    add("--targets", type=whole(), default=20_480, metavar="N", help=text)
    text = "(default: %(default)s)"
    add("--global-batch-size", type=whole(), default=512, metavar="N", help=text)
    add("--epochs", type=whole(2, 1000), default=4, metavar="N", help="(default: %(default)s)")
    add("--fanouts", type=wholes, default=(10, 10), metavar="N,N", help="(default: 10,10)")
    text = "where the graph is made, and removed in the end (default: the temporary folder)"
    add("--folder", type=path_argument, default=Path(tempfile.gettempdir()), help=text)
    add_rounds_flag(parser, 1, "of each")
    add_json_flag(parser)
    return parser.parse_args(argv)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _wide_graph(graph: Graph, options: argparse.Namespace) -> Iterator[Path]:
    """The folder of the graph with random features of that size, and few training targets."""
    assert graph.folder is not None and graph.splits is not None
    size = options.times * (options.memory_mib << 20)
    shape = (graph.num_nodes, -(-size // (4 * graph.num_nodes)))
    train = graph.split("train")
    if len(train) < options.targets:
        raise UsageError(
            f"--targets: expected at most {len(train):,}, the training nodes of {graph.name}, got "
            f"{options.targets:,}; lower it"
        )
    random = np.random.default_rng(0)
    splits = np.array(graph.splits)
    kept = {"train": options.targets, "valid": _EVALUATED, "test": _EVALUATED}
    for split, count in kept.items():
        splits[random.permutation(graph.split(split))[count:]] = 0
    piece = random.standard_normal(
        (max(1, _PIECE_BYTES // (4 * shape[1])), shape[1]), dtype=np.float32
    )
    with tempfile.TemporaryDirectory(prefix="ringsage-bench-", dir=options.folder) as place:
        folder = Path(place, "graph")
        with GraphWriter(folder, f"{graph.name}-wide") as writer:
            for name in ARRAY_NAMES:
                if name not in ("features", "splits") and getattr(graph, name) is not None:
                    writer.adopt(name, graph.folder, graph.meta["checksums"][f"{name}.npy"])
            writer.put("splits", splits)
            with writer.stream("features", np.float32, shape) as rows:
                for first in range(0, shape[0], len(piece)):
                    rows.write(piece[: shape[0] - first])
            writer.finish(graph.num_classes, {"source": "a benchmark"})
        yield folder


def _trained(folder: Path, options: argparse.Namespace, on_disk: bool) -> Run:
    """Train, in a process of its own."""
    flags = [
        *("--dataset", str(folder), "--epochs", str(options.epochs), "--eval", "sampled"),
        *(
            "--eval-every",
            str(options.epochs),
            "--global-batch-size",
            str(options.global_batch_size),
        ),
        *("--layers", str(len(options.fanouts)), "--fanouts", ",".join(map(str, options.fanouts))),
        *("--hidden", "128", "--lr", "0.001", "--progress", "lines"),
    ]
    limit = 0
    if on_disk:
        limit = options.memory_mib << 20
        flags += ["--feature-store", "disk", "--memory-limit", f"{options.memory_mib}MiB"]
    else:
        flags += ["--feature-store", "memory"]
        with (folder / "features.npy").open("rb") as file:
            while file.read(_PIECE_BYTES):  # into the page cache
                pass
    with tempfile.TemporaryDirectory() as place:
        command = Launch("single", 1).command([*flags, "--records", place])
        used = run_measured(command, Path(place, "run.log"), limit)
        records, _ = read_records(place)
    return Run(records[-1], used)


def _require_same_losses(variants: Sequence[Variant[Run]]) -> None:
    """Raise RuntimeError unless all runs had the same loss in every step."""
    curves = {tuple(run.record.step_losses or ()) for one in variants for run in one.results}
    if len(curves) != 1:
        raise RuntimeError("features on disk and in memory have different loss curves")


def _record(
    options: argparse.Namespace,
    variants: Sequence[Variant[Run]],
    hardware: dict[str, Any],
    shape: tuple[int, ...],
) -> dict[str, Any]:
    def middle(name: str, figure: str) -> float:
        runs = next(one.results for one in variants if one.name == name)
        return float(statistics.median(getattr(run, figure) for run in runs))

    rows = []
    for one in variants:
        last = one.results[-1]
        reads = last.record.feature_reads
        peak = last.used.group_peak_bytes
        rows.append(
            [
                one.name,
                middle(one.name, "first"),
                middle(one.name, "first") / middle(_MEMORY, "first"),
                middle(one.name, "later"),
                middle(one.name, "later") / middle(_MEMORY, "later"),
                None if peak is None else peak >> 20,
                None if not reads else 100 * reads[0].hits / reads[0].rows,
                None if not reads else reads[0].reads,
                None if not reads else reads[0].bytes_read / 1e9,
            ]
        )
    where = origin(hardware)
    return {
        "benchmark": "training with features on disk",
        **where,
        "versions": {name: where["versions"][name] for name in ("python", "numpy", "torch")},
        "settings": {
            "dataset": options.dataset,
            "features": f"{shape[0]} x {shape[1]} float32",
            "memory_limit_mib": options.memory_mib,
            "fanouts": list(options.fanouts),
            "targets": options.targets,
            "global_batch_size": options.global_batch_size,
            "epochs": options.epochs,
            "rounds": options.rounds,
            "busy": was_busy(hardware),
        },
        "columns": [
            *("features", "first epoch s", "of in memory", "later epochs s", "of in memory later"),
            *("group's peak MiB", "hits %", "reads", "GB read"),
        ],
        "rows": rows,
        "notes": [
            "epochs are those of training, without evaluation; the peak is that of the memory "
            "control group, page cache included; hits, reads and bytes are of the whole run"
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
