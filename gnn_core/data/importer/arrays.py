"""Arrays in .npy and .npz files, SciPy matrices among them; what is pickled is read, not run."""

from __future__ import annotations

import io
import lzma
import math
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gnn_core.data.casts import cast
from gnn_core.data.features import FEATURE_DTYPES, SparseFeatures
from gnn_core.data.importer.text import refuse
from gnn_core.data.pickled import Function, array_of, load, objects_of
from gnn_core.data.pieces import npz_header, npz_pieces, read_header
from gnn_core.data.room import require_room
from gnn_core.files import open_regular
from gnn_core.usage import UsageError

FEATURES = (
    "features",
    "x",
    "feat",
    "node_features",
    "node_feat",
    "node_attr",
    "attr_matrix",
    "attr",
)
LABELS = ("labels", "label", "y", "node_labels", "node_label", "target", "targets")
_NPY = b"\x93NUMPY"
_PIECE_VALUES = 1 << 22
_MOST_PICKLE_BYTES = 4 << 30
_CONVERT = (
    "convert it where its writer's packages are: np.savez(file, adj_data=A.data, "
    "adj_indices=A.indices, adj_indptr=A.indptr, adj_shape=A.shape, labels=labels)"
)
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
Matrix = Any  # scipy.sparse.csr_array


def load_npy(path: Path) -> npt.NDArray:
    """The array in a .npy file, memory-mapped. UsageError."""
    with open_regular(path) as file:
        start = file.read(len(_NPY))
    if start != _NPY:
        is_archive = start.startswith(b"PK")
        got = "an archive" if is_archive else "another file" if start else "an empty file"
        remedy = "name it .npz" if is_archive else "write it with numpy.save"
        raise refuse(path, None, "a .npy file", got, remedy)
    try:
        array: npt.NDArray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise refuse(
            path, None, "a whole .npy file of numbers", str(error).splitlines()[0]
        ) from None
    return array


