"""Data sets by name: what there is, where it comes from, and its graph, prepared once and opened.

    python -m gnn_core.data.datasets list
    python -m gnn_core.data.datasets prepare synthetic-arxiv
    python -m gnn_core.data.datasets show cora --data-root DIR
    python -m gnn_core.data.datasets import mine --edges edges.csv --nodes nodes.csv

A graph is prepared (generated, or read from published files) into `<cache>/graphs/<name>` and
opened from there ever after. Of several processes that ask at once, one prepares, the others wait.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages()

from gnn_core.data import sources, synthetic
from gnn_core.data.catalog import FALLBACKS, PUBLISHED, Published
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.graph_statistics import statistics
from gnn_core.data.importer import command as importing
from gnn_core.data.importer import flags as import_flags
from gnn_core.data.meta import META, read_meta
from gnn_core.data.partition.folder import Partition, parts_there
from gnn_core.data.partition.show import holdings, summary
from gnn_core.data.prepare import is_prepared, prepare
from gnn_core.data.progress import Progress, Say
from gnn_core.data.synthetic_spec import PRESETS, SyntheticSpec
from gnn_core.files import expanded, is_file, is_folder, path_argument, path_problem
from gnn_core.usage import Parser, UsageError, did_you_mean, shown


def names() -> list[str]:
    """Every name that `load` knows (a synthetic graph's settings and a folder's path aside)."""
    return [*PRESETS, *PUBLISHED]


def load(
    name: str,
    data_root: str | Path | None = None,
    cache_dir: str | Path | None = None,
    verify: bool = False,
    progress: Say | None = None,
    has_parts: bool = False,
) -> Graph:
    """The graph of that name, memory-mapped; prepared first if it is not yet. Raises UsageError.

    Args:
        name: a name of `names()`, `synthetic:key=value,...`, or the path of a graph folder.
        data_root: where published files lie (RINGSAGE_DATA if None).
        cache_dir: where prepared graphs are kept (RINGSAGE_CACHE, else ~/.cache/ringsage, if None).
        verify: check every element and every checksum, however large the graph is.
        progress: gets now and then, in one line, what is being prepared.
        has_parts: see `Graph.open`.
    """
    root, cache = find_data_root(data_root), find_cache(cache_dir)
    folder = _folder_of(name, root, cache, progress)
    if folder is not None:
        return Graph.open(folder, verify, has_parts)
    imported = importing.imported_names(cache)
    near = did_you_mean(name.partition(":")[0], [*names(), *imported])
    known = f"; it knows {', '.join([*names(), *imported])} and folders with a {META}"
    raise UsageError(f"unknown data set {shown(name)}{near or known}")


def _folder_of(name: str, root: Path | None, cache: Path, progress: Say | None) -> Path | None:
    """The folder of the graph of that name, prepared; None for a name that is not known."""
    if name.partition(":")[0] in PRESETS:
        return _prepare_synthetic(name, cache, progress)
    if name in PUBLISHED:
        return _prepare_published(PUBLISHED[name], root, cache, progress)
    if name in importing.imported_names(cache):
        return cache / importing.IMPORTED / name
    folder = expanded(name, "--dataset")
    return folder if is_file(folder / META) or os.sep in name else None


def prepared_folder(name: str, cache_dir: str | Path | None = None) -> Path | None:
    """The folder of the graph of that name where it is prepared, else None; it prepares nothing.

    Raises UsageError. Whether its source files have changed since is not looked at.
    """
    cache = find_cache(cache_dir)
    if name.partition(":")[0] in PRESETS:
        folders = [_synthetic_folder(SyntheticSpec.parse(name), cache)]
    elif name in PUBLISHED:
        folders = [cache / "graphs" / one for one in (name, FALLBACKS.get(name)) if one]
    elif os.sep in name:
        folders = [expanded(name, "--dataset")]
    else:
        folders = [cache / importing.IMPORTED / name]
    return next((folder for folder in folders if is_prepared(folder)), None)


def add(
    graph: Graph, name: str, cache_dir: str | Path | None = None, overwrite: bool = False
) -> Graph:
    """Keep a graph under a name of its own, for `load` and `--dataset`; it, opened. UsageError.

    Args:
        graph: in memory, as `gnn_core.data.interop` makes one, or from a folder.
        name: of letters, digits and `._-`, and none of `names()`.
        cache_dir: as for `load`.
        overwrite: replace the graph of that name, if there is one.
    """
    folder = importing.new_folder(name, find_cache(cache_dir), names(), overwrite)
    return write_graph(replace(graph, name=name), folder)


def find_data_root(given: str | Path | None = None) -> Path | None:
    """Where published files lie: as given, else RINGSAGE_DATA; None if neither. UsageError."""
    chosen = given or os.environ.get("RINGSAGE_DATA")
    if not chosen:
        return None
    root = expanded(str(chosen), "--data-root")
    if not is_folder(root):
        raise UsageError(f"data root {root}: expected a folder, got none; correct --data-root")
    return root.resolve()


def find_cache(given: str | Path | None = None) -> Path:
    """Where prepared graphs are kept: as given, else RINGSAGE_CACHE, else the user's cache.

    Raises UsageError for what cannot be a path.
    """
    chosen = given or os.environ.get("RINGSAGE_CACHE")
    if chosen:
        return expanded(str(chosen), "--cache-dir (or RINGSAGE_CACHE)").absolute()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    if path_problem(home):  # no HOME, and a user that the system does not know
        return Path(tempfile.gettempdir(), f"ringsage-{os.getuid()}")
    return Path(home).expanduser().absolute() / "ringsage"


def _prepare_synthetic(name: str, cache: Path, say: Say | None) -> Path:
    spec = SyntheticSpec.parse(name)
    folder = _synthetic_folder(spec, cache)

    def make(progress: Progress) -> None:
        synthetic.generate(spec, folder, progress=progress)

    prepare(folder, spec.canonical(), lambda meta: True, make, say)
    return folder


def _synthetic_folder(spec: SyntheticSpec, cache: Path) -> Path:
    """Other parameters, or another generator, go into another folder."""
    recipe = f"{synthetic.GENERATOR}: {spec!r}"
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    return cache / "graphs" / f"synthetic-{spec.papers}-{digest}"


def _prepare_published(entry: Published, root: Path | None, cache: Path, say: Say | None) -> Path:
    folder = cache / "graphs" / entry.name
    raw = entry.find(root, cache)
    other = PUBLISHED.get(FALLBACKS.get(entry.name, ""))
    if raw is None and other is not None and not is_prepared(folder):
        if other.find(root, cache) is not None:
            if say is not None:
                say(f"{entry.name}: its files are not there, {other.name} is taken instead")
            return _prepare_published(other, root, cache, say)

    if raw is None and not is_prepared(folder):
        entry.require_download(root)

    def is_current(meta: dict[str, Any]) -> bool:
        made = meta["provenance"]
        if made.get("reader") != entry.reader:
            return False
        return raw is None or sources.changed_file(raw, made["files"]) is None

    def make(progress: Progress) -> None:
        source = raw or entry.fetch(root, cache, progress)
        files = sources.stamp(source, entry.files, progress)
        entry.convert(
            entry.name, source, folder, {"reader": entry.reader, "files": files}, progress
        )

    prepare(folder, entry.name, is_current, make, say)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return guarded(lambda: _run(_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "list":
        text = _list(find_data_root(arguments.data_root), find_cache(arguments.cache_dir))
    elif arguments.command == "import":
        text = importing.run(arguments, find_cache(arguments.cache_dir), names(), _say)
    else:
        graph = load(
            arguments.name, arguments.data_root, arguments.cache_dir, arguments.verify, _say
        )
        text = f"{graph.folder}"
        if arguments.command == "show":
            text = statistics(graph)
            if arguments.parts is not None:
                here = parts_there(arguments.parts)
                meta = Partition.open(arguments.parts, graph, here, arguments.verify).meta
                text += f"\n\nparts in {arguments.parts}\n{summary(meta)}\n\n{holdings(meta)}"
                if len(here) < meta["num_parts"]:
                    text += f"\nOf {meta['num_parts']} parts, {len(here)} are in this folder."
    print(text)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _list(root: Path | None, cache: Path) -> str:
    lines = []
    for name, preset in PRESETS.items():
        papers = f"{preset.papers:,}".replace(",", " ")
        what = f"{papers} papers, {preset.num_topics} classes; generated, split by year"
        folder = _synthetic_folder(preset, cache)
        lines.append((name, "prepared" if is_prepared(folder) else "to be generated", what))
    for name, entry in PUBLISHED.items():
        state = "to be downloaded" if entry.is_fetched else "not here"
        if is_prepared(cache / "graphs" / name):
            state = "prepared"
        elif entry.find(root, cache) is not None:
            state = "files found"
        lines.append((name, state, entry.what))
    for name in importing.imported_names(cache):
        lines.append((name, "imported", _counts(cache / importing.IMPORTED / name)))
    rows = [f"{name:<17} {state:<17} {what}" for name, state, what in lines]
    rows += ["", f"data root    {root or 'none (--data-root or RINGSAGE_DATA)'}"]
    rows += [f"prepared in  {cache / 'graphs'}"]
    return "\n".join(rows)


def _counts(folder: Path) -> str:
    meta = read_meta(folder)
    return f"{meta['num_nodes']:,} nodes, {meta['num_classes']} classes".replace(",", " ", 1)


_HELP = """\
NAME is one of the names that `list` prints, a synthetic graph with settings, or the path of a
folder that holds a prepared graph:

  synthetic                                       20 000 papers, ready in seconds
  synthetic:papers=1e6,citations_per_paper=10     a million; other settings below
  cora                                            read from --data-root, or downloaded
  ~/graphs/mine                                   a folder with a meta.json

