"""What ranks would fetch from each other: `python -m gnn_core.bench.parts NAME`.

Every rank's batches are drawn in this process, one rank after the other, and rows are counted, not
sent. The counts depend on graph, partition and settings alone, never on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnn_core.bench.frame import add_json_flag, require_place, table_text, write_bench
from gnn_core.data import datasets
from gnn_core.data.assign import ByOwner, ExpectedEdges
from gnn_core.data.exchange import Answer, Bytes, Counters, IntArray, PartExchange, Transport
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Assign, Loader, equal_slices
from gnn_core.data.partition.folder import Partition
from gnn_core.data.partition.make import Request, make_partition
from gnn_core.data.partitioned_store import PartitionedStore, owned_parts
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.usage import Parser, UsageError, finite, whole, wholes

_EXAMPLES = """\
examples:
  python -m gnn_core.bench.parts synthetic-arxiv
  python -m gnn_core.bench.parts synthetic --partitions hash-4 refine-4 --json parts.json
"""
_COLUMNS = [
    *("partition", "targets by", "cache", "window", "rows a step", "remote", "fetched"),
    *("of slices", "fixed set", "fixed set / fetched", "fixed set, W=1", "W=1 / fetched"),
    "targets max/mean",
]
_NOTES = (
    "rows a step: that a rank's step reads; remote: those of them in parts of other ranks; "
    "fetched: rows that come from other ranks, once a window and not from the cache; all of one "
    "rank and step, the mean over the ranks",
    "of slices: fetched, as a share of the remote rows of targets by slices; fixed set: fetched "
    "with a cache of the rows read most often in another epoch, which never changes, once a window "
    "of steps, and, W=1, once a step; / fetched: what keeping the rows of the next use saves",
    "cache: rows, as a share of the rows of one of as many equal parts as there are ranks",
)


@dataclass(frozen=True)
class _Found:
    """Sums over the ranks."""

    counters: list[Counters]
    fixed_set: int  # rows that a fixed set lacks, once a window
    fixed_steps: int  # the same, once a step
    targets: float  # of the rank that has most, as a share of the mean


def main(argv: Sequence[str] | None = None) -> int:
    """Count and print; 2 after a mistake reported in one line."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    require_place(options.json)
    graph = datasets.load(
        options.dataset, options.data_root, options.cache_dir, progress=lambda line: print(line)
    )
    if not graph.num_features:
        raise UsageError(
            f"graph {graph.name}: expected features, whose rows are counted, got none; take a "
            "graph with features"
        )
    hardware = machine.hardware()
    with tempfile.TemporaryDirectory() as folder:
        for made in [] if options.partitions else [Path(folder, "parts")]:
            make_partition(graph, Request(options.ranks), made)
            options.partitions = [made]
        rows = _rows(graph, options)
    record = machine.origin(hardware) | {
        "benchmark": "rows of other parts",
        "settings": {
            "dataset": graph.name,
            **{name: getattr(options, name) for name in ("ranks", "global_batch_size", "steps")},
            "fanouts": ",".join(map(str, options.fanouts)),
        },
        "columns": _COLUMNS,
        "rows": rows,
        "notes": list(_NOTES),
    }
    text, notes = table_text(record)
    print("\n".join([text, *notes]))
    if options.json is not None:
        write_bench(options.json, record)
    return 0


def _rows(graph: Graph, options: argparse.Namespace) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for folder in options.partitions:
        partition = Partition.open(folder, graph)
        slices = None
        for name, assign in _assigns(graph, partition, options.fanouts).items():
            for share in options.cache:
                found = _count(graph, partition, assign, share, options)
                slices = slices or _mean(found, "remote_rows")
                rows.append(_row(partition, name, share, found, slices, options))
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _assigns(graph: Graph, partition: Partition, fanouts: tuple[int, ...]) -> dict[str, Assign]:
    loads = ExpectedEdges(graph, fanouts)
    owner = ByOwner(partition.owners, partition.num_parts, loads=loads)
    return {"slices": equal_slices, "owner": owner}