class Archive:
    """An .npz file: its arrays by name, read when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        open_regular(path).close()
        try:
            with zipfile.ZipFile(path) as archive:
                self._sizes = {info.filename: info.file_size for info in archive.infolist()}
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise refuse(path, None, "an .npz file", error) from None
        self.names = [name.removesuffix(".npy") for name in self._sizes if name.endswith(".npy")]

    def first(self, candidates: tuple[str, ...]) -> str | None:
        """The first of `candidates` that is in it."""
        return next((name for name in candidates if name in self.names), None)

    def array(self, name: str) -> npt.NDArray:
        """An array of numbers, whole. UsageError."""
        size = self._sizes[f"{name}.npy"]
        require_room(f"{name} of {self.path}", memory_bytes=2 * size)
        header = npz_header(self.path, name)
        pieces = list(npz_pieces(self.path, name, _PIECE_VALUES))
        if not pieces:
            return np.empty(header.shape, header.dtype)
        whole = np.concatenate(pieces)
        return whole.T if header.fortran_order and whole.ndim == 2 else whole

    def value(self, name: str) -> Any:
        """An array, of text too, or a SciPy matrix that is pickled in it. UsageError."""
        size = self._sizes[f"{name}.npy"]
        content = b""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
                header = read_header(file)
                is_text = header.dtype.kind in "US"
                if header.dtype.hasobject or is_text:
                    if size > _MOST_PICKLE_BYTES:
                        raise ValueError(f"{size:,} bytes")
                    require_room(f"{name} of {self.path}", memory_bytes=3 * size)
                    content = file.read(size)
        except _DAMAGE as error:
            raise refuse(self.path, None, f"an array {name}", error) from None
        if is_text and len(content) >= math.prod(header.shape) * header.dtype.itemsize:
            values = np.frombuffer(content, header.dtype, math.prod(header.shape))
            return values.reshape(header.shape, order="F" if header.fortran_order else "C")
        if not header.dtype.hasobject:
            return self.array(name)
        if math.prod(header.shape) != 1:
            raise self._strange(name, f"{math.prod(header.shape)} Python objects")
        return self._unpickled(name, io.BytesIO(content))

    def matrix(self, name: str) -> Matrix:
        """A two-dimensional array or pickled SciPy matrix, as SciPy's CSR. UsageError."""
        value = self.value(name)
        if isinstance(value, np.ndarray):
            if value.ndim != 2:
                raise refuse(self.path, None, f"{name} of two dimensions", list(value.shape))
            return sparse.csr_array(value)
        return value

    def csr(self, prefix: str) -> Matrix:
        """The matrix of the arrays `<prefix>data`, `indices`, `indptr`, `shape`. UsageError."""
        parts = {}
        for part in ("data", "indices", "indptr", "shape"):
            name = f"{prefix}{part}"
            if name not in self.names and part == "data":
                continue
            if name not in self.names:
                raise refuse(self.path, None, f"an array {name}", "none")
            parts[part] = self.array(name)
        parts.setdefault("data", np.ones(len(parts["indices"]), np.float32))
        return checked_matrix(self.path, prefix.rstrip("_") or "matrix", parts, "csr")

    def _unpickled(self, name: str, content: io.BytesIO) -> Any:
        try:
            value = load(content, "iufbO", _NAMES)
        except (pickle.UnpicklingError, UsageError) as error:
            raise self._strange(name, error) from None
        except Exception as error:  # noqa: BLE001 - of a damaged pickle, any
            raise self._strange(name, f"a damaged pickle ({type(error).__name__})") from None
        if len(objects := objects_of(value) or []) == 1:
            value = objects[0]
        if isinstance(value, _Matrix):
            kind = value.kind
            state = {key.removeprefix("_"): part for key, part in value.parts.items()}
            arrays = {
                key: array_of(state.get(key)) for key in ("data", "indices", "indptr", "row", "col")
            }
            if isinstance(state.get("coords"), tuple):  # of COO since SciPy 1.13
                arrays |= dict(zip(("row", "col"), map(array_of, state["coords"]), strict=False))
            parts = {key: array for key, array in arrays.items() if array is not None}
            return checked_matrix(self.path, name, {**parts, "shape": state.get("shape")}, kind)
        found = array_of(value)
        if found is None:
            raise self._strange(name, f"a pickled {type(value).__name__}")
        return found

    def _strange(self, name: str, got: object) -> UsageError:
        wanted = f"{name} as an array or a SciPy matrix"
        return refuse(self.path, None, wanted, str(got).splitlines()[0], _CONVERT)


class _Matrix:
    """Stands for a SciPy sparse matrix: its attributes, and none of its code."""

    __slots__ = ("parts",)

    kind = "csr"
    parts: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.parts = dict(state)


class _Csc(_Matrix):
    __slots__ = ()
    kind = "csc"


class _Coo(_Matrix):
    __slots__ = ()
    kind = "coo"


_KINDS = {"csr": _Matrix, "csc": _Csc, "coo": _Coo}
_NAMES: dict[tuple[str, str], Any] = {
    (f"scipy.sparse.{mark}{name}", f"{name}_{form}"): stand_in
    for name, stand_in in _KINDS.items()
    for form in ("matrix", "array")
    for mark in ("", "_")
}
_NAMES[("copyreg", "_reconstructor")] = Function(lambda kind, *of: kind())
_NAMES[("builtins", "object")] = "object"


def checked_matrix(path: Path, name: str, parts: dict[str, Any], kind: str) -> Matrix:
    """SciPy's CSR out of the arrays of a sparse matrix, none of which is trusted. UsageError."""

    def wrong(got: object) -> UsageError:
        return refuse(path, None, f"{name} to be a sparse matrix", got)

    try:
        shape = tuple(int(length) for length in parts["shape"])
        data = np.asarray(parts["data"])
        if (
            len(shape) != 2
            or min(shape) < 1
            or max(shape) >= 2**31
            or data.dtype.kind not in "iufb"
        ):
            raise wrong(f"shape {list(shape)} of {data.dtype}")
        if kind == "coo":
            row, column = np.asarray(parts["row"]), np.asarray(parts["col"])
            found = sparse.coo_array((data, (row, column)), shape=shape)
        else:
            kinds = {"csr": sparse.csr_array, "csc": sparse.csc_array}
            found = kinds[kind]((data, parts["indices"], parts["indptr"]), shape=shape)
            found.check_format(full_check=True)
        return found.tocsr()
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise wrong(error) from None


