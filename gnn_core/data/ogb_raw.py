"""Reader of the raw files of the Open Graph Benchmark (Hu et al., NeurIPS 2020), read in pieces.

Two layouts exist. Text: `edge.csv.gz`, `node-feat.csv.gz`, `node-label.csv.gz`, `node_year.csv.gz`
and the counts in `num-node-list.csv.gz`, `num-edge-list.csv.gz`. Binary (papers100M): `data.npz`
and `node-label.npz`. Both name their splits in `split/<kind>/{train,valid,test}.csv.gz`, those of
edges in `.pt` files (see `ogb_link`). Features and edges are never loaded whole: those of
papers100M take 57 GB and 26 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data import ogb_link
from gnn_core.data.checks import SPLIT_NAMES, index_dtype
from gnn_core.data.csr import edges_in, write_csr
from gnn_core.data.features import FEATURE_DTYPES
from gnn_core.data.pieces import csv_pieces, npz_header, npz_pieces
from gnn_core.data.progress import Progress
from gnn_core.data.store import GraphWriter
from gnn_core.usage import UsageError

READER = "OGB reader 1"  # change it whenever the same files give other arrays
_PIECE_VALUES = 1 << 22


@dataclass(frozen=True)
class Layout:
    """What a data set consists of."""

    num_classes: int = 0  # 0: no labels
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
            names += ["raw/node-label.csv.gz"] * bool(self.num_classes)
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
    layout = LAYOUTS[name]
    raw = _Binary(source / "raw") if layout.binary else _Text(source / "raw")
    num_nodes, num_edges = raw.counts()
    with GraphWriter(folder, name) as writer:
        if layout.features:
            _write_features(writer, raw, num_nodes, progress)
        if layout.num_classes:
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
            (rows,) = [*csv_pieces(self.path(what), np.dtype(np.int64), 2)] or [np.empty((0, 1))]
            if rows.shape != (1, 1):
                raise _error(self.path(what), "the count of one graph", f"{rows.size} numbers")
            found.append(int(rows[0, 0]))
        return found[0], found[1]

    def feature_dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def rows(self, what: str, dtype: np.dtype) -> Iterator[npt.NDArray]:
        return csv_pieces(self.path(what), dtype, _PIECE_VALUES)

    def edges(self) -> Iterator[npt.NDArray]:
        return csv_pieces(self.path("edge"), np.dtype(np.int64), _PIECE_VALUES)


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
            numbers = np.concatenate([*npz_pieces(path, member, 16)])
            if numbers.size != 1:
                raise _error(path, f"{member} of one graph", f"{numbers.size} numbers")
            found.append(int(numbers.reshape(-1)[0]))
        return found[0], found[1]

    def feature_dtype(self) -> np.dtype:
        dtype = npz_header(self.path("features"), "node_feat").dtype
        return dtype if dtype in FEATURE_DTYPES.values() else np.dtype(np.float32)

    def rows(self, what: str, dtype: np.dtype) -> Iterator[npt.NDArray]:
        members = {"features": "node_feat", "labels": "node_label", "years": "node_year"}
        for piece in npz_pieces(self.path(what), members[what], _PIECE_VALUES):
            yield piece.astype(dtype, copy=False).reshape(len(piece), -1)

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


def _write_features(writer: GraphWriter, raw: _Raw, num_nodes: int, progress: Progress) -> None:
    dtype = raw.feature_dtype()
    pieces = raw.rows("features", dtype)
    first = next(pieces, np.empty((0, 0), dtype))
    done = 0
    with writer.stream("features", dtype, (None, first.shape[1])) as sink:
        piece: npt.NDArray | None = first
        while piece is not None:
            progress("features", done, num_nodes)
            _require_width(raw.path("features"), piece, first.shape[1])
            sink.write(piece)
            done += len(piece)
            piece = next(pieces, None)
    _require_count(raw.path("features"), "nodes", num_nodes, done)


def _edges(
    raw: _Raw, num_nodes: int, num_edges: int, progress: Progress
) -> Iterator[npt.NDArray[np.integer]]:
    """The edges `[k, 2]` at a time, all of them, of valid ids and in their dtype. UsageError."""
    path, done = raw.path("edge"), 0
    for piece in raw.edges():
        progress("edges", done, num_edges)
        _require_width(path, piece, 2)
        if piece.min() < 0 or piece.max() >= num_nodes:
            wrong = piece.min() if piece.min() < 0 else piece.max()
            raise _error(path, f"node ids from 0 to {num_nodes - 1}", int(wrong))
        yield piece.astype(index_dtype(num_nodes))
        done += len(piece)
    _require_count(path, "edges", num_edges, done)


def _column(raw: _Raw, what: str, num_nodes: int) -> npt.NDArray[np.float32]:
    """One number per node. float32 holds every label and year exactly, and NaN for none."""
    values = np.full(num_nodes, np.nan, np.float32)
    done = 0
    for piece in raw.rows(what, np.dtype(np.float32)):
        _require_width(raw.path(what), piece, 1)
        kept = piece[: max(0, num_nodes - done), 0]
        values[done : done + len(kept)] = kept
        done += len(piece)
    _require_count(raw.path(what), "nodes", num_nodes, done)
    return values


def _labels(raw: _Raw, num_nodes: int) -> npt.NDArray[np.int32]:
    values = _column(raw, "labels", num_nodes)
    values[np.isnan(values)] = -1  # most papers of papers100M have no label
    if (values != np.rint(values)).any():
        raise _error(raw.path("labels"), "whole numbers", values[values != np.rint(values)][0])
    return values.astype(np.int32)


def _years(raw: _Raw, num_nodes: int) -> npt.NDArray[np.int32]:
    values = _column(raw, "years", num_nodes)
    if np.isnan(values).any():
        raise _error(raw.path("years"), "a year for every node", "NaN")
    return values.astype(np.int32)


def _splits(folder: Path, num_nodes: int) -> npt.NDArray[np.uint8]:
    splits = np.zeros(num_nodes, np.uint8)
    for value, which in enumerate(SPLIT_NAMES[1:], 1):
        path = folder / f"{which}.csv.gz"
        for piece in csv_pieces(path, np.dtype(np.int64), _PIECE_VALUES):
            _require_width(path, piece, 1)
            nodes = piece[:, 0]
            if nodes.min() < 0 or nodes.max() >= num_nodes:
                wrong = nodes.min() if nodes.min() < 0 else nodes.max()
                raise _error(path, f"node ids from 0 to {num_nodes - 1}", int(wrong))
            if splits[nodes].any():
                node = int(nodes[np.flatnonzero(splits[nodes])[0]])
                raise _error(path, "each node in one split", f"node {node} in two")
            splits[nodes] = value
    return splits


def _error(path: Path, expected: str, got: object) -> UsageError:
    return UsageError(f"{path}: expected {expected}, got {got}; fetch the file again")


def _require_width(path: Path, piece: npt.NDArray, width: int) -> None:
    if piece.shape[1] != width:
        raise _error(path, f"{width} numbers per row", piece.shape[1])


def _require_count(path: Path, what: str, expected: int, got: int) -> None:
    if expected != got:
        raise _error(path, f"{expected} {what}", got)
