"""The command line of an import: `python -m gnn_core.data.datasets import NAME --edges FILE ...`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from pathlib import Path

from gnn_core.data.importer.request import ID_TYPES, LAYOUTS, MADE_FEATURES, Request, split_rule
from gnn_core.data.importer.tables import TextOptions
from gnn_core.data.meta import META
from gnn_core.data.prepare import prepare
from gnn_core.data.progress import Progress, Say
from gnn_core.files import is_file, path_argument
from gnn_core.usage import UsageError, shown, whole

SUMMARY = "read a graph of your own; then --dataset NAME trains on it"
IMPORTED = "imported"  # the folder in the cache
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_ENCODINGS = ("utf-8", "latin-1", "cp1252")
HELP = """\
Tables are CSV of any delimiter (also .gz, .zst, .bz2) or Parquet. A column is named, or given by
its position from 0. Ids are integers or text. Edges are taken in both directions; those from a node
to itself and repeats are left out and counted.

examples:
  python -m gnn_core.data.datasets import mine --edges edges.csv --nodes nodes.csv \\
      --label-column topic --feature-columns 'x_*'
  python -m gnn_core.data.datasets import mine --edges edges.parquet --features features.npy \\
      --labels labels.npy --split random:0.5,0.25,0.25
  python -m gnn_core.data.datasets import photo --edges amazon_photo.npz --split planetoid
  python baselines/single.py --dataset mine
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `request_of` reads."""
    add = parser.add_argument
    add("name", metavar="NAME", help="what --dataset will call it")
    files = {"metavar": "FILE", "type": path_argument}
    add(
        "--edges",
        nargs="+",
        required=True,
        help="tables, or one .npy [edges, 2], or one .npz with a whole graph",
        **files,
    )
    add("--nodes", nargs="+", default=[], help="tables with a row for each node", **files)
    add(
        "--features",
        nargs="+",
        default=[],
        metavar="FILE",
        help="rows by id, triples (node, feature, value), JSON lists, .npy or .npz by row of --nodes, or: "
        + ", ".join(MADE_FEATURES),
    )
    add("--labels", help=".npy with a class for each node", **files)
    add("--years", help=".npy with a year for each node", **files)
    add(
        "--split",
        metavar="HOW",
        help="random:0.6,0.2,0.2 (the default), planetoid, year:2017,2018, or a table (id, split)",
    )
    add("--split-seed", type=whole(0), default=0, metavar="N", help="of a random split (0)")
    add(
        "--directed",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="keep the direction of edges, for --task link",
    )
    add("--undirected", dest="directed", action="store_false", help="the default")
    for flag, what in (
        ("source", "of edges (source, src, from, ..., else the first)"),
        ("target", "of edges (target, dst, to, ..., else the second)"),
        ("id", "of nodes (id, node_id, ..., else the first)"),
        ("label", "of nodes (label, class, target, y)"),
        ("split", "of nodes: train, valid, test or none (split)"),
        ("year", "of nodes (year)"),
    ):
        add(f"--{flag}-column", metavar="C", help=what)
    add(
        "--feature-columns",
        type=_commas,
        default=(),
        metavar="C,C",
        help="numbers in --nodes (or in --features) to take as features; x_* is a pattern",
    )
    add(
        "--feature-layout",
        choices=LAYOUTS,
        default="auto",
        help="of tables of features; ordered: no ids, rows as in --nodes",
    )
    add("--id-type", choices=ID_TYPES, default="auto", help="int refuses text, text keeps 007")
    add(
        "--allow-unlisted",
        action="store_true",
        help="edges may name nodes that --nodes does not list: no label, features 0",
    )
    add("--delimiter", type=_delimiter, metavar="C", help="of CSV (found)")
    add(
        "--header",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether CSV begins with names of columns (found)",
    )
    add("--encoding", choices=_ENCODINGS, default="utf-8", help="of CSV (utf-8)")
    add("--overwrite", action="store_true", help="replace a graph that was imported before")


def request_of(arguments: argparse.Namespace) -> Request:
    """The settings on the command line."""
    if arguments.split:
        split_rule(arguments.split)  # a wrong one is told before anything is read
    names = Request.__dataclass_fields__.keys() - {"text"}
    values = {name: getattr(arguments, name) for name in names}
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    text = TextOptions(arguments.delimiter, arguments.header, arguments.encoding)
    return Request(**values, text=text)


def run(arguments: argparse.Namespace, cache: Path, taken: Collection[str], say: Say) -> str:
    """Import; what to tell. Raises UsageError.

    Args:
        arguments: of a parser with `add_flags`.
        cache: the folder of prepared graphs is below it.
        taken: names of published data sets.
        say: is told in single lines what takes time.
    """
    folder = folder_of(arguments.name, cache, taken)
    request = request_of(arguments)
    if folder.exists() and not arguments.overwrite:
        raise UsageError(
            f"{arguments.name}: expected a new name, got one that was imported before; choose "
            "another one or give --overwrite"
        )
    require_pyarrow()
    lines: list[str] = []

    def make(progress: Progress) -> None:
        from gnn_core.data.importer.build import import_graph

        lines.extend(import_graph(arguments.name, request, folder, progress))

    prepare(folder, arguments.name, lambda meta: False, make, say)
    return "\n".join([*lines, f"{folder}", f"train on it with --dataset {arguments.name}"])


def require_pyarrow() -> None:
    """Raise UsageError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UsageError(
            "expected pyarrow, which reads tables, got none: pip install pyarrow"
        ) from None


def folder_of(name: str, cache: Path, taken: Collection[str]) -> Path:
    """Where the graph of that name is. UsageError for what is no name, or that of another one."""
    if not _NAME.fullmatch(name) or name.endswith(".tmp"):
        wanted = "NAME: expected at most 80 letters, digits and ._-"
        raise UsageError(f"{wanted}, beginning with a letter or digit, got {shown(name)}")
    if name in taken:
        raise UsageError(
            f"NAME: expected one of your own, got {name}, a known data set; choose another"
        )
    return cache / IMPORTED / name


def imported_names(cache: Path) -> list[str]:
    """The names of the graphs that were imported."""
    folders = (cache / IMPORTED).glob("*")
    return sorted(
        folder.name for folder in folders if ".tmp-" not in folder.name and is_file(folder / META)
    )


def _commas(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _delimiter(text: str) -> str:
    text = {"tab": "\t", "\\t": "\t", "space": " "}.get(text, text)
    if len(text) != 1 or text in '"\r\n' or not text.isascii():
        raise argparse.ArgumentTypeError(f"expected one character, or tab, got {shown(text)}")
    return text
