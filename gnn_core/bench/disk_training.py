"""Disk training benchmark: epochs with features on disk, under a memory limit, and in memory.

    python -m gnn_core.bench.disk_training                          # features of 4 x 2048 MiB
    python -m gnn_core.bench.disk_training --dataset synthetic:papers=1e6 --memory-mib 1024
    python -m gnn_core.bench.disk_training --folder /mnt/nvme --json disk-training.json
    python -m gnn_core.bench.disk_training --peer pyg=python --peer graphbolt=~/dgl/bin/python

The graph is a data set whose features are replaced by random numbers, as many as it takes to be
`--times` larger than the limit, in a folder that is removed in the end. The run on disk is in a
memory control group of that limit, without swap: page cache counts. Making a group needs root, or a
delegated one. The run in memory has no limit, and its features are in the page cache beforehand;
the machine needs as much memory. Both must have the same loss in every step.

With `--peer` another library trains on the same graph under the same limit, see
`baselines/disk_peer.py`: PyG on features in a memory map, or GraphBolt. The Python given has it. A
map may need minutes a step: `--peer-targets` gives it fewer targets an epoch.
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
from json import loads
from pathlib import Path
from typing import Any

import numpy as np

from gnn_core.bench.frame import (
    Variant,
    add_json_flag,
    add_rounds_flag,
    require_place,
    table_text,
    take_turns,
    was_busy,
    write_bench,
)
from gnn_core.bench.memory_group import Used, forget_pages, run_measured
from gnn_core.data import datasets
from gnn_core.data.checks import ARRAY_NAMES
from gnn_core.data.graph import Graph
from gnn_core.data.store import GraphWriter
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.measure.feature_reads import FeatureReads
from gnn_core.measure.records import read_records
from gnn_core.sweep.launches import ROOT, Launch
from gnn_core.usage import Parser, UsageError, whole, wholes

_DISK, _MEMORY = "on disk", "in memory"
_PIECE_BYTES = 64 << 20
_EVALUATED = 512  # nodes of each split, at the end of a run


@dataclass(frozen=True)
class Run:
    """One training run and what it used."""

    epoch_seconds: list[float]  # of each epoch
    used: Used
    targets: int  # of an epoch
    step_losses: tuple[float | None, ...] = ()  # none of another library
    reads: FeatureReads | None = None

    @property
    def first(self) -> float:
        """Seconds of the first epoch."""
        return self.epoch_seconds[0]

    @property
    def later(self) -> float:
        """Median seconds of the others."""
        return float(statistics.median(self.epoch_seconds[1:]))


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
        peers = [
            Variant(name, partial(_trained_by, name, python, folder, options))
            for name, python in options.peer
        ]
        take_turns(
            variants,
            options.rounds,
            lambda run: f"first epoch {run.first:.2f} s, later {run.later:.2f} s",
        )
        _require_same_losses(variants)
        missing = _try(peers, options.rounds)
        peers = [peer for peer in peers if peer.results]
        record = _record(options, [*variants, *peers], hardware, features.shape)
        record["notes"] += missing
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
    add("--memory-mib", type=whole(), default=2048, metavar="N", help=text)
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
    add(
        "--peer",
        type=_peer,
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="also train with another library, which that Python has: pyg or graphbolt",
    )
    text = "training targets of an epoch of another library (default: as many as of ours)"
    add("--peer-targets", type=whole(), metavar="N", help=text)
    add_rounds_flag(parser, 1, "of each")
    add_json_flag(parser)
    return parser.parse_args(argv)


def _peer(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if name not in ("pyg", "graphbolt") or not python:
        raise argparse.ArgumentTypeError(f"expected pyg=PYTHON or graphbolt=PYTHON, got {text!r}")
    return name, str(Path(python).expanduser())


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
    forget_pages(folder)
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
        used = _measured(command, Path(place, "run.log"), limit)
        records, _ = read_records(place)
    record = records[-1]
    losses = tuple(record.step_losses or ())
    reads = record.feature_reads[0] if record.feature_reads else None
    return Run([epoch.seconds for epoch in record.epochs], used, options.targets, losses, reads)


def _trained_by(name: str, python: str, folder: Path, options: argparse.Namespace) -> Run:
    """The same training by another library, its features in a memory map. UsageError."""
    fanouts = ",".join(map(str, options.fanouts))
    command = [python, str(ROOT / "baselines" / "disk_peer.py"), name, "--folder", str(folder)]
    command += ["--targets-per-step", str(options.global_batch_size), "--fanouts", fanouts]
    targets = min(options.peer_targets or options.targets, options.targets)
    command += ["--epochs", str(options.epochs), "--targets", str(targets)]
    forget_pages(folder)
    with tempfile.TemporaryDirectory() as place:
        log = Path(place, "run.log")
        used = _measured(command, log, options.memory_mib << 20)
        epochs = loads(log.read_text(encoding="utf-8").splitlines()[-1])["epochs"]
    return Run([epoch["seconds"] for epoch in epochs], used, targets)


def _measured(command: Sequence[str], log: Path, limit_bytes: int) -> Used:
    """As `run_measured`, whose error names no log: it lies in a folder that is about to go."""
    try:
        return run_measured(command, log, limit_bytes)
    except UsageError as error:
        raise UsageError(f"{error}".removesuffix(f"; see {log}")) from None


def _try(peers: Sequence[Variant[Run]], rounds: int) -> list[str]:
    """Let the other libraries train; a note on each that could not."""
    notes = []
    for peer in peers:
        try:
            take_turns([peer], rounds, lambda run: f"later epochs {run.later:.2f} s")
        except UsageError as error:
            notes.append(f"{peer.name} did not run: {error}")
            _say(notes[-1])
    return notes


def _require_same_losses(variants: Sequence[Variant[Run]]) -> None:
    """Raise RuntimeError unless all runs had the same loss in every step."""
    curves = {run.step_losses for one in variants for run in one.results}
    if len(curves) != 1:
        raise RuntimeError("features on disk and in memory have different loss curves")


def _record(
    options: argparse.Namespace,
    variants: Sequence[Variant[Run]],
    hardware: dict[str, Any],
    shape: tuple[int, ...],
) -> dict[str, Any]:
    def middle(name: str, figure: str) -> float:
        """Seconds of as many targets as ours are."""
        runs = next(one.results for one in variants if one.name == name)
        seconds = statistics.median(getattr(run, figure) for run in runs)
        return float(seconds * options.targets / runs[0].targets)

    rows = []
    for one in variants:
        last = one.results[-1]
        reads, peak = last.reads, last.used.group_peak_bytes
        rows.append(
            [
                one.name,
                middle(one.name, "first"),
                middle(one.name, "first") / middle(_MEMORY, "first"),
                middle(one.name, "later"),
                middle(one.name, "later") / middle(_MEMORY, "later"),
                options.targets / middle(one.name, "later"),
                last.used.cpu_seconds,
                None if peak is None else peak >> 20,
                None if reads is None else 100 * reads.hits / reads.rows,
                None if reads is None else reads.reads,
                last.used.read_bytes / 1e9,
            ]
        )
    where = machine.origin(hardware)
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
            *("targets/s", "CPU seconds", "group's peak MiB", "hits %", "reads", "GB read"),
        ],
        "rows": rows,
        "notes": [
            "epochs are those of training, without evaluation; targets/s are of later epochs; the "
            "peak is that of the memory control group, page cache included; CPU seconds, hits, "
            "reads and bytes are of the whole run",
            *_scaled(variants, options.targets),
        ],
    }


def _scaled(variants: Sequence[Variant[Run]], targets: int) -> list[str]:
    """A note on each variant that trained on fewer targets."""
    return [
        f"{one.name}: measured on {few} targets an epoch; its seconds are those of {targets}"
        for one in variants
        if (few := one.results[0].targets) != targets
    ]


if __name__ == "__main__":
    sys.exit(main())
