"""Make a partition: predict what it takes, refuse what cannot be, cut, measure, write."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn_core.data.checks import index_dtype
from gnn_core.data.graph import Graph
from gnn_core.data.partition.folder import MOST_PARTS, PART, PLACE, Partition, part_name, read_meta
from gnn_core.data.partition.hashed import Parts, hash_parts, part_dtype
from gnn_core.data.partition.metis import BYTES_PER_ENTRY, metis_parts, require_metis
from gnn_core.data.partition.multilevel import multilevel_parts
from gnn_core.data.partition.order import degree_heat, places_of
from gnn_core.data.partition.quality import edge_quality, read_quality
from gnn_core.data.partition.refine import refine, second_load
from gnn_core.data.partition.scatter import DEFAULT_BUDGET_BYTES
from gnn_core.data.partition.write import require_dense, write_parts
from gnn_core.data.prepare import locked, remove_leftovers
from gnn_core.data.progress import Progress, Say, silent
from gnn_core.data.room import require_room
from gnn_core.files import NO_ROOM, is_file, reason
from gnn_core.usage import UsageError, shown

METHODS = ("refine", "multilevel", "metis", "hash")
_ALWAYS_THERE = (PLACE, f"{part_name(0)}/{PART}")  # in the folder of a partition
_PROCESS_BYTES = 250 << 20  # of the program, its libraries and the pieces it reads
# Rough rates of one core, for the seconds that are told before the work begins.
_ENTRIES_PER_SECOND = {"hash": 0.0, "refine": 6e6, "multilevel": 1e6, "metis": 0.8e6}
_WRITTEN_PER_SECOND = 150e6  # bytes, each of which is written and read twice
_MEASURED_PER_SECOND = 30e6  # entries


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    num_parts: int
    method: str = "refine"
    seed: int = 0
    balance: str | None = None  # None: `train` where the graph has splits, else `edges`
    topology: bool = False

    def told(self) -> dict[str, Any]:
        """Its entries of meta.json."""
        return {"method": self.method, "seed": self.seed, "balance": self.balance}


@dataclass(frozen=True)
class Needs:
    """What making a partition takes: estimates."""

    memory_bytes: int  # of this process, and of METIS in its child
    disk_bytes: int
    seconds: float


def predict(graph: Graph, request: Request) -> Needs:
    """What making that partition takes."""
    num_nodes, entries = graph.num_nodes, graph.num_edges
    ids = index_dtype(num_nodes).itemsize
    topology = request.topology * (8 * num_nodes + ids * entries)
    disk = graph.feature_bytes + topology + ids * num_nodes
    part = part_dtype(request.num_parts).itemsize
    cutting = {
        "hash": part * num_nodes,
        "refine": (part + 1) * num_nodes,
        "multilevel": 4 * ids * num_nodes + (BYTES_PER_ENTRY // 2) * entries,
        "metis": BYTES_PER_ENTRY * entries,
    }[request.method]
    bucket = min(2 * DEFAULT_BUDGET_BYTES, 2 * max(graph.feature_bytes, topology))
    placing = (part + 1 + ids) * num_nodes
    sampling = (4 + ids + 8) * num_nodes  # the sampler's table, `place`, training targets
    writing = (ids + 4 * request.topology) * num_nodes + bucket
    rate = _ENTRIES_PER_SECOND[request.method]
    seconds = entries / rate if rate else 0.0
    seconds += entries / _MEASURED_PER_SECOND + disk / _WRITTEN_PER_SECOND
    memory = _PROCESS_BYTES + max(cutting, placing, sampling, writing)
    return Needs(memory, disk, seconds)


def require_possible(graph: Graph, request: Request, folder: Path) -> Needs:
    """What it takes; raises UsageError for what cannot be made, or does not fit."""
    if not 1 <= request.num_parts <= MOST_PARTS:
        raise UsageError(f"expected 1 to {MOST_PARTS} parts, got {request.num_parts}")
    if request.method not in METHODS:
        raise UsageError(f"expected a method {', '.join(METHODS)}, got {request.method!r}")
    if request.method in ("metis", "multilevel"):
        require_metis(request.method)
    second_load(graph, request.balance)
    require_dense(graph)
    needs = predict(graph, request)
    what = f"{request.num_parts} parts of {graph.name} by {request.method}"
    require_room(what, folder, needs.disk_bytes, needs.memory_bytes, "--output")
    return needs


def make_partition(
    graph: Graph,
    request: Request,
    folder: Path,
    overwrite: bool = False,
    say: Say = lambda line: None,
    progress: Progress = silent,
) -> Partition:
    """Cut a graph and write the partition; the one that is there, if it is the same.

    One process writes, others that ask for the same folder wait for it. Where `folder` is a link,
    the folder that it leads to is written. `overwrite` also replaces a partition that is damaged.

    Raises:
        UsageError: another partition or something else is in the folder; what is asked for cannot
            be made, or does not fit; the disk is full.
    """
    folder = _real(folder)
    with locked(folder, f"partition of {graph.name}", say, "a partition", "--output"):
        if folder.exists() and (found := _found(folder, graph, request, overwrite, say)):
            return found
        require_possible(graph, request, folder)
        remove_leftovers(folder)
        start = time.perf_counter()
        parts = cut(graph, request, progress)
        seconds = {"cut": time.perf_counter() - start}
        quality, held = edge_quality(graph, parts, request.num_parts, progress)
        place, offsets = places_of(parts, degree_heat(graph), request.num_parts)
        del parts
        progress("sampling batches", 0, 1)
        quality |= read_quality(graph, place, offsets, request.seed)
        seconds["measure"] = time.perf_counter() - start - seconds["cut"]
        told = request.told() | {
            "quality": quality,
            "held": held,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        try:
            write_parts(graph, place, offsets, folder, told, request.topology, progress=progress)
        except OSError as error:
            raise _cannot_write(folder, error) from None
    return Partition.open(folder, graph)


def cut(graph: Graph, request: Request, progress: Progress = silent) -> Parts:
    """The part of each node by the method that is asked for: uint8 or uint16 `[N]`. UsageError."""
    num_parts, seed, balance = request.num_parts, request.seed, request.balance
    if request.method == "hash":
        return hash_parts(graph.num_nodes, num_parts, seed)
    if request.method == "metis":
        progress("METIS", 0, 1)
        return metis_parts(graph, num_parts, seed)
    if request.method == "multilevel":
        return multilevel_parts(graph, num_parts, seed, balance, progress)
    return refine(graph, num_parts, seed, balance, progress=progress)


def _real(folder: Path) -> Path:
    """The folder without links and dots. Raises UsageError where this process is in it."""
    real, here = Path(os.path.realpath(folder)), Path.cwd()
    if here.is_relative_to(real):
        raise UsageError(
            f"{folder}: expected a folder that can be replaced, got the one that this command was "
            "started in, or one around it; give another one with --output"
        )
    return real


def _found(
    folder: Path, graph: Graph, request: Request, overwrite: bool, say: Say
) -> Partition | None:
    """The partition asked for, if it is there; None where the folder may be replaced.

    Raises UsageError for anything else: only partitions are replaced, and when asked.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return None
    meta = None
    try:
        meta = read_meta(folder)
        others = _others(meta, graph, request)
        found = None if others else Partition.open(folder, graph)
    except UsageError as damage:
        if meta is None and not all(is_file(folder / name) for name in _ALWAYS_THERE):
            raise UsageError(
                f"{folder}: expected an empty place for a partition, got something else there; "
                "give another one with --output"
            ) from None
        if not overwrite:
            raise
        say(f"replacing a damaged partition: {damage}")
        return None
    if found is not None:
        say(f"{folder}: this partition is there already")
    elif not overwrite:
        raise UsageError(
            f"{folder}: expected no other partition there, got {meta['num_parts']} parts of "
            f"{meta['graph']} by {meta['method']} ({others}); replace it with --overwrite or give "
            "another place with --output"
        )
    return found


def _others(meta: dict[str, Any], graph: Graph, request: Request) -> str:
    """What a partition has other than it is asked for: `seed 0, not 1`; nothing if it is that."""
    asked = request.told() | {
        "num_parts": request.num_parts,
        "topology": request.topology,
        "graph_fingerprint": graph.fingerprint,
    }
    different = [key for key, value in asked.items() if meta.get(key) != value]
    named = (key for key in different if key != "graph_fingerprint")
    texts = [f"{key} {shown(meta.get(key))}, not {shown(asked[key])}" for key in named]
    return "; ".join(["another graph"] * ("graph_fingerprint" in different) + texts)


def _cannot_write(folder: Path, error: OSError) -> UsageError:
    change = "make room or give" if error.errno in NO_ROOM else "give"
    return UsageError(
        f"{folder}: expected to write a partition there, got {reason(error)}; {change} another "
        "place with --output"
    )