def sparse_features(path: Path, matrix: Matrix) -> SparseFeatures:
    """Features out of a sparse matrix. UsageError for what is no finite number."""

    def error(expected: str, got: object) -> UsageError:
        return refuse(path, None, f"features of {expected}", got)

    cast(matrix.data, np.float32, "numbers", error)
    if not np.isfinite(matrix.data).all():
        raise error("finite numbers", "a NaN or infinity")
    return SparseFeatures.of_scipy(matrix)


def dense_features(path: Path, values: npt.NDArray) -> npt.NDArray:
    """A table of numbers in a dtype that a graph stores. UsageError."""

    def error(expected: str, got: object) -> UsageError:
        return refuse(path, None, f"features of {expected}", got)

    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.dtype.kind not in "iufb":
        raise error(
            "numbers of shape [nodes, width]", f"{values.dtype} of shape {list(values.shape)}"
        )
    is_stored = values.dtype in (FEATURE_DTYPES["float32"], FEATURE_DTYPES["float16"])
    if not is_stored:
        require_room(f"features of {path}", memory_bytes=4 * values.size)
        values = cast(values, np.float32, "numbers", error)
    step = max(1, _PIECE_VALUES // max(1, values.shape[1]))
    for low in range(0, len(values), step):
        finite = np.isfinite(values[low : low + step])
        if not finite.all():
            row, column = (int(at) for at in np.argwhere(~finite)[0])
            raise error("finite numbers", f"a NaN or infinity in row {low + row}, column {column}")
    return values


def features_in(path: Path, num_nodes: int | None = None) -> npt.NDArray | SparseFeatures:
    """The features in a .npy or .npz file, a row per node in the order of nodes. UsageError."""
    features: npt.NDArray | SparseFeatures
    if path.suffix == ".npy":
        features = dense_features(path, load_npy(path))
    else:
        archive = Archive(path)
        if {"indices", "indptr", "shape"} <= set(archive.names):  # as scipy.sparse.save_npz writes
            features = sparse_features(path, archive.csr(""))
        else:
            name = archive.names[0] if len(archive.names) == 1 else archive.first(FEATURES)
            if name is None:
                raise refuse(
                    path, None, f"one array, or one called {FEATURES[0]}", ", ".join(archive.names)
                )
            features = archive_features(archive, name)
    if num_nodes is not None and len(features) != num_nodes:
        raise refuse(path, None, f"{num_nodes:,} rows, one per node", f"{len(features):,}")
    return features


def archive_features(archive: Archive, name: str) -> npt.NDArray | SparseFeatures:
    """One array or pickled SciPy matrix of an archive as features. UsageError."""
    value = archive.value(name)
    if isinstance(value, np.ndarray):
        return dense_features(archive.path, value)
    return sparse_features(archive.path, value)


def column_in(path: Path, num_nodes: int, usual: tuple[str, ...]) -> npt.NDArray:
    """One array of a .npy or .npz file, with a value (or a one-hot row) per node. UsageError."""
    if path.suffix == ".npz":
        archive = Archive(path)
        name = archive.names[0] if len(archive.names) == 1 else archive.first(usual)
        if name is None:
            raise refuse(
                path, None, f"one array, or one called {usual[0]}", ", ".join(archive.names)
            )
        found = archive.value(name)
        if not isinstance(found, np.ndarray):
            raise refuse(path, None, f"{name} to hold a value per node", "a sparse matrix")
        values: npt.NDArray = found
    else:
        values = load_npy(path)
    if values.ndim == 0 or len(values) != num_nodes:
        raise refuse(
            path, None, f"{num_nodes:,} values, one per node", f"shape {list(values.shape)}"
        )
    return values
