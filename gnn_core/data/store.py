"""A graph on disk: a folder of .npy files and a meta.json, written whole or not at all.

The writer fills a temporary sibling (`<folder>.tmp-<pid>`) and renames it at the end, so whoever
sees the folder sees all of it. SHA-256 sums are taken of the bytes on their way to the disk, or by
a thread, of a file whose header is known last.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.checks import ARRAY_NAMES, Subject, absent_features, absent_ids, check_arrays
from gnn_core.data.features import SPARSE_PARTS, Features, SparseFeatures, compact
from gnn_core.data.mapped import map_arrays
from gnn_core.data.meta import ID_FILES, META, describe, meta_text, read_meta, require_as_written
from gnn_core.data.room import require_room
from gnn_core.files import reason
from gnn_core.usage import UsageError, shown

IN_PARTS = frozenset({"indices.npy", "features.npy"})  # a partition may have them instead
SMALL_BYTES = 256 << 20  # below this a graph is checked whole each time it is opened
_COPY_BYTES = 8 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_sha256(array: npt.NDArray) -> str:
    """SHA-256 (hex) of the .npy file that `array` would be written to."""
    sink = _HashSink(None)
    np.lib.format.write_array(sink, np.ascontiguousarray(array), allow_pickle=False)
    return sink.digest.hexdigest()


class _HashSink:
    """A write-only file that hashes what passes through; without a file it only hashes."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        if self.file is not None:
            self.file.write(data)
        return len(data)


class ArraySink:
    """One .npy file being written row after row."""

    def __init__(self, sink: Any, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self._sink = sink
        self.dtype = dtype
        self.shape = shape
        self.rows = 0
        write_header(sink, dtype, shape)

    def write(self, rows: npt.NDArray) -> None:
        """Append `rows` ([k, *shape[1:]], of the sink's dtype)."""
        if rows.dtype != self.dtype or rows.shape[1:] != self.shape[1:]:
            wanted = f"{self.dtype} {self.shape[1:]}"
            raise ValueError(f"expected rows of {wanted}, got {rows.dtype} {rows.shape[1:]}")
        self.rows += len(rows)
        if rows.size:
            self._sink.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)


