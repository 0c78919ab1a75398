"""Reads what `torch.save` wrote, without torch: a dict of arrays of whole numbers, nothing else.

Two formats exist. Since 1.6, torch writes a zip archive with the object in `<name>/data.pkl` and
each tensor's numbers in `<name>/data/<key>`. Before, it wrote pickles one after the other: a magic
number, a version, facts about the machine, the object; what follows are the numbers of tensors,
and those are not read here. NumPy arrays are in the object's pickle in both.

Nothing that a pickle names is called: see `pickled`. The file is not let claim more than it holds.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.pickled import Array, Function, array_of
from gnn_core.data.pickled import load as pickled_object
from gnn_core.usage import UsageError

IntegerArrays = dict[str, npt.NDArray[np.integer]]

_MAGIC = 0x1950A86A20F9469CFC6C  # what a file of torch before 1.6 begins with
_ZIP_MAGIC = b"PK\x03\x04"
_STORAGES = {
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}


def read_arrays(path: Path) -> IntegerArrays:
    """The arrays, of integers of any width and shape, of the dict in a file.

    All of them are in memory at once. Raises UsageError for any other content.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
            file.seek(0)
            found = _from_zip(file) if is_zip else _from_pickles(file)
        if not isinstance(found, dict):
            is_array = array_of(found) is not None
            raise ValueError("an array" if is_array else f"a {type(found).__name__}")
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


class _Storage:
    """Stands for the numbers of a tensor; a pickle can neither make nor change one."""

    __slots__ = ("dtype", "data")

    def __init__(self, dtype: np.dtype, data: bytes) -> None:
        self.dtype = dtype
        self.data = data

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a pickle that changes numbers")


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Array:
    """How a tensor is in a pickle; NumPy refuses what is not within the storage."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without numbers")
    dtype = storage.dtype
    if math.prod(size) * dtype.itemsize > len(storage.data):
        raise pickle.UnpicklingError("a tensor of more elements than its numbers")
    steps = [step * dtype.itemsize for step in stride]
    array = Array()
    array.values = np.ndarray(tuple(size), dtype, storage.data, offset * dtype.itemsize, steps)
    return array


_NAMES = {
    ("torch._utils", "_rebuild_tensor_v2"): Function(_tensor),
    ("collections", "OrderedDict"): Function(dict),  # the hooks of a tensor: none
    **{("torch", name): code for name, code in _STORAGES.items()},
}


def _from_zip(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        _check_members(archive, file.seek(0, 2))
        (pickled,) = [n for n in archive.namelist() if n.endswith("data.pkl")] or ["data.pkl"]
        folder = pickled.removesuffix("data.pkl")
        order = "<"
        if f"{folder}byteorder" in archive.namelist():
            order = {b"little": "<", b"big": ">"}[archive.read(f"{folder}byteorder")]
        read: dict[str, bytes] = {}

        def storage(pid: Any) -> _Storage:
            kind, code, key, *_ = pid
            if kind != "storage" or code not in _STORAGES.values():
                raise pickle.UnpicklingError("a pickle that asks for something but numbers")
            if key not in read:  # tensors may share numbers, and those are read once
                read[key] = archive.read(f"{folder}data/{key}")
            return _Storage(np.dtype(order + code), read[key])

        return pickled_object(io.BytesIO(archive.read(pickled)), "iu", _NAMES, storage)


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse what torch never writes and a small file could claim much memory with."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("an archive with compressed members, which torch.save writes none of")
    claimed = sum(member.file_size for member in members)
    if claimed > size or len({member.filename for member in members}) < len(members):
        raise ValueError(f"an archive of {size:,} bytes with members of {claimed:,}")


def _from_pickles(file: IO[bytes]) -> Any:
    def storage(pid: Any) -> Any:
        raise _TensorOfOldError

    try:
        magic = pickled_object(file, "iu", _NAMES, storage)
    except Exception:
        magic = None
    if magic != _MAGIC:
        raise ValueError("another format")
    for _ in ("version", "machine"):
        pickled_object(file, "iu", _NAMES, storage)
    return pickled_object(file, "iu", _NAMES, storage)


def _array(key: str, value: Any) -> npt.NDArray[np.integer]:
    if (array := array_of(value)) is None:
        raise ValueError(f"{key} of type {type(value).__name__}")
    return array


def _error(path: Path, got: str) -> UsageError:
    expected = "a dict of arrays of whole numbers, written by torch.save"
    got = (got.splitlines() or ["nothing"])[0]
    return UsageError(f"{path}: expected {expected}, got {got}; fetch it again")
