"""Reads what `torch.save` wrote, without torch: a dict of arrays of whole numbers, nothing else.

Two formats exist. Since 1.6, torch writes a zip archive with the object in `<name>/data.pkl` and
each tensor's numbers in `<name>/data/<key>`. Before, it wrote pickles one after the other: a magic
number, a version, facts about the machine, the object; what follows are the numbers of tensors,
and those are not read here. NumPy arrays are in the object's pickle in both.

A pickle may name any function to be called. Here only the few names that arrays and tensors need
are let in, and instead of what they name there are records, out of which arrays are made.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gnn_core.usage import UsageError

Arrays = dict[str, npt.NDArray[np.integer]]

_MAGIC = 0x1950A86A20F9469CFC6C  # what a file of torch before 1.6 begins with
_ZIP_MAGIC = b"PK\x03\x04"
_STORAGES = {
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1",
    "ByteStorage": "u1",
}  # fmt: skip


def read_arrays(path: Path) -> Arrays:
    """The arrays, of integers of any width and shape, of the dict in a file.

    All of them are in memory at once. Raises UsageError for any other content.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
            file.seek(0)
            found = _from_zip(file) if is_zip else _from_pickles(file)
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__}")
        return {str(key): _array(str(key), value) for key, value in found.items()}
    except FileNotFoundError:
        raise _error(path, "no such file") from None
    except _TensorOfOldError:
        raise UsageError(
            f"{path}: expected tensors of torch 1.6 or newer, or arrays, got a tensor of an older "
            "one; load it and save it again with torch.save"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything at all
        raise _error(path, str(error) or type(error).__name__) from None


class _TensorOfOldError(Exception):
    """A tensor in the format before 1.6."""


class _DType:
    """Takes the place of `numpy.dtype`."""

    def __init__(self, code: str, *flags: bool) -> None:
        self.code = code
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def found(self) -> np.dtype:
        """What it says, if that is an integer."""
        if self.code[:1] not in ("i", "u"):
            raise pickle.UnpicklingError(f"numbers of type {self.code!r}, which are not whole")
        return np.dtype(self.order + self.code)


class _Array:
    """Takes the place of `numpy.ndarray`."""

    values: npt.NDArray[np.integer]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.values = _frombuffer(data, dtype, shape, "F" if is_fortran else "C").values


def _reconstruct(kind: type, shape: object, code: object) -> _Array:
    """How an array begins in a pickle; `__setstate__` brings what is in it."""
    if kind is not _Array:
        raise pickle.UnpicklingError("an array of another class")
    return _Array()


def _frombuffer(data: Any, dtype: _DType, shape: Any, order: Any, *axes: Any) -> _Array:
    """How an array is in a pickle of protocol 5."""
    array = _Array()
    array.values = np.frombuffer(data, dtype.found()).reshape(shape, order=order)
    return array


def _latin1(text: str, encoding: str) -> bytes:
    """How bytes are in a pickle of protocol 2, which has none."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}, which no array needs")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How no bytes at all are in a pickle of protocol 2."""
    return b""


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> _Array:
    """How a tensor is in a pickle; NumPy refuses what is not within the storage."""
    dtype, data = storage
    steps = [step * dtype.itemsize for step in stride]
    array = _Array()
    array.values = np.ndarray(tuple(size), dtype, data, offset * dtype.itemsize, steps)
    return array


class _Unpickler(pickle.Unpickler):
    """Builds arrays and dicts of them; whatever else a pickle asks for is refused."""

    def __init__(self, file: IO[bytes], storage: Callable[[str, str], Any]) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        package, _, inner = module.partition(".")
        if package == "numpy":  # NumPy 2 calls numpy.core numpy._core
            module = f"numpy.{inner.removeprefix('_')}".removesuffix(".")
        allowed: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _DType,
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy.core.numeric", "_frombuffer"): _frombuffer,
            ("_codecs", "encode"): _latin1,
            ("__builtin__", "bytes"): _no_bytes,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): dict,  # the hooks of a tensor: none
        }
        if (module, name) in allowed:
            return allowed[module, name]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"a pickle that asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        kind, code, key, *_ = pid
        if kind != "storage" or code not in _STORAGES.values():
            raise pickle.UnpicklingError("a pickle that asks for something but numbers")
        return self._storage(code, key)


def _from_zip(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        (pickled,) = [n for n in archive.namelist() if n.endswith("data.pkl")] or ["data.pkl"]
        folder = pickled.removesuffix("data.pkl")
        order = "<"
        if f"{folder}byteorder" in archive.namelist():
            order = {b"little": "<", b"big": ">"}[archive.read(f"{folder}byteorder")]

        def storage(code: str, key: str) -> tuple[np.dtype, bytes]:
            return np.dtype(order + code), archive.read(f"{folder}data/{key}")

        with archive.open(pickled) as content:
            return _Unpickler(content, storage).load()


def _from_pickles(file: IO[bytes]) -> Any:
    def storage(code: str, key: str) -> Any:
        raise _TensorOfOldError

    try:
        magic = _Unpickler(file, storage).load()
    except Exception:
        magic = None
    if magic != _MAGIC:
        raise ValueError("another format")
    for _ in ("version", "machine"):
        _Unpickler(file, storage).load()
    return _Unpickler(file, storage).load()


def _array(key: str, value: Any) -> npt.NDArray[np.integer]:
    if not isinstance(value, _Array) or not hasattr(value, "values"):
        raise ValueError(f"{key} of type {type(value).__name__}")
    return value.values


def _error(path: Path, got: str) -> UsageError:
    expected = "a dict of arrays of whole numbers, written by torch.save"
    return UsageError(f"{path}: expected {expected}, got {got.splitlines()[0]}; fetch it again")
