"""Parts by repeated greedy passes over the graph's rows: near METIS in quality, far below in cost.

Every node begins in the part of its hash. In each pass a node moves to the part that most of its
neighbours are in, unless that part is too full; a part with more than its share of the nodes, or of
a second load, is the less attractive the fuller it is. Passes go forwards and backwards in turn,
and skip nodes none of whose neighbours has moved since they were last looked at. Two bytes a node
are held; rows are read from the file in pieces.

Refining a hash is also known from Armada (arXiv 2502.17846). Placing each node once, in the order
of the file, gives twice the cut: the first nodes have no placed neighbours to follow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.graph import Graph
from gnn_core.data.partition.hashed import Parts, hash_parts
from gnn_core.data.partition.stream import PIECE_BYTES, adjacency_pieces, read_rows
from gnn_core.data.progress import Progress, silent
from gnn_core.usage import UsageError, did_you_mean

BALANCES = ("train", "edges", "nodes")
MOST_PASSES = 40
SLACK = 1.05
"""A part holds at most so many times its share of the nodes and of the second load."""
_PENALTY = 5.0  # of a node's neighbours, for each share by which a part is too full
_LEAST_MOVES = 0.0005  # of the nodes; a pass with fewer is the last
_STEP = 1 << 20

Weights = Callable[[int, int], npt.NDArray[np.int64]]
"""(low, high) -> the second load of the nodes low .. high - 1."""


def refine(
    graph: Graph,
    num_parts: int,
    seed: int = 0,
    balance: str | None = None,
    start: Parts | None = None,
    progress: Progress = silent,
    piece_bytes: int = PIECE_BYTES,
) -> Parts:
    """Cut a graph into parts of about equal size with few edges between them.

    A pure function of the graph, `num_parts`, `seed`, `balance` and `start`.

    Args:
        graph: mapped or in memory.
        num_parts: k; there may be more than nodes.
        seed: of the hash.
        balance: the second load that no part has much more of than others: `train` targets,
            `edges`, or none (`nodes`). If None, `train` where the graph has splits, else `edges`.
        start: the parts to begin with, `[N]`, changed in place; a hash if None.
        progress: is told of the passes.
        piece_bytes: of rows read at a time.

    Returns:
        uint8 `[N]`, uint16 from 257 parts.

    Raises:
        UsageError: no such balance, no splits for `train`, or a damaged file.
    """
    num_nodes = graph.num_nodes
    parts = hash_parts(num_nodes, num_parts, seed) if start is None else start
    weights = second_load(graph, balance)
    loads = loads_of(parts, num_parts, weights)
    fair = np.maximum(loads.sum(axis=0) / num_parts, 1.0)
    most = np.ceil(fair * SLACK).astype(np.int64)
    unsettled = np.ones(num_nodes, np.uint8)
    for number in range(MOST_PASSES):
        backwards, moved, done = number % 2 == 1, 0, 0
        for piece in adjacency_pieces(graph, backwards, piece_bytes):
            progress(f"refining, pass {number + 1}", done, num_nodes)
            rows = len(piece.starts) - 1
            load = weights(piece.first, piece.first + rows)
            moved += _refine_rows(*piece, load, parts, unsettled, loads, fair, most, backwards)
            done += rows
        if moved <= _LEAST_MOVES * num_nodes:
            break
    return parts


def second_load(graph: Graph, balance: str | None) -> Weights:
    """The load of `balance` of a range of nodes. Raises UsageError."""
    if balance is None:
        balance = "edges" if graph.splits is None else "train"
    if balance not in BALANCES:
        raise UsageError(
            f"expected a balance {', '.join(BALANCES)}, got {balance!r}"
            f"{did_you_mean(balance, BALANCES)}"
        )
    splits = graph.splits
    if balance == "train" and splits is None:
        raise UsageError(
            f"graph {graph.name}: expected splits to balance training targets by, got none; "
            "choose --balance edges or nodes"
        )

    def weights(low: int, high: int) -> npt.NDArray[np.int64]:
        if balance == "edges":
            degrees: npt.NDArray[np.int64] = np.diff(read_rows(graph.indptr, low, high + 1))
            return degrees
        if balance == "train" and splits is not None:
            targets: npt.NDArray[np.int64] = (read_rows(splits, low, high) == 1).astype(np.int64)
            return targets
        return np.zeros(high - low, np.int64)

    return weights


def loads_of(parts: Parts, num_parts: int, weights: Weights) -> npt.NDArray[np.int64]:
    """Nodes and second load of each part: int64 `[k, 2]`."""
    loads = np.zeros((num_parts, 2), np.int64)
    for low in range(0, len(parts), _STEP):
        piece = parts[low : low + _STEP]
        _add_loads(piece, weights(low, low + len(piece)), loads)
    return loads


@njit(cache=True, nogil=True)
def _add_loads(parts, weights, loads):  # type: ignore[no-untyped-def]
    for i in range(len(parts)):
        loads[parts[i], 0] += 1
        loads[parts[i], 1] += weights[i]


@njit(cache=True, nogil=True, inline="always")
def _penalty(loads, fair, part):  # type: ignore[no-untyped-def]
    """What the part loses for each neighbour of a node, by the fuller of its two loads."""
    return _PENALTY * (max(loads[part, 0] / fair[0], loads[part, 1] / fair[1], 1.0) - 1.0)


@njit(cache=True, nogil=True)
def _refine_rows(  # type: ignore[no-untyped-def]
    first, starts, columns, weights, parts, unsettled, loads, fair, most, backwards
):
    """Move the nodes of these rows where that pays; how many have moved.

    Of equally good parts the old one is kept, else the one of the lowest number is taken.
    """
    num_parts, num_rows = len(loads), len(starts) - 1
    penalties = np.array([_penalty(loads, fair, part) for part in range(num_parts)])
    counts = np.zeros(num_parts, np.int64)  # neighbours in each part
    found = np.empty(num_parts + 1, np.int64)  # parts with neighbours
    moved = 0
    for i in range(num_rows):
        row = num_rows - 1 - i if backwards else i
        if not unsettled[first + row]:
            continue
        unsettled[first + row] = 0
        num_found = 0
        for edge in range(starts[row], starts[row + 1]):
            part = np.int64(parts[columns[edge]])
            found[num_found] = part
            num_found += counts[part] == 0
            counts[part] += 1
        old, degree = np.int64(parts[first + row]), starts[row + 1] - starts[row]
        best, best_score = old, counts[old] - degree * penalties[old]
        for part in found[:num_found]:
            score = counts[part] - degree * penalties[part]
            counts[part] = 0
            if score < best_score or (score == best_score and (best == old or part > best)):
                continue
            if loads[part, 0] < most[0] and loads[part, 1] + weights[row] <= most[1]:
                best, best_score = part, score
            else:  # there may be room in the next pass
                unsettled[first + row] = 1
        if best == old:
            continue
        parts[first + row] = best
        moved += 1
        for part, sign in ((old, -1), (best, 1)):
            loads[part, 0] += sign
            loads[part, 1] += sign * weights[row]
            penalties[part] = _penalty(loads, fair, part)
        for edge in range(starts[row], starts[row + 1]):
            unsettled[columns[edge]] = 1
    return moved
