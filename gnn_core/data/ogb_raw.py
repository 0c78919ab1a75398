"""Reader of the raw files of the Open Graph Benchmark (Hu et al., NeurIPS 2020), read in pieces.

Two layouts exist. Text: `edge.csv.gz`, `node-feat.csv.gz`, `node-label.csv.gz`, `node_year.csv.gz`
and the counts in `num-node-list.csv.gz`, `num-edge-list.csv.gz`. Binary (papers100M): `data.npz`
and `node-label.npz`. Both name their splits in `split/<kind>/{train,valid,test}.csv.gz`, those of
edges in `.pt` files (see `ogb_link`). Features and edges are never loaded whole: those of
papers100M take 57 GB and 26 GB.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data import ogb_link
from gnn_core.data.casts import cast
from gnn_core.data.checks import SPLIT_NAMES, index_dtype
from gnn_core.data.csr import edges_in, write_csr
from gnn_core.data.features import FEATURE_DTYPES
from gnn_core.data.pieces import csv_pieces, npz_header, npz_members, npz_pieces
from gnn_core.data.progress import Progress
from gnn_core.data.room import require_room
from gnn_core.data.store import GraphWriter
from gnn_core.usage import UsageError

READER = "OGB reader 1"  # change it whenever the same files give other arrays
_PIECE_VALUES = 1 << 22
_MOST_COUNTED = 1 << 40  # nodes or edges
_MOST_CLASSES = 1 << 24


@dataclass(frozen=True)
class Layout:
    """What a data set consists of."""

    num_classes: int | None = 0  # 0: no labels; None: as many as there are
    split: str | None = None  # the folder in `split/`
    binary: bool = False
    features: bool = True
    years: bool = True
    directed: bool = True  # edges are (citing, cited); otherwise they have no direction
    holds_out: bool = False  # the split is one of edges, not of nodes
    url: str = ""

    def files(self) -> list[str]:
        """The files it is read from, relative to its folder."""
        if self.binary:
            names = ["raw/data.npz", "raw/node-label.npz"]
        else:
            names = ["raw/edge.csv.gz", "raw/num-node-list.csv.gz", "raw/num-edge-list.csv.gz"]
            names += ["raw/node-feat.csv.gz"] * self.features
            names += ["raw/node-label.csv.gz"] * (self.num_classes != 0)
            names += ["raw/node_year.csv.gz"] * self.years
        if self.split is not None:
            ending = "pt" if self.holds_out else "csv.gz"
            names += [f"split/{self.split}/{which}.{ending}" for which in SPLIT_NAMES[1:]]
        return names


_URL = "http://snap.stanford.edu/ogb/data"
LAYOUTS = {
    "ogbn-arxiv": Layout(40, "time", url=f"{_URL}/nodeproppred/arxiv.zip"),
    "ogbn-products": Layout(
        47, "sales_ranking", years=False, directed=False, url=f"{_URL}/nodeproppred/products.zip"
    ),
    "ogbn-papers100M": Layout(
        172, "time", binary=True, url=f"{_URL}/nodeproppred/papers100M-bin.zip"
    ),
    "ogbl-citation2": Layout(
        split="time", holds_out=True, url=f"{_URL}/linkproppred/citation-v2.zip"
    ),
    "cit-hepth": Layout(features=False),
}


def convert(
    name: str, source: Path, folder: Path, provenance: dict[str, Any], progress: Progress
) -> None:
    """Write the graph of the files under `source` (with `raw/` and `split/`) to `folder`."""
    convert_layout(LAYOUTS[name], name, source, folder, provenance, progress)


def layout_of(source: Path, directed: bool) -> Layout:
    """The layout of the files under `source`, whatever data set they are of. UsageError."""
    raw = source / "raw"
    binary = (raw / "data.npz").is_file()
    kinds = sorted(kind.name for kind in (source / "split").glob("*") if kind.is_dir())
    split = kinds[0] if kinds else None
    holds_out = split is not None and (source / "split" / split / "train.pt").is_file()
    labels = raw / ("node-label.npz" if binary else "node-label.csv.gz")
    members = npz_members(raw / "data.npz") if binary else []
    layout = Layout(
        num_classes=None if labels.is_file() else 0,
        split=split,
        binary=binary,
        features="node_feat" in members or (raw / "node-feat.csv.gz").is_file(),
        years="node_year" in members or (raw / "node_year.csv.gz").is_file(),
        directed=directed,
        holds_out=holds_out,
    )
    for file in layout.files():
        if not (source / file).is_file():
            raise UsageError(
                f"{source}: expected OGB's raw layout, got no {file}; correct the path"
            )
    return layout


def convert_layout(
    layout: Layout,
    name: str,
    source: Path,
    folder: Path,
    provenance: dict[str, Any],
    progress: Progress,
) -> None:
    """Do what `convert` does for files in a layout of whatever data set."""
    raw = _Binary(source / "raw") if layout.binary else _Text(source / "raw")
    num_nodes, num_edges = raw.counts()
    _require_room(folder, name, layout, num_nodes, num_edges)
    with GraphWriter(folder, name) as writer:
        if layout.features:
            _write_features(writer, raw, num_nodes, progress)
        if layout.num_classes != 0:
            writer.put("labels", _labels(raw, num_nodes))
        if layout.years:
            writer.put("years", _years(raw, num_nodes))
        edges = _edges(raw, num_nodes, num_edges, progress)
        if layout.holds_out:
            assert layout.split is not None
            folder_of_split, file = source / "split" / layout.split, raw.path("edge")
            ogb_link.write_split(writer, folder_of_split, num_nodes, file, edges, progress)
        else:
            if layout.split is not None:
                writer.put("splits", _splits(source / "split" / layout.split, num_nodes))
            with writer.stream("citations", index_dtype(num_nodes), (None, 2)) as sink:
                for piece in edges:
                    sink.write(piece)
        read = writer.path("train_edges" if layout.holds_out else "citations")
        write_csr(writer, edges_in(read), num_nodes, progress=progress)
        if not layout.directed:
            writer.drop("citations")
        writer.finish(layout.num_classes, provenance)


class _Text:
    """The gzipped CSV files."""

    def __init__(self, raw: Path) -> None:
        self.raw = raw

    def path(self, what: str) -> Path:
        names = {"years": "node_year", "labels": "node-label", "features": "node-feat"}
        return self.raw / f"{names.get(what, what)}.csv.gz"

    def counts(self) -> tuple[int, int]:
        found = []
        for what in ("num-node-list", "num-edge-list"):
            rows = next(csv_pieces(self.path(what)), np.empty((0, 1)))
            found.append(_count(self.path(what), "the count of one graph", rows))
        return found[0], found[1]

    def feature_dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def rows(self, what: str) -> Iterator[npt.NDArray]:
        return csv_pieces(self.path(what))

    def edges(self) -> Iterator[npt.NDArray]:
        return csv_pieces(self.path("edge"))


class _Binary:
    """The .npz files."""

    def __init__(self, raw: Path) -> None:
        self.raw = raw

    def path(self, what: str) -> Path:
        return self.raw / ("node-label.npz" if what == "labels" else "data.npz")

    def counts(self) -> tuple[int, int]:
        path = self.path("counts")
        found = []
        for member in ("num_nodes_list", "num_edges_list"):
            numbers = next(npz_pieces(path, member, 16), np.empty(0))
            found.append(_count(path, f"{member} of one graph", numbers))
        return found[0], found[1]

    def feature_dtype(self) -> np.dtype:
        dtype = npz_header(self.path("features"), "node_feat").dtype
        return dtype if dtype in FEATURE_DTYPES.values() else np.dtype(np.float32)

    def rows(self, what: str) -> Iterator[npt.NDArray]:
        members = {"features": "node_feat", "labels": "node_label", "years": "node_year"}
        for piece in npz_pieces(self.path(what), members[what], _PIECE_VALUES):
            yield piece.reshape(len(piece), -1)

    def edges(self) -> Iterator[npt.NDArray]:
        path = self.path("edges")
        header = npz_header(path, "edge_index")
        if len(header.shape) != 2 or header.shape[0] != 2:
            raise _error(path, "edge_index of shape [2, edges]", list(header.shape))
        if header.fortran_order:  # then the two ends of an edge lie side by side
            yield from npz_pieces(path, "edge_index", _PIECE_VALUES)
            return
        sources = npz_pieces(path, "edge_index", _PIECE_VALUES, row=0)
        targets = npz_pieces(path, "edge_index", _PIECE_VALUES, row=1)
        for ends in zip(sources, targets, strict=True):
            yield np.stack(ends, axis=1)


_Raw = _Text | _Binary


def _require_room(folder: Path, name: str, layout: Layout, num_nodes: int, num_edges: int) -> None:
    """Raise UsageError where edges and columns do not fit on the disk; features are not counted."""
    width = index_dtype(num_nodes).itemsize
    edges = num_edges * (2 + 2 * layout.directed) * width  # as published, and both ways
    columns = num_nodes * (8 + 4 * (layout.num_classes != 0) + 4 * layout.years)
    what = f"{name} of {num_nodes:,} nodes and {num_edges:,} edges"
    require_room(what, folder, edges + columns, num_nodes * 8)


def _write_features(writer: GraphWriter, raw: _Raw, num_nodes: int, progress: Progress) -> None:
    dtype, path = raw.feature_dtype(), raw.path("features")
    pieces = raw.rows("features")
    first = next(pieces, np.empty((0, 0), dtype))
    width, done = first.shape[1], 0
    num_bytes = num_nodes * width * dtype.itemsize
    require_room(f"features of {writer.name}", writer.folder, num_bytes)
    with writer.stream("features", dtype, (None, width)) as sink:
        for piece in itertools.chain([first], pieces):
            progress("features", done, num_nodes)
            _require_width(path, piece, width)
            done += len(piece)
            _require_count(path, "nodes", num_nodes, done, is_all=False)
            is_stored = piece.dtype == dtype
            sink.write(piece if is_stored else cast(piece, dtype, "numbers", _of(path)))
    _require_count(path, "nodes", num_nodes, done)


def _edges(
    raw: _Raw, num_nodes: int, num_edges: int, progress: Progress
) -> Iterator[npt.NDArray[np.integer]]:
    """The edges `[k, 2]` at a time, all of them, of valid ids and in their dtype. UsageError."""
    path, done = raw.path("edge"), 0
    for piece in raw.edges():
        progress("edges", done, num_edges)
        _require_width(path, piece, 2)
        done += len(piece)
        _require_count(path, "edges", num_edges, done, is_all=False)
        yield cast(piece, index_dtype(num_nodes), "node ids", _of(path), 0, num_nodes - 1)
    _require_count(path, "edges", num_edges, done)


def _column(
    raw: _Raw, what: str, num_nodes: int, of_each: str, low: int, high: int, for_none: float
) -> npt.NDArray[np.int32]:
    """One whole number per node, `for_none` in place of NaN."""
    path, done = raw.path(what), 0
    found = [np.empty(0, np.int32)]
    for piece in raw.rows(what):
        _require_width(path, piece, 1)
        done += len(piece)
        _require_count(path, "nodes", num_nodes, done, is_all=False)
        numbers = piece[:, 0]
        if numbers.dtype.kind == "f":
            numbers = np.where(np.isnan(numbers), for_none, numbers)
        found.append(cast(numbers, np.int32, of_each, _of(path), low, high))
    _require_count(path, "nodes", num_nodes, done)
    return np.concatenate(found)


def _labels(raw: _Raw, num_nodes: int) -> npt.NDArray[np.int32]:
    # Most papers of papers100M have no label.
    return _column(raw, "labels", num_nodes, "whole numbers", -1, _MOST_CLASSES, for_none=-1)


def _years(raw: _Raw, num_nodes: int) -> npt.NDArray[np.int32]:
    return _column(raw, "years", num_nodes, "a year for every node,", -9999, 9999, math.nan)


def _splits(folder: Path, num_nodes: int) -> npt.NDArray[np.uint8]:
    splits, num_chosen = np.zeros(num_nodes, np.uint8), 0
    for value, which in enumerate(SPLIT_NAMES[1:], 1):
        path = folder / f"{which}.csv.gz"
        for piece in csv_pieces(path):
            _require_width(path, piece, 1)
            nodes = cast(piece[:, 0], np.int64, "node ids", _of(path), 0, num_nodes - 1)
            taken = nodes[splits[nodes] != 0]
            if len(taken):
                raise _error(path, "each node in one split", f"node {taken[0]} in two")
            splits[nodes] = value
            if np.count_nonzero(splits) != (num_chosen := num_chosen + len(nodes)):
                raise _error(path, "each node once", "one twice")
    return splits


def _count(path: Path, what: str, numbers: npt.NDArray) -> int:
    """The one number in there, a count."""
    if numbers.size != 1:
        raise _error(path, what, f"{numbers.size} numbers")
    return int(cast(numbers, np.int64, "a count", _of(path), 1, _MOST_COUNTED).reshape(-1)[0])


def _of(path: Path) -> Callable[[str, object], UsageError]:
    """Makes the error out of what was expected of a file and what came."""
    return lambda expected, got: _error(path, expected, got)


def _error(path: Path, expected: str, got: object) -> UsageError:
    return UsageError(f"{path}: expected {expected}, got {got}; fetch the file again")


def _require_width(path: Path, piece: npt.NDArray, width: int) -> None:
    if piece.shape[1] != width:
        raise _error(path, f"{width} numbers per row", piece.shape[1])


def _require_count(path: Path, what: str, expected: int, got: int, is_all: bool = True) -> None:
    if got > expected or (is_all and got < expected):
        raise _error(path, f"{expected} {what}", f"{got}{'' if is_all else ' or more'}")
