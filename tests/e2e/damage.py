"""Graph folders with one thing wrong in each: how to make them, by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.graph import Graph, write_graph

Change = Callable[[npt.NDArray], npt.NDArray]


def damaged(graph: Graph, folder: Path, damage: str) -> Path:
    """Write `graph` to `folder` and do it the harm that is called `damage`."""
    write_graph(graph, folder)
    _DAMAGES[damage](folder)
    return folder


def _rewrite(array: str, change: Change) -> Callable[[Path], None]:
    """Change an array, and its checksum with it: somebody wrote the folder like that."""

    def harm(folder: Path) -> None:
        path = folder / f"{array}.npy"
        np.save(path, change(np.load(path)))
        meta = json.loads((folder / "meta.json").read_text())
        meta.pop("meta_sha256", None)  # as one who changes it on purpose
        meta["checksums"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / "meta.json").write_text(json.dumps(meta))

    return harm


def _set(place: Any, value: float) -> Change:
    def change(array: npt.NDArray) -> npt.NDArray:
        array[place] = value
        return array

    return change


def _flip_one_number(folder: Path) -> None:
    path = folder / "features.npy"
    features = np.load(path)
    features[5, 2] += 1
    np.save(path, features)


def _cut(name: str, keep: float) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])

    return harm


def _pickle(folder: Path) -> None:
    path = folder / "labels.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _without_class(which: int) -> Change:
    return lambda splits: np.where(splits == which, 0, splits).astype(np.uint8)


_DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": _cut("features.npy", 0.6),
    "empty file": _cut("indices.npy", 0),
    "missing array": lambda folder: (folder / "labels.npy").unlink(),
    "objects": _pickle,
    "flipped number": _flip_one_number,
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "cut meta": _cut("meta.json", 0.5),
    "wrong dtype": _rewrite("labels", lambda labels: labels.astype(np.float64)),
    "wrong length": _rewrite("labels", lambda labels: labels[:-3]),
    "not monotone": _rewrite("indptr", _set(4, 0)),
    "not from 0": _rewrite("indptr", _set(0, 1)),
    "out of range": _rewrite("indices", _set(7, 4000)),
    "negative index": _rewrite("indices", _set(7, -2)),
    "NaN": _rewrite("features", _set((3, 1), np.nan)),
    "label out of range": _rewrite("labels", _set(2, 99)),
    "no train nodes": _rewrite("splits", _without_class(1)),
    "no valid nodes": _rewrite("splits", _without_class(2)),
    "no test nodes": _rewrite("splits", _without_class(3)),
}
