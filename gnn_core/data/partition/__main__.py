"""Cut a graph into parts, for training on hosts none of which holds all of its features.

python -m gnn_core.data.partition NAME --parts K
python -m gnn_core.data.partition show DIR
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gnn_core.data.datasets import find_cache, load
from gnn_core.data.graph import Graph
from gnn_core.data.partition import show
from gnn_core.data.partition.folder import MOST_PARTS, read_meta
from gnn_core.data.partition.make import METHODS, Request, make_partition, require_possible
from gnn_core.data.partition.refine import BALANCES
from gnn_core.data.progress import Progress
from gnn_core.data.room import size_text
from gnn_core.files import file_stem, path_argument
from gnn_core.launch import guarded
from gnn_core.usage import Parser, whole

_EVERY_SECONDS = 5.0
_EXAMPLES = """\
methods:
  refine       greedy passes over the file that start from a hash; needs two bytes a node
  multilevel   METIS on a coarse graph, then refine; for graphs that fit the memory
  metis        METIS itself (package pymetis); needs 150 bytes of memory an edge
  hash         a hash of the node's id: no locality; for comparison

examples:
  python -m gnn_core.data.partition synthetic:papers=1e6 --parts 4 --dry-run
  python -m gnn_core.data.partition synthetic:papers=1e6 --parts 4
  python -m gnn_core.data.partition ~/graphs/mine --parts 8 --balance edges --output ~/parts/mine-8
  python -m gnn_core.data.partition show ~/parts/mine-8 --figure mine-8.png

The folder is written whole or not at all; a run that was killed is started again with the same
command. The graph itself is not changed, and ids stay as they are.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["show"]:
        return guarded(lambda: _show(_show_parser().parse_args(arguments[1:])))
    return guarded(lambda: _make(_parser().parse_args(arguments)))


def _make(options: argparse.Namespace) -> int:
    graph = load(options.name, options.data_root, options.cache_dir, progress=_say)
    request = Request(
        options.parts, options.method, options.seed, options.balance, options.topology
    )
    folder = options.output or _default_folder(graph, request, find_cache(options.cache_dir))
    needs = require_possible(graph, request, folder)
    _say(
        f"{graph.name}: {request.num_parts} parts by {request.method} take about "
        f"{size_text(needs.memory_bytes)} of memory, {_seconds_text(needs.seconds)} and "
        f"{size_text(needs.disk_bytes)} of disk in {folder}"
    )
    if options.dry_run:
        return 0
    partition = make_partition(graph, request, folder, options.overwrite, _say, _progress())
    print(f"{show.summary(partition.meta)}\n\n{show.holdings(partition.meta)}\n\n{folder}")
    return 0


def _show(options: argparse.Namespace) -> int:
    metas = [read_meta(folder) for folder in options.folders]
    texts = [f"{show.summary(meta)}\n\n{show.holdings(meta)}" for meta in metas]
    print("\n\n".join(texts))
    if options.figure is not None:
        show.draw(metas, options.figure)
        print(f"\ndrew {options.figure}")
    return 0


def _default_folder(graph: Graph, request: Request, cache: Path) -> Path:
    name = f"{file_stem(graph.name)}-{graph.fingerprint[:12]}"
    return cache / "partitions" / f"{name}-{request.num_parts}-{request.method}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _progress() -> Progress:
    """Says now and then how far each kind of work is and when it will be done."""
    began: dict[str, float] = {}
    due = time.monotonic() + _EVERY_SECONDS

    def progress(what: str, done: int, total: int) -> None:
        nonlocal due
        now = time.monotonic()
        start = began.setdefault(what, now)
        if now < due:
            return
        due = now + _EVERY_SECONDS
        left = ""
        if done:
            left = f", {_seconds_text((now - start) * (total - done) / done)} left"
        _say(f"{what}: {100 * done // max(total, 1)} %{left}")

    return progress


def _seconds_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m gnn_core.data.partition",
        description="Cut a graph into parts with few edges between them; write the feature rows "
        "(and with --topology the adjacency rows) of each part. `show DIR` describes a partition.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="which graph, as in training (gnn_core.data.datasets list)")
    add("--parts", type=whole(1, MOST_PARTS), required=True, metavar="K", help="how many")
    add("--method", choices=METHODS, default="refine", help="see below (default: %(default)s)")
    add(
        "--seed",
        type=whole(0, 2**31 - 1),
        default=0,
        metavar="N",
        help="of the hash, and of METIS (default: %(default)s)",
    )
    add(
        "--balance",
        choices=BALANCES,
        help="what no part shall have much more of than others, beside nodes: training targets, "
        "edges, or nothing (default: train where the graph has splits, else edges)",
    )
    text = "also store the adjacency rows by part, for training with --partition-topology"
    add("--topology", action="store_true", help=text)
    add("--output", type=path_argument, metavar="DIR", help="where (default: in the cache)")
    add("--dry-run", action="store_true", help="tell what it would take, and stop")
    add("--overwrite", action="store_true", help="replace another partition in that folder")
    add("--data-root", metavar="DIR", help="where published files lie (default: RINGSAGE_DATA)")
    add(
        "--cache-dir",
        metavar="DIR",
        help="where prepared graphs are kept (default: RINGSAGE_CACHE, else ~/.cache/ringsage)",
    )
    return parser


def _show_parser() -> Parser:
    parser = Parser(
        prog="python -m gnn_core.data.partition show",
        description="How good a partition is, and what each of its parts holds.",
    )
    parser.add_argument(
        "folders", type=path_argument, nargs="+", metavar="DIR", help="of partitions"
    )
    parser.add_argument(
        "--figure", type=path_argument, metavar="FILE", help="also draw them side by side (.png)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
