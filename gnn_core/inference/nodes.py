"""Which nodes are asked for: all, a split, or those whose ids stand in a list or a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gnn_core.data.graph import Graph
from gnn_core.data.ids import OriginalIds, nodes_called
from gnn_core.files import path_problem, read_regular, reason
from gnn_core.inference.request import SPLITS
from gnn_core.training.world import World
from gnn_core.usage import UsageError

_MOST_BYTES = 1 << 30  # of a file of ids
IntArray = npt.NDArray[np.int64]


def chosen_nodes(which: str, graph: Graph, ids: OriginalIds | None, world: World) -> IntArray:
    """The nodes of `--nodes`, ascending. Every rank must call it. Raises UsageError on all."""
    if which == "all":
        return np.arange(graph.num_nodes)

    def find() -> IntArray:
        return graph.split(which) if which in SPLITS else _named(which, "--nodes", graph, ids)

    return on_rank_0(find, f"--nodes {which}", world)


def listed_nodes(
    text: str, flag: str, graph: Graph, ids: OriginalIds | None, world: World
) -> IntArray:
    """The nodes of a file of ids, or of ids with commas between; ascending. Collective."""
    return on_rank_0(lambda: _named(text, flag, graph, ids), flag, world)


def on_rank_0(find: Callable[[], IntArray], flag: str, world: World) -> IntArray:
    """Sorted and distinct numbers that rank 0 alone has to find out; a UsageError is raised on all.

    It may be the only one whose host has the file.
    """
    found = np.empty(0, np.int64)
    with world.errors_on_all_ranks():
        if world.rank == 0:
            found = np.unique(find())
            if not len(found):
                raise UsageError(f"{flag}: expected at least one node, got none; choose others")
    # A copy, since kernels are compiled anew for an array that is read-only.
    return np.frombuffer(world.broadcast_bytes(found.tobytes()), np.int64).copy()


def _named(text: str, flag: str, graph: Graph, ids: OriginalIds | None) -> IntArray:
    """The nodes of a file of ids, if there is one of that name, or of ids with commas between."""
    is_there = _exists(text)
    if is_there:
        try:
            words = read_regular(Path(text), _MOST_BYTES).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise UsageError(f"{flag} {text}: expected ids in UTF-8, one a line") from None
    else:
        words = text.split(",")
    words = [word.strip() for word in words if word.strip()]
    try:
        return nodes_called(graph, ids, words)
    except UsageError as error:
        where = f"{flag} {text}:" if is_there else f"{flag}: no file of that name, and"
        raise UsageError(f"{where} {error}") from None


def _exists(text: str) -> bool:
    try:
        return not path_problem(text) and Path(text).exists()
    except OSError as error:  # a closed folder
        raise UsageError(f"cannot read {text}: {reason(error)}") from None
