"""Data benchmark: `python -m gnn_core.bench.sampling` measures how fast batches are drawn.

Three ways take turns, round by round, so that whatever else the machine does falls on all alike:
the sampler alone, the loader in the caller's thread, and the loader with its prefetch thread.
Drawing includes building the blocks. Every batch is dropped at once, as if training took no time.

This is a program and not part of the flow of data: nothing imports it, and it alone on this side
may ask the report for the machine and for rates.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gnn_core import seeding
from gnn_core.bench.bench_file import write_bench
from gnn_core.bench.sampling_figures import Round, make_record, text_of
from gnn_core.config import RunConfig
from gnn_core.data import datasets
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.data.sampler import Sampler
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.usage import Parser, UsageError, whole, wholes

_MOST_BATCHES = 50  # a round, unless told otherwise
_EXAMPLES = """\
examples:
  python -m gnn_core.bench.sampling                                      # a graph like ogbn-arxiv
  python -m gnn_core.bench.sampling --dataset cora --fanouts 10,10 --global-batch-size 140
  python -m gnn_core.bench.sampling --dataset synthetic:papers=2e6 --rounds 3 --json bench.json
  taskset -c 1 python -m gnn_core.bench.sampling               # as a rank pinned to a core

Batches are drawn as on one rank. The ranks of a job draw side by side, each on its own core.
"""


@dataclass
class Way:
    """One way to draw the batches of a round: `draw` yields (edges, input nodes) of each."""

    name: str
    draw: Callable[[], Iterable[tuple[int, int]]]
    rounds: list[Round] = field(default_factory=list)

    def run(self) -> Round:
        """Draw one round."""
        elapsed, cpu = time.perf_counter(), time.process_time()
        sizes = list(self.draw())
        cpu, elapsed = time.process_time() - cpu, time.perf_counter() - elapsed
        edges, input_nodes = (sum(column) for column in zip(*sizes, strict=True))
        return Round(edges, input_nodes, len(sizes), elapsed, cpu)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 after a mistake told in one line."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    config = RunConfig(
        dataset=options.dataset,
        data_root=options.data_root,
        cache_dir=options.cache_dir,
        fanouts=options.fanouts,
        layers=len(options.fanouts),
        seed=options.seed,
        global_batch_size=options.global_batch_size,
        prefetch=options.prefetch,
    )
    graph = datasets.load(
        config.dataset,
        config.data_root,
        config.cache_dir,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    hardware = machine.hardware()  # before the benchmark is a load of its own
    began = time.perf_counter()
    ways = _ways(graph, config, options.batches)
    for way in ways:
        way.run()  # compiles kernels, fetches pages
    warm_up_seconds = time.perf_counter() - began
    for number in range(options.rounds):
        first = number % len(ways)
        for way in ways[first:] + ways[:first]:
            way.rounds.append(way.run())
    record = make_record(
        hardware,
        {"name": graph.name, "nodes": graph.num_nodes, "edges": graph.num_edges},
        {
            "dataset": graph.name,
            "fanouts": list(config.fanouts),
            "global_batch_size": config.global_batch_size,
            "batches": ways[0].rounds[0].batches,
            "rounds": options.rounds,
            "seed": config.seed,
        },
        warm_up_seconds,
        {way.name: way.rounds for way in ways},
    )
    print(text_of(record))
    if options.json is not None:
        write_bench(options.json, record)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m gnn_core.bench.sampling",
        description=(__doc__ or "").partition("\n\n")[2].rpartition("\n\n")[0],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--dataset",
        default="synthetic-arxiv",
        metavar="NAME",
        help="as in training (default: %(default)s)",
    )
    add("--data-root", metavar="DIR", help="where published files lie (default: RINGSAGE_DATA)")
    add(
        "--cache-dir",
        metavar="DIR",
        help="where prepared graphs are kept (default: RINGSAGE_CACHE, else ~/.cache/ringsage)",
    )
    add(
        "--fanouts",
        type=wholes,
        default=(15, 10, 5),
        metavar="N,N,...",
        help="neighbours per node and hop, targets outward; -1 takes all (default: 15,10,5)",
    )
    add(
        "--global-batch-size",
        type=whole(),
        default=1024,
        metavar="N",
        help="targets a batch (default: %(default)s)",
    )
    add(
        "--batches",
        type=whole(),
        metavar="N",
        help=f"batches a round (default: an epoch, but {_MOST_BATCHES} at most)",
    )
    add("--rounds", type=whole(), default=7, metavar="N", help="of each way (default: %(default)s)")
    add(
        "--prefetch",
        type=whole(),
        default=2,
        metavar="N",
        help="how many batches the thread works ahead (default: %(default)s)",
    )
    add(
        "--seed",
        type=whole(0, 2**63 - 1),
        default=0,
        metavar="N",
        help="of the draws (default: %(default)s)",
    )
    add("--json", type=_writable, metavar="FILE", help="also write a record of all figures")
    return parser.parse_args(argv)


def _writable(text: str) -> Path:
    path = path_argument(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that is there, got {text!r}")
    return path


def _ways(graph: Graph, config: RunConfig, num_batches: int | None) -> list[Way]:
    def loader(prefetch: int) -> Loader:
        return Loader(
            graph,
            "train",
            config.fanouts,
            config.global_batch_size,
            seed=config.seed,
            prefetch=prefetch,
        )

    here, ahead = loader(0), loader(config.prefetch)
    num_steps = here.num_steps
    if num_batches is not None and num_batches > num_steps:
        raise UsageError(
            f"--batches: an epoch of {graph.name} has {num_steps:,} batches of "
            f"{config.global_batch_size:,} targets, got {num_batches:,}; lower --batches or "
            "--global-batch-size"
        )
    # The last ones of an epoch: a prefetch thread that ran on beyond a round would be counted.
    first_step = num_steps - (num_batches or min(num_steps, _MOST_BATCHES))
    targets = [batch.targets for batch in here.batches(0, first_step)]
    sampler = Sampler(graph, config.fanouts)

    def sample() -> Iterator[tuple[int, int]]:
        for step, ids in enumerate(targets):
            blocks, input_nodes = sampler.sample(ids, seeding.key(config.seed, "bench", step))
            yield sum(block.num_edges for block in blocks), len(input_nodes)

    def load(source: Loader) -> Iterator[tuple[int, int]]:
        for batch in source.batches(0, first_step):
            yield batch.num_edges, len(batch.input_nodes)

    return [
        Way("the sampler", sample),
        Way("the loader", lambda: load(here)),
        Way(f"the loader, prefetch {config.prefetch}", lambda: load(ahead)),
    ]


if __name__ == "__main__":
    sys.exit(main())
