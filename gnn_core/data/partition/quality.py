"""How good a cut is: edges between parts, halo, balance, and rows that a step reads remotely."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core import seeding
from gnn_core.compiled import njit
from gnn_core.data.graph import Graph
from gnn_core.data.partition.hashed import Parts
from gnn_core.data.partition.stream import adjacency_pieces, read_rows
from gnn_core.data.progress import Progress, silent
from gnn_core.data.sampler import Sampler

FANOUTS, BATCH, STEPS, CACHED = (15, 10, 5), 1024, 4, 0.2
"""Sampled steps: of how many targets, and the share of a part's rows that a cache would hold."""


def edge_quality(
    graph: Graph, parts: Parts, num_parts: int, progress: Progress = silent
) -> tuple[dict[str, float], dict[str, list[int]]]:
    """What follows from the edges, and what each part holds.

    Returns:
        `cut`: share of the edges between parts; `halo`: nodes and copies of the nodes that parts
        read from others, per node (of a graph whose edges go both ways); `node_balance`,
        `edge_balance`, `train_balance`: the largest part in mean parts.
        `nodes`, `edges`, `train`: counts per part.
    """
    held = np.zeros((num_parts, 3), np.int64)
    cut = copies = 0
    for piece in adjacency_pieces(graph):
        progress("measuring", piece.first, graph.num_nodes)
        last = piece.first + len(piece.starts) - 1
        splits = np.zeros(last - piece.first, np.uint8)
        if graph.splits is not None:
            splits = read_rows(graph.splits, piece.first, last)
        between, seen = _count(*piece, splits, parts, held)
        cut, copies = cut + between, copies + seen
    nodes, edges, train = held.T
    told = {
        "cut": cut / max(graph.num_edges, 1),
        "halo": 1 + copies / graph.num_nodes,
        "node_balance": _imbalance(nodes),
        "edge_balance": _imbalance(edges),
        "train_balance": _imbalance(train),
    }
    return told, {"nodes": nodes.tolist(), "edges": edges.tolist(), "train": train.tolist()}


def read_quality(
    graph: Graph, place: npt.NDArray[np.integer], offsets: npt.NDArray[np.int64], seed: int = 0
) -> dict[str, Any]:
    """Rows that a rank reads in a step, of which others hold some: really sampled.

    Ranks are parts, and compute the targets they own; batches are the first of the first epoch.

    Returns:
        `rows_per_step`, `remote_rows_per_step`: means over ranks; `remote_share`;
        `prefix_hits`: share of the remote rows that a cache of the first `CACHED` x N / k rows of
        the other parts holds; `sampled`: what was sampled.
    """
    num_parts = len(offsets) - 1
    batch = min(BATCH, graph.num_nodes)
    targets = np.arange(graph.num_nodes) if graph.splits is None else graph.split("train")
    order = seeding.permutation(len(targets), seed, "order", "train", 0)
    sampler = Sampler(graph, FANOUTS)
    prefix = _prefixes(offsets)
    rows = remote = hits = steps = 0
    for step in range(min(STEPS, -(-len(targets) // batch))):
        everyones = targets[order[step * batch : (step + 1) * batch]]
        owners = np.searchsorted(offsets, place[everyones], "right") - 1
        key = seeding.key(seed, "sampling", "train", 0, step)
        for part in np.unique(owners):
            _, nodes = sampler.sample(everyones[owners == part], key)
            places = place[nodes].astype(np.int64)
            of = np.searchsorted(offsets, places, "right") - 1
            is_remote = of != part
            is_hot = places - offsets[of] < prefix[of]
            rows += len(nodes)
            remote += int(is_remote.sum())
            hits += int((is_remote & is_hot).sum())
        steps += 1
    return {
        "rows_per_step": rows / (num_parts * max(steps, 1)),
        "remote_rows_per_step": remote / (num_parts * max(steps, 1)),
        "remote_share": remote / max(rows, 1),
        "prefix_hits": hits / max(remote, 1),
        "sampled": {"fanouts": list(FANOUTS), "targets": batch, "steps": steps, "cache": CACHED},
    }


def _prefixes(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How many first rows of each part a cache of a rank of another part holds."""
    num_parts = len(offsets) - 1
    prefixes: npt.NDArray[np.float64] = np.diff(offsets) * CACHED / max(num_parts - 1, 1)
    return prefixes


def _imbalance(loads: npt.NDArray[np.int64]) -> float:
    return float(loads.max() / loads.mean()) if loads.any() else 1.0


@njit(cache=True, nogil=True)
def _count(first, starts, columns, splits, parts, held):  # type: ignore[no-untyped-def]
    """Edges between parts, and other parts that nodes have neighbours in; adds to `held`."""
    cut = copies = 0
    seen_by = np.full(len(held), -1, np.int64)  # the last row that met the part
    for row in range(len(starts) - 1):
        own = parts[first + row]
        held[own, 0] += 1
        held[own, 1] += starts[row + 1] - starts[row]
        held[own, 2] += splits[row] == 1
        for edge in range(starts[row], starts[row + 1]):
            part = parts[columns[edge]]
            if part != own:
                cut += 1
                copies += seen_by[part] != row
                seen_by[part] = row
    return cut, copies