class GraphWriter:
    """Write a graph array by array: `with GraphWriter(folder, name) as w: w.put(...); w.finish()`.

    Leaving the block without `finish`, by an error or otherwise, removes all that was written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.staging = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
        self._sums: dict[str, str | Future[str]] = {}
        self.num_features = 0  # of sparse features, whose arrays do not show it
        self._finished = False
        self._pool = ThreadPoolExecutor(1, "checksums")

    def __enter__(self) -> GraphWriter:
        self._require_replaceable()
        shutil.rmtree(self.staging, ignore_errors=True)
        try:
            self.staging.mkdir(parents=True)
        except OSError as error:
            raise UsageError(
                f"cannot write {self.folder}: {reason(error)}; choose another folder"
            ) from None
        return self

    def _require_replaceable(self) -> None:
        """Raise UsageError where something else than a graph would be replaced, and lost."""
        try:
            there = sorted(path.name for path in self.folder.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(
                f"cannot write {self.folder}: {reason(error)}; choose another folder"
            ) from None
        others = [name for name in there if not name.endswith(".npy")]
        if others and META not in there:
            raise UsageError(
                f"{self.folder}: expected a new folder or that of a graph, got one that holds "
                f"{shown(others[0])}, which would be lost; choose another folder"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if not self._finished:
            shutil.rmtree(self.staging, ignore_errors=True)

    @contextmanager
    def stream(
        self, array: str, dtype: npt.DTypeLike, shape: tuple[int | None, ...]
    ) -> Iterator[ArraySink]:
        """Open the file of `array` to be written in sequence; a first length of None is any."""
        if array not in (*ARRAY_NAMES, *SPARSE_PARTS, *ID_FILES):
            raise ValueError(f"unknown array {array!r}")
        path = self.path(array)
        if all(length is not None for length in shape):
            num_bytes = math.prod(length or 0 for length in shape) * np.dtype(dtype).itemsize
            require_room(f"{array} of {self.name}", self.folder, num_bytes)
        row_shape = tuple(length or 0 for length in shape[1:])
        with path.open("wb") as file:
            sink = _HashSink(file)
            header_last = shape[0] is None
            rows = ArraySink(
                file if header_last else sink, np.dtype(dtype), (shape[0] or 0, *row_shape)
            )
            yield rows
            if header_last:
                file.seek(0)  # NumPy pads a header so that a longer first axis still fits
                write_header(file, rows.dtype, (rows.rows, *row_shape))
        if header_last:
            self._sums[path.name] = self._pool.submit(file_sha256, path)
        elif rows.rows == shape[0]:
            self._sums[path.name] = sink.digest.hexdigest()
        else:
            raise ValueError(f"{path}: expected {shape[0]} rows, got {rows.rows}")

    def put(self, array: str, values: Features | None) -> None:
        """Write a whole array (memory-mapped ones piecewise); None writes nothing.

        Float32 features that are mostly 0 are written as sparse rows.
        """
        if values is None:
            return
        if array == "features":
            values = compact(values)
        if isinstance(values, SparseFeatures):
            self.num_features = values.num_columns
            for name, part in values.parts().items():
                self.put(name, part)
            return
        with self.stream(array, values.dtype, values.shape) as rows:
            row_bytes = max(1, values.nbytes // max(len(values), 1))
            step = max(1, _COPY_BYTES // row_bytes)
            for start in range(0, len(values), step):
                rows.write(values[start : start + step])

    def adopt(self, array: str, graph_folder: Path, checksum: str) -> None:
        """Take over the file of another graph, without a copy where the disk is the same."""
        source = graph_folder / f"{array}.npy"
        try:
            os.link(source, self.path(array))
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, self.path(array))
        self._sums[source.name] = checksum

    def adopt_ids(self, graph_folder: Path, checksums: dict[str, str]) -> None:
        """Take over what the nodes of another graph were called, if its folder tells."""
        for name in ID_FILES:
            if f"{name}.npy" in checksums:
                self.adopt(name, graph_folder, checksums[f"{name}.npy"])

    def drop(self, array: str) -> None:
        """Remove an array that was only needed on the way."""
        self.path(array).unlink()
        del self._sums[f"{array}.npy"]

    def path(self, array: str) -> Path:
        """Where the file of `array` is while it is being written."""
        return self.staging / f"{array}.npy"

    def finish(
        self, num_classes: int | None = None, provenance: dict[str, Any] | None = None
    ) -> None:
        """Check what was written, add meta.json, and put the folder in its place."""
        subject = Subject(self.name, self.staging)
        files = {name: self.path(name) for name in (*ARRAY_NAMES, *SPARSE_PARTS)}
        arrays = map_arrays(files, subject, self.num_features)
        meta = describe(self.name, arrays, num_classes, self.checksums, provenance or {})
        full = self.size_bytes < SMALL_BYTES
        check_arrays(subject, arrays, meta["num_classes"], full)
        (self.staging / META).write_text(meta_text(meta), encoding="utf-8")
        del arrays
        older = self.staging.with_name(self.staging.name + "-older")
        if self.folder.exists():
            self.folder.replace(older)  # who has it open keeps it open
        self.staging.replace(self.folder)
        self._finished = True
        shutil.rmtree(older, ignore_errors=True)

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file so far, by its name."""
        sums = self._sums.items()
        return {file: one if isinstance(one, str) else one.result() for file, one in sums}

    @property
    def size_bytes(self) -> int:
        """Bytes on disk so far."""
        return sum(path.stat().st_size for path in self.staging.iterdir())


def open_arrays(
    folder: Path, verify: bool, has_parts: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Memory-map and check the arrays of a graph folder -> (arrays by name, meta). UsageError."""
    meta = read_meta(folder)
    subject = Subject(str(meta["name"]), folder)
    files = {name: folder / f"{name}.npy" for name in (*ARRAY_NAMES, *SPARSE_PARTS)}
    files = {name: path for name, path in files.items() if path.name in meta["checksums"]}
    absent = {file for file in meta["checksums"] if not (folder / file).is_file()}
    missing = absent - IN_PARTS if has_parts else absent
    if missing:
        name = Path(min(missing)).stem
        raise subject.error(name, "a file listed in meta.json", "no such file")
    arrays = map_arrays(files, subject, meta["num_features"])
    if "indices.npy" in absent:
        arrays["indices"] = absent_ids(meta["num_edges"], meta["num_nodes"])
    if "features.npy" in absent:
        shape = (meta["num_nodes"], meta["num_features"])
        arrays["features"] = absent_features(shape, str(meta.get("feature_dtype")))
    size = sum(path.stat().st_size for path in files.values() if path.name not in absent)
    full = verify or size < SMALL_BYTES
    _check_counts(subject, arrays, meta)
    check_arrays(subject, arrays, meta["num_classes"], full)
    require_as_written(folder, meta)
    if full:
        for file, expected in meta["checksums"].items():
            if file in absent:
                continue
            got = file_sha256(folder / file)
            if got != expected:
                wanted = f"sha256 {str(expected)[:16]}.."
                raise subject.error(Path(file).stem, wanted, f"{got[:16]}..")
    return arrays, meta


def write_header(file: Any, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file whose rows, in C order, are to follow."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _check_counts(subject: Subject, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    found = describe(subject.name, arrays, meta["num_classes"], {}, {})
    files = {"num_nodes": "indptr", "num_edges": "indices", "num_features": "features"}
    for key, name in {**files, "feature_dtype": "features"}.items():
        if found[key] != meta.get(key):
            raise subject.error(name, f"{key} {meta.get(key)} as in meta.json", found[key])
