"""What ranks read and sample under each way to assign targets: counts, the same on every machine.

    python -m gnn_core.bench.assigning                                    # the default graph
    python -m gnn_core.bench.assigning --dataset synthetic-arxiv --steps 20
    python -m gnn_core.bench.assigning --dataset cit-hepth --task link --ranks 2 --json assign.json

Settings are those of the data set's recipe. All ranks' batches are drawn here, one after another,
for the first steps of an epoch: nothing is timed but how long it takes to find the clusters.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gnn_core.bench.frame import add_json_flag, require_place, table_text, write_bench
from gnn_core.config import RunConfig
from gnn_core.data.clusters import find_clusters
from gnn_core.data.graph import Graph
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.training.tasks import (
    assigned_by,
    assigns_by_locality,
    facts_of,
    open_for,
    train_loader,
)
from gnn_core.usage import Parser, whole, wholes

_COUNTS = ("rows", "most rows", "edges", "most edges")
_COLUMNS = [
    "ranks",
    "assigned by",
    *(f"{name}{end}" for name in _COUNTS for end in ("", " / slices")),
]
_NOTES = [
    "rows: input nodes, whose features are read; edges: sampled ones; means over the steps, added "
    "up over the ranks, so that a node that two ranks need counts twice",
    "most: of the rank that has most in a step; / slices: ratio to the same ranks by slices",
]


@dataclass(frozen=True)
class Counts:
    """Means over steps."""

    rows: float  # over all ranks
    most_rows: float  # of one rank
    edges: float
    most_edges: float


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    require_place(options.json)
    hardware = machine.hardware()
    config = RunConfig(
        dataset=options.dataset,
        task=options.task,
        data_root=options.data_root,
        cache_dir=options.cache_dir,
        seed=options.seed,
    )
    graph = open_for(config, _say)
    config = config.for_graph(facts_of(config, graph))
    config.validate_world(max(options.ranks))
    find_clusters(graph)  # compiles
    began = time.process_time()
    clustered = replace(graph, clusters=find_clusters(graph))
    seconds = time.process_time() - began
    rows = []
    for ranks in (1, *options.ranks):
        base = count(config, graph, ranks, options.steps)
        for one in (graph, clustered) if ranks > 1 else (graph,):
            _say(f"{ranks} ranks, by {assigned_by(one)}")
            found = base if one is graph else count(config, one, ranks, options.steps)
            rows.append(_row(ranks, assigned_by(one), found, base))
    record = _record(options, config, graph, rows, seconds, hardware)
    table, notes = table_text(record)
    print("\n".join([table, "", *(f"- {note}" for note in notes)]))
    if options.json:
        write_bench(options.json, record)
    return 0


def count(config: RunConfig, graph: Graph, ranks: int, steps: int) -> Counts:
    """What the ranks do in the first steps of an epoch; the graph may have clusters."""
    loaders = [train_loader(config, graph, rank, ranks, prefetch=0) for rank in range(ranks)]
    found = []
    for step in range(min(steps, loaders[0].num_steps)):
        batches = [loader.batch(0, step) for loader in loaders]
        for numbers in ([len(b.input_nodes) for b in batches], [b.num_edges for b in batches]):
            found += [sum(numbers), max(numbers)]
    return Counts(*np.reshape(found, (-1, 4)).mean(axis=0).tolist())


def _row(ranks: int, name: str, found: Counts, base: Counts) -> list[Any]:
    pairs = zip(vars(found).values(), vars(base).values(), strict=True)
    cells = [cell for mine, theirs in pairs for cell in (round(mine), round(mine / theirs, 3))]
    return [ranks, "-" if ranks == 1 else name, *cells]


def _record(
    options: argparse.Namespace,
    config: RunConfig,
    graph: Graph,
    rows: list[list[Any]],
    seconds: float,
    hardware: dict[str, Any],
) -> dict[str, Any]:
    where = machine.origin(hardware)
    auto = "locality" if assigns_by_locality(config, graph, 2) else "slices"
    return {
        "benchmark": "assign",
        **where,
        "versions": {name: where["versions"][name] for name in ("python", "numpy", "numba")},
        "settings": {
            "dataset": options.dataset,
            "task": config.task,
            "fanouts": list(config.fanouts),
            "global_batch_size": config.global_batch_size,
            "steps": options.steps,
            "seed": config.seed,
        },
        "clusters_cpu_seconds": seconds,
        "auto": auto,
        "columns": _COLUMNS,
        "rows": rows,
        "notes": [
            *_NOTES,
            f"the clusters take {seconds:.2f} s of CPU time to find, once for the graph; --assign "
            f"auto is {auto} here for a run of {config.epochs} epochs",
        ],
    }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m gnn_core.bench.assigning")
    add = parser.add_argument
    add("--dataset", default="synthetic", metavar="NAME", help="as in training (synthetic)")
    add("--task", default="node", choices=("node", "link"), help="as in training (node)")
    add("--data-root", metavar="DIR", help="where published files lie (RINGSAGE_DATA)")
    add("--cache-dir", metavar="DIR", help="where prepared graphs are kept (RINGSAGE_CACHE)")
    add("--ranks", type=wholes, default=(2, 4), metavar="N,N,...", help="how many (2,4)")
    add("--steps", type=whole(), default=10, metavar="N", help="of an epoch, at most (10)")
    add("--seed", type=whole(0, 2**63 - 1), default=0, metavar="N", help="of the draws (0)")
    add_json_flag(parser)
    options = parser.parse_args(argv)
    if min(options.ranks) < 1:
        parser.error(f"--ranks: expected at least 1, got {min(options.ranks)}")
    return options


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
