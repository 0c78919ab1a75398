"""Partition benchmark: what each method of cutting a graph costs, and how good its parts are.

Every cut is made in a process of its own, so that its memory and CPU time can be told apart; METIS
is the yardstick, and needs the package pymetis.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import psutil

from gnn_core.bench.frame import add_json_flag, require_place, table_text, write_bench
from gnn_core.data import datasets
from gnn_core.data.graph import Graph
from gnn_core.data.partition.make import METHODS, Request, cut
from gnn_core.data.partition.order import degree_heat, places_of
from gnn_core.data.partition.quality import edge_quality, read_quality
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.usage import Parser, UsageError, whole, wholes

_COLUMNS = [
    "method",
    "parts",
    "cut %",
    "cut / METIS",
    "halo",
    "nodes max/mean",
    "train max/mean",
    "remote rows",
    "CPU s",
    "METIS CPU / this",
    "memory MB",
    "METIS memory / this",
]
_EXAMPLES = """\
examples:
  python -m gnn_core.bench.partitioning                     # a million papers, 4, 8 and 16 parts
  python -m gnn_core.bench.partitioning --dataset synthetic --parts 4 --json partitioning.json
  python -m gnn_core.bench.partitioning --methods refine,hash --dataset synthetic:papers=1e7
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 after a mistake reported in one line."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    require_place(options.json)
    graph = datasets.load(options.dataset, options.data_root, options.cache_dir, progress=_say)
    assert graph.folder is not None
    if options.child is not None:
        print(json.dumps(measure(graph, Request(options.parts[0], options.child, options.seed))))
        return 0
    hardware = machine.hardware()  # before the benchmark is a load of its own
    found: dict[tuple[str, int], dict[str, float]] = {}
    for num_parts in options.parts:
        for method in options.methods:
            figures = _in_child(graph, method, num_parts, options.seed)
            found[method, num_parts] = figures
            _say(f"{method}, {num_parts} parts: " + _figures_text(figures))
    record = {
        "benchmark": "partitioning",
        **machine.origin(hardware),
        "settings": {
            "dataset": graph.name,
            "nodes": graph.num_nodes,
            "edges": graph.num_edges,
            "seed": options.seed,
        },
        "columns": _COLUMNS,
        "rows": [_row(key, found) for key in found],
        "notes": [
            "cut: share of edges between parts; halo: nodes and copies of nodes that parts read "
            "from others, per node; remote rows: of a rank and step of 1024 targets, fan-outs "
            "15,10,5, targets computed by their owners; CPU seconds and memory of the cut alone, "
            "beyond a process that has opened the graph."
        ],
    }
    text, notes = table_text(record)
    print("\n".join([text, "", *notes]))
    if options.json is not None:
        write_bench(options.json, record)
    return 0


def measure(graph: Graph, request: Request) -> dict[str, float]:
    """Cut a graph in this process, which has not cut it before: figures by name."""
    cut(_small(graph), request)  # compiles the kernels
    before, start = psutil.Process().memory_info().rss, _cpu_seconds()
    parts = cut(graph, request)
    cpu_seconds = _cpu_seconds() - start
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    quality, _ = edge_quality(graph, parts, request.num_parts)
    place, offsets = places_of(parts, degree_heat(graph), request.num_parts)
    quality["remote_rows"] = read_quality(graph, place, offsets)["remote_rows_per_step"]
    return quality | {"cpu_seconds": cpu_seconds, "memory_bytes": max(own, child, 1)}


def _small(graph: Graph) -> Graph:
    """A graph of four nodes with arrays of the same dtypes."""
    splits = None if graph.splits is None else [1] * 4
    return Graph.from_arrays("small", [0, 1, 2, 3, 4], [1, 0, 3, 2], splits=splits)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _in_child(graph: Graph, method: str, num_parts: int, seed: int) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--dataset", str(graph.folder)]
    command += ["--child", method, "--parts", str(num_parts), "--seed", str(seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UsageError(f"{method}, {num_parts} parts: expected a cut, got the failure above")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _row(key: tuple[str, int], found: dict[tuple[str, int], dict[str, float]]) -> list[Any]:
    method, num_parts = key
    one, metis = found[key], found.get(("metis", num_parts))
    return [
        method,
        num_parts,
        100 * one["cut"],
        None if metis is None else one["cut"] / max(metis["cut"], 1e-12),
        one["halo"],
        one["node_balance"],
        one["train_balance"],
        one["remote_rows"],
        one["cpu_seconds"],
        None if metis is None else metis["cpu_seconds"] / max(one["cpu_seconds"], 1e-3),
        one["memory_bytes"] / 1e6,
        None if metis is None else metis["memory_bytes"] / one["memory_bytes"],
    ]


def _figures_text(figures: dict[str, float]) -> str:
    memory = figures["memory_bytes"] / 1e6
    return f"cut {100 * figures['cut']:.1f} %, {figures['cpu_seconds']:.1f} s, {memory:.0f} MB"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _methods(text: str) -> list[str]:
    chosen = text.split(",")
    if wrong := [name for name in chosen if name not in METHODS]:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(METHODS)}, got {wrong[0]!r}")
    return chosen


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m gnn_core.bench.partitioning",
        description=(__doc__ or "").partition("\n\n")[2],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--dataset",
        default="synthetic:papers=1e6",
        metavar="NAME",
        help="as in training (default: %(default)s)",
    )
    add("--data-root", metavar="DIR", help="where published files lie (default: RINGSAGE_DATA)")
    add("--cache-dir", type=path_argument, metavar="DIR", help="where prepared graphs are kept")
    add("--parts", type=wholes, default=(4, 8, 16), metavar="K,K", help="(default: 4,8,16)")
    add(
        "--methods",
        type=_methods,
        default=list(METHODS[::-1]),
        metavar="NAME,NAME",
        help=f"some of {','.join(METHODS)} (default: all)",
    )
    add("--seed", type=whole(0), default=0, metavar="N", help="(default: %(default)s)")
    add("--child", choices=METHODS, help=argparse.SUPPRESS)
    add_json_flag(parser)
    options = parser.parse_args(argv)
    if not options.parts or min(options.parts) < 1:
        raise UsageError(f"--parts: expected whole numbers from 1, got {options.parts}")
    return options


if __name__ == "__main__":
    sys.exit(main())
