"""Run an import for the command line, under a name and in the place that `--dataset` looks in."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gnn_core.data import ogb_raw
from gnn_core.data.importer.flags import request_of
from gnn_core.data.meta import META, MISSING_ALLOWED
from gnn_core.data.prepare import prepare
from gnn_core.data.progress import Progress, Say
from gnn_core.files import is_file
from gnn_core.usage import UsageError, shown

IMPORTED = "imported"  # the folder in the cache
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def run(arguments: argparse.Namespace, cache: Path, taken: Collection[str], say: Say) -> str:
    """Import; what to tell. Raises UsageError.

    Args:
        arguments: of a parser with `add_flags`.
        cache: the folder of prepared graphs is below it.
        taken: names of published data sets.
        say: is told in single lines what takes time.
    """
    folder = new_folder(arguments.name, cache, taken, arguments.overwrite)
    request = request_of(arguments)
    if arguments.ogb:
        return _run_ogb(arguments, folder, say)
    require_pyarrow()
    lines: list[str] = []

    def make(progress: Progress) -> None:
        from gnn_core.data.importer.build import import_graph

        lines.extend(import_graph(arguments.name, request, folder, progress))

    prepare(folder, arguments.name, lambda meta: False, make, say)
    return "\n".join([*lines, f"{folder}", f"train on it with --dataset {arguments.name}"])


def _run_ogb(arguments: argparse.Namespace, folder: Path, say: Say) -> str:
    source: Path = arguments.ogb
    layout = ogb_raw.layout_of(source, arguments.directed)
    origin: dict[str, Any] = {"reader": ogb_raw.READER, "imported_from": [str(source.absolute())]}
    if arguments.allow_missing_classes:
        origin[MISSING_ALLOWED] = True

    def make(progress: Progress) -> None:
        ogb_raw.convert_layout(layout, arguments.name, source, folder, origin, progress)

    prepare(folder, arguments.name, lambda meta: False, make, say)
    return f"{folder}\ntrain on it with --dataset {arguments.name}"


def require_pyarrow() -> None:
    """Raise UsageError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UsageError(
            "expected pyarrow, which reads tables, got none: pip install pyarrow"
        ) from None


def new_folder(name: str, cache: Path, taken: Collection[str], overwrite: bool) -> Path:
    """Where the graph of that name will be. UsageError for what is no name, or a known one."""
    if not _NAME.fullmatch(name) or name.endswith(".tmp"):
        wanted = "NAME: expected at most 80 letters, digits and ._-"
        raise UsageError(f"{wanted}, beginning with a letter or digit, got {shown(name)}")
    if name in taken:
        raise UsageError(
            f"NAME: expected one of your own, got {name}, a known data set; choose another"
        )
    folder = cache / IMPORTED / name
    if folder.exists() and not overwrite:
        raise UsageError(
            f"{name}: expected a new name, got one that was imported before; choose another one or "
            "give --overwrite"
        )
    return folder


def imported_names(cache: Path) -> list[str]:
    """The names of the graphs that were imported."""
    folders = (cache / IMPORTED).glob("*")
    return sorted(
        folder.name for folder in folders if ".tmp-" not in folder.name and is_file(folder / META)
    )
