"""How fast pairs of papers are described on one core: by their structure, by common neighbours.

    python -m gnn_core.bench.pair_rates                                  # cit-hepth
    python -m gnn_core.bench.pair_rates --dataset synthetic:closure=0.5 --json pairs.json

Pairs are those of an evaluation: validation references and their candidates. The ways take turns,
each on the same pairs in one thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.bench.frame import (
    Variant,
    add_json_flag,
    add_rounds_flag,
    origin,
    require_place,
    table_text,
    take_turns,
    write_bench,
)
from gnn_core.config import RunConfig
from gnn_core.data.candidates import Candidates
from gnn_core.data.graph import Graph
from gnn_core.data.pair_common import CommonNeighbours
from gnn_core.data.pair_structure import PairStructure
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.training.link_ranking import CHUNK_PAIRS
from gnn_core.training.tasks import open_for
from gnn_core.usage import Parser, whole

IntArray = npt.NDArray[np.int64]
_MOST_PAIRS = 2_000_000  # a round
_COLUMNS = ["what is found", "M pairs/s a core", "least", "most"]
_NOTES = [
    "pairs: validation references and their candidates; CPU seconds of one thread; median, least "
    "and most of the rounds",
    "common neighbours: which, at most 16 of a pair, and the weight of each (--predictor ncn); "
    "structure: all features of --predictor structure, common neighbours counted among them",
]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    require_place(options.json)
    hardware = machine.hardware()
    config = RunConfig(
        dataset=options.dataset,
        task="link",
        data_root=options.data_root,
        cache_dir=options.cache_dir,
        candidates=options.candidates,
    )
    graph = open_for(config, lambda line: print(line, file=sys.stderr, flush=True))
    parts = pairs_of(graph, options.candidates)
    ways: dict[str, Callable[[IntArray, IntArray], object]] = {
        "common neighbours": CommonNeighbours(graph).of,
        "structure": PairStructure(graph).of,
    }
    variants = [Variant(name, partial(_rate, of, parts)) for name, of in ways.items()]
    for of in ways.values():
        of(*(part[:1] for part in parts[0]))  # compiles
    take_turns(variants, options.rounds, lambda rate: f"{rate / 1e6:.2f} M pairs/s")
    record = _record(options, config, graph, variants, hardware)
    table, notes = table_text(record)
    print("\n".join([table, "", *(f"- {note}" for note in notes)]))
    if options.json:
        write_bench(options.json, record)
    return 0


def pairs_of(graph: Graph, count: int) -> list[tuple[IntArray, IntArray]]:
    """Papers `[n]` and others `[n, 1 + count]`, a bounded number of pairs at a time."""
    edges = np.asarray(graph.valid_edges, np.int64)
    candidates = Candidates(graph, "valid", count)
    rows = np.arange(min(len(edges), max(1, _MOST_PAIRS // (1 + count))))
    size = max(1, CHUNK_PAIRS // (1 + count))
    found = []
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        others = np.concatenate([edges[part, 1:], candidates.of(part)], axis=1)
        found.append((edges[part, 0].copy(), others))
    return found


def _rate(
    of: Callable[[IntArray, IntArray], object], parts: Sequence[tuple[IntArray, IntArray]]
) -> float:
    began = time.thread_time()
    for papers, others in parts:
        of(papers, others)
    return sum(others.size for _, others in parts) / max(time.thread_time() - began, 1e-9)


def _record(
    options: argparse.Namespace,
    config: RunConfig,
    graph: Graph,
    variants: Sequence[Variant[float]],
    hardware: dict[str, Any],
) -> dict[str, Any]:
    where = origin(hardware)
    rows = []
    for one in variants:
        rates = [rate / 1e6 for rate in one.results]
        figures = (statistics.median(rates), min(rates), max(rates))
        rows.append([one.name, *(round(rate, 3) for rate in figures)])
    return {
        "benchmark": "pairs",
        **where,
        "versions": {name: where["versions"][name] for name in ("python", "numpy", "numba")},
        "settings": {
            "dataset": options.dataset,
            "hold_out": config.hold_out,
            "candidates": options.candidates,
            "nodes": graph.num_nodes,
            "edges": graph.num_edges,
            "rounds": options.rounds,
        },
        "columns": _COLUMNS,
        "rows": rows,
        "notes": _NOTES,
    }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, usage="python -m gnn_core.bench.pair_rates [--flag value ...]")
    add = parser.add_argument
    add("--dataset", default="cit-hepth", metavar="NAME", help="as in training")
    add("--data-root", metavar="DIR", help="as in training")
    add("--cache-dir", metavar="DIR", help="as in training")
    add("--candidates", type=whole(), default=1000, metavar="N", help="as in training")
    add_rounds_flag(parser, 5, "of each way")
    add_json_flag(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