settings of a synthetic graph, and what they are otherwise:
{settings}

examples:
  python -m gnn_core.data.datasets list --data-root ~/data
  python -m gnn_core.data.datasets prepare synthetic-arxiv
  python -m gnn_core.data.datasets show cora
"""


def _parser() -> Parser:
    pairs = [f"{key}={value}" for key, value in asdict(SyntheticSpec()).items()]
    settings = textwrap.fill(", ".join(pairs), 90, initial_indent="  ", subsequent_indent="  ")
    parser = Parser(
        prog="python -m gnn_core.data.datasets",
        description="What graphs there are; prepare one for training; look at one.",
        epilog=_HELP.format(settings=settings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shared = Parser(add_help=False)
    shared.add_argument(
        "--data-root", metavar="DIR", help="where published files lie (default: RINGSAGE_DATA)"
    )
    shared.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="where prepared graphs are kept (default: RINGSAGE_CACHE, else ~/.cache/ringsage)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", parents=[shared], help="the names, and which graphs are here")
    for command, what in (
        ("prepare", "generate or read a graph, if that is not done yet; print its folder"),
        ("show", "counts, degrees, homophily, splits, years, classes, memory"),
    ):
        one = commands.add_parser(command, parents=[shared], help=what, description=what)
        one.add_argument("name", metavar="NAME", help="which graph")
        one.add_argument("--verify", action="store_true", help="check every element and checksum")
        if command == "show":
            what = "a partition of the graph: tell what each part holds, too"
            one.add_argument("--parts", type=path_argument, metavar="DIR", help=what)
    raw = argparse.RawDescriptionHelpFormatter
    one = commands.add_parser(
        "import",
        parents=[shared],
        help=import_flags.SUMMARY,
        description=import_flags.SUMMARY,
        epilog=import_flags.HELP,
        formatter_class=raw,
    )
    import_flags.add_flags(one)
    return parser


if __name__ == "__main__":
    sys.exit(main())