def _count(
    graph: Graph, partition: Partition, assign: Assign, share: float, options: argparse.Namespace
) -> _Found:
    row_bytes = partition.part_features(0).itemsize * partition.num_features
    cache_rows = int(share * graph.num_nodes / options.ranks)
    counters, fixed, fixed_steps, targets = [], 0, 0, []
    for rank in range(options.ranks):
        store = PartitionedStore(
            partition,
            owned_parts(rank, partition.num_parts, options.ranks),
            _Nowhere(rank, options.ranks),
            window=options.fetch_window,
            cache_bytes=cache_rows * row_bytes,
        )
        store.exchange = _Counted(row_bytes)
        loader = Loader(
            graph,
            "train",
            options.fanouts,
            options.global_batch_size,
            seed=options.seed,
            rank=rank,
            world_size=options.ranks,
            prefetch=0,
            assign=assign,
            store=store,
        )
        often = _most_often(loader, store, cache_rows, options.steps)
        read, taken = [], 0
        for batch in loader.batches(0, _first(loader, options.steps)):
            read.append(store.remote_places(batch.input_nodes))
            taken += batch.num_real
        for first in range(0, len(read), options.fetch_window):
            needed = np.unique(np.concatenate(read[first : first + options.fetch_window]))
            fixed += int(np.count_nonzero(~np.isin(needed, often)))
        fixed_steps += sum(int(np.count_nonzero(~np.isin(one, often))) for one in read)
        counters.append(store.counters)
        targets.append(taken)
    return _Found(counters, fixed, fixed_steps, max(targets) * len(targets) / sum(targets))


def _most_often(loader: Loader, store: PartitionedStore, num_rows: int, steps: int) -> IntArray:
    """Places of the remote rows that most batches of another epoch read."""
    if not num_rows:
        return np.empty(0, np.int64)
    counts = np.zeros(store.num_rows, np.int32)
    for step in range(_first(loader, steps), loader.num_steps):
        counts[store.remote_places(loader.batch(1, step).input_nodes)] += 1
    order: IntArray = np.argsort(-counts, kind="stable")[:num_rows]
    return order


def _first(loader: Loader, steps: int) -> int:
    return max(0, loader.num_steps - steps)


def _mean(found: _Found, name: str) -> float:
    total = sum(int(getattr(one, name)) for one in found.counters)
    return total / sum(one.steps for one in found.counters)


def _row(
    partition: Partition,
    assign: str,
    share: float,
    found: _Found,
    slices: float,
    options: argparse.Namespace,
) -> list[Any]:
    steps = sum(one.steps for one in found.counters)
    fetched = _mean(found, "rows_received")
    return [
        f"{partition.meta['method']}, k={partition.num_parts}",
        assign,
        share,
        options.fetch_window,
        round(_mean(found, "input_rows")),
        round(_mean(found, "remote_rows")),
        round(fetched),
        round(fetched / slices, 3) if slices else None,
        round(found.fixed_set / steps),
        round(found.fixed_set / steps / fetched, 3) if fetched else None,
        round(found.fixed_steps / steps),
        round(found.fixed_steps / steps / fetched, 3) if fetched else None,
        round(found.targets, 3),
    ]


class _Nowhere(Transport):
    """Leads to no rank."""

    name = "none"

    def alltoall(self, rows: Bytes, sent: IntArray, received: IntArray) -> Bytes:
        raise NotImplementedError


class _Counted(PartExchange):
    """Counts rows, and gives zeros."""

    def __init__(self, row_bytes: int):
        self.transport, self._row_bytes = _Nowhere(0, 1), row_bytes

    def fetch(
        self, places: IntArray, counters: Counters, stops: bool = False, has_more: bool = False
    ) -> Answer:
        """As `PartExchange.fetch`."""
        counters.rows_received += len(places)
        return Answer(np.zeros((len(places), self._row_bytes), np.uint8), False, False)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(
        f"{__doc__}\n{_EXAMPLES}", prog="python -m gnn_core.bench.parts", allow_abbrev=False
    )
    add = parser.add_argument
    add("dataset", metavar="NAME", help="data set, or a graph folder")
    text = "of it (default: one made for this, by refine, with a part for each rank)"
    add("--partitions", nargs="+", type=path_argument, metavar="DIR", help=text)
    add("--ranks", type=whole(), default=4, metavar="N", help="(default: %(default)s)")
    add("--fanouts", type=wholes, default=(10, 5), metavar="10,5", help="(default: 10,5)")
    add("--global-batch-size", type=whole(), default=1024, metavar="N", help="(default: 1024)")
    add("--steps", type=whole(), default=96, metavar="N", help="of an epoch (default: 96)")
    add("--fetch-window", type=whole(), default=8, metavar="W", help="steps (default: 8)")
    add(
        "--cache",
        nargs="+",
        type=finite(0),
        default=[0.0, 0.2],
        metavar="SHARE",
        help="rows of the cache as a share of a rank's own (default: 0 0.2)",
    )
    add("--seed", type=whole(0), default=0, metavar="N", help="(default: 0)")
    add("--data-root", metavar="DIR", help="folder of raw files")
    add("--cache-dir", metavar="DIR", help="folder of prepared graphs")
    add_json_flag(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
