"""Data benchmark: `python -m gnn_core.bench.sampling` measures how fast batches are drawn.

Three ways take turns, round by round, so that whatever else the machine does falls on all alike:
the sampler alone, the loader in the caller's thread, and the loader with its prefetch thread.
Drawing includes building the blocks. Every batch is dropped at once, as if training took no time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gnn_core import seeding
from gnn_core.bench.frame import Variant, add_json_flag, add_rounds_flag, take_turns, write_bench
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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 after a mistake reported in one line."""
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
    variants = _variants(graph, config, options.batches)
    for variant in variants:
        variant.run()  # compiles kernels, fetches pages
    warm_up_seconds = time.perf_counter() - began
    take_turns(variants, options.rounds, lambda drawn: f"{drawn.elapsed_seconds:.3f} s")
    record = make_record(
        hardware,
        {"name": graph.name, "nodes": graph.num_nodes, "edges": graph.num_edges},
        {
            "dataset": graph.name,
            "fanouts": list(config.fanouts),
            "global_batch_size": config.global_batch_size,
            "batches": variants[0].results[0].batches,
            "rounds": options.rounds,
            "seed": config.seed,
        },
        warm_up_seconds,
        {variant.name: variant.results for variant in variants},
    )
    print(text_of(record))
    if options.json is not None:
        write_bench(options.json, record)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m gnn_core.bench.sampling",
        description=(__doc__ or "").partition("\n\n")[2],
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
    add_rounds_flag(parser, 7, "of each way")
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
    add_json_flag(parser, _writable)
    return parser.parse_args(argv)


def _writable(text: str) -> Path:
    path = path_argument(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that is there, got {text!r}")
    return path


def _variants(graph: Graph, config: RunConfig, num_batches: int | None) -> list[Variant[Round]]:
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
        Variant("the sampler", lambda: _timed(sample())),
        Variant("the loader", lambda: _timed(load(here))),
        Variant(f"the loader, prefetch {config.prefetch}", lambda: _timed(load(ahead))),
    ]


def _timed(drawn: Iterable[tuple[int, int]]) -> Round:
    """Draw one round; `drawn` yields (edges, input nodes) of each batch."""
    elapsed, cpu = time.perf_counter(), time.process_time()
    sizes = list(drawn)
    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - elapsed
    edges, input_nodes = (sum(column) for column in zip(*sizes, strict=True))
    return Round(edges, input_nodes, len(sizes), elapsed, cpu)


if __name__ == "__main__":
    sys.exit(main())
