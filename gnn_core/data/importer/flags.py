"""The flags of `python -m gnn_core.data.datasets import`, and the request that they make."""

from __future__ import annotations

import argparse
from typing import Any

from gnn_core.data.importer.request import ID_TYPES, LAYOUTS, MADE_FEATURES, Request, split_rule
from gnn_core.data.importer.tables import TextOptions
from gnn_core.files import path_argument
from gnn_core.usage import UsageError, shown, whole

SUMMARY = "read a graph of your own; then --dataset NAME trains on it"
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
_ENCODINGS = ("utf-8", "latin-1", "cp1252")
_FILES = (  # (flag, how many, what)
    ("--edges", "+", "tables, or one .npy [edges, 2], or one .npz with a whole graph"),
    ("--nodes", "+", "tables with a row for each node"),
    ("--labels", None, ".npy or .npz with a class for each node"),
    ("--years", None, ".npy or .npz with a year for each node"),
)
_COLUMNS = (
    ("source", "of edges (source, src, from, ..., else the first)"),
    ("target", "of edges (target, dst, to, ..., else the second)"),
    ("id", "of nodes (id, node_id, ..., else the first)"),
    ("label", "of nodes (label, class, target, y)"),
    ("split", "of nodes: train, valid, test or none (split)"),
    ("year", "of nodes (year)"),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `request_of` reads."""
    add = parser.add_argument
    add("name", metavar="NAME", help="what --dataset will call it")
    for flag, count, what in _FILES:
        add(flag, nargs=count, type=path_argument, metavar="FILE", help=what)
    add("--ogb", type=path_argument, metavar="DIR", help="a data set in OGB's raw layout, instead")
    made = " or ".join(MADE_FEATURES)
    add(
        "--features",
        nargs="+",
        metavar="FILE",
        help="rows by id, triples (node, feature, value), JSON lists, .npy or .npz by row of "
        f"--nodes; or {made}",
    )
    add(
        "--split",
        metavar="HOW",
        help="random:0.6,0.2,0.2 (the default), planetoid, year:2017,2018, or a table (id, split)",
    )
    add("--split-seed", type=whole(0), default=0, metavar="N", help="of a random split (0)")
    direction = parser.add_mutually_exclusive_group()
    direction.add_argument(
        "--directed", action="store_true", help="keep the direction of edges, for --task link"
    )
    direction.add_argument(
        "--undirected", dest="directed", action="store_false", help="do not (the default)"
    )
    _add_reading_flags(parser)
    add("--overwrite", action="store_true", help="replace a graph that was imported before")


def _add_reading_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    for name, what in _COLUMNS:
        add(f"--{name}-column", metavar="C", help=what)
    add(
        "--feature-columns",
        type=_commas,
        default=(),
        metavar="C,C",
        help="numbers in --nodes or in --features to take as features: names, positions, or a "
        "pattern such as x_*",
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
    add(
        "--allow-missing-classes",
        action="store_true",
        help="validation and test nodes may have classes that no training node has",
    )
    add("--delimiter", type=_delimiter, metavar="C", help="of CSV (found)")
    add(
        "--header",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether CSV begins with names of columns (found)",
    )
    add("--encoding", choices=_ENCODINGS, default="utf-8", help="of CSV (utf-8)")


def request_of(arguments: argparse.Namespace) -> Request:
    """The settings on the command line. UsageError."""
    if bool(arguments.edges) == bool(arguments.ogb):
        raise UsageError("expected --edges FILE, or --ogb DIR, and not both; see import --help")
    if arguments.split:
        split_rule(arguments.split)  # a wrong one is told before anything is read
    made = [name for name in arguments.features or () if name in MADE_FEATURES]
    if made and len(arguments.features) > 1:
        got = shown(" ".join(arguments.features))
        raise UsageError(f"--features: expected files, or {made[0]} alone, got {got}; name one")
    values: dict[str, Any] = {}
    for name in Request.__dataclass_fields__.keys() - {"text"}:
        value = getattr(arguments, name)
        is_list = name in ("edges", "nodes", "features")
        values[name] = tuple(value or ()) if is_list else value
    text = TextOptions(arguments.delimiter, arguments.header, arguments.encoding)
    return Request(**values, text=text)


def _commas(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _delimiter(text: str) -> str:
    text = {"tab": "\t", "\\t": "\t", "space": " "}.get(text, text)
    if len(text) != 1 or text in '"\r\n' or not text.isascii():
        raise argparse.ArgumentTypeError(f"expected one character, or tab, got {shown(text)}")
    return text
