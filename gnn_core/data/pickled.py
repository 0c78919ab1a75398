"""Reads pickles of arrays and runs nothing that they name; `planetoid` and `torch_file` use it.

A pickle may name any function to be called with arguments of its own choice. The few names that
arrays need are no safer: `numpy.ndarray` called with the dtype `O` takes the file's bytes for
addresses of objects. So nothing that a pickle names is ever called. Each of those names stands for
an object of this module that keeps what was asked for, and arrays are made from that by code which
checks it. Before a pickle is read, its sizes are: none may ask for more than the file holds.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

Names = Mapping[tuple[str, str], Any]  # (module, name) -> what stands for it
PersistentLoad = Callable[[Any], Any]  # persistent id -> what stands for it

_MOST_TUPLES = 1000  # hashing one within another, and so on, uses up the stack
_UNUSED = ("DUP", "POP", "POP_MARK")  # by whoever pickles arrays
_PLACES = ("PUT", "BINPUT", "LONG_BINPUT")  # of the memo, which has room up to the largest
_OPERATIONS = {operation.code: operation for operation in pickletools.opcodes}
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


class Function:
    """Stands for a function that a pickle may name; the pickle cannot change it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        """What stands for the result."""
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a pickle that changes a function")


class _DType:
    """Stands for a `numpy.dtype`."""

    __slots__ = ("code", "kinds", "order")

    def __init__(self, kinds: str, code: object) -> None:
        self.kinds = kinds
        self.code = code if isinstance(code, str) else ""
        self.order: object = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    @property
    def holds_objects(self) -> bool:
        """Whether it is that of Python objects, and those are allowed."""
        return "O" in self.kinds and self.code[:1] == "O"

    def found(self) -> np.dtype:
        """What it says, if that is a number of the kinds allowed."""
        kind, num_bytes = self.code[:1], self.code[1:]
        is_allowed = kind in self.kinds and kind not in ("", "O")
        if not is_allowed or num_bytes not in ("1", "2", "4", "8"):
            why = "which are not whole" if "f" not in self.kinds else "which are no real numbers"
            raise pickle.UnpicklingError(f"numbers of type {self.code[:20]!r}, {why}")
        if self.order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("numbers of an unknown byte order")
        return np.dtype(f"{self.order}{self.code}")


class Array:
    """Stands for a `numpy.ndarray`; has `values` or `objects` once the pickle told them."""

    __slots__ = ("objects", "values")

    values: npt.NDArray
    objects: list[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        if isinstance(dtype, _DType) and dtype.holds_objects and isinstance(data, list):
            self.objects = data
            return
        if isinstance(data, str):  # of Python 2, read as latin1
            data = data.encode("latin1")
        self.values = _from_bytes(data, dtype, shape, "F" if is_fortran else "C").values


def array_of(value: object) -> npt.NDArray | None:
    """The array that a value of a pickle stands for; None if it stands for none."""
    return getattr(value, "values", None) if isinstance(value, Array) else None


def objects_of(value: object) -> list[Any] | None:
    """What an array of Python objects holds, in a pickle; None for any other value."""
    return getattr(value, "objects", None) if isinstance(value, Array) else None


def _from_bytes(data: Any, dtype: Any, shape: Any, order: Any, *axes: Any) -> Array:
    """How an array is in a pickle of protocol 5. NumPy compares shape and length."""
    if not isinstance(dtype, _DType):
        raise pickle.UnpicklingError("an array without a type")
    found = dtype.found()
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an array without numbers")
    array = Array()
    array.values = np.frombuffer(data, found).reshape(shape, order=order)
    return array


_NDARRAY = Function(lambda *arguments: _refuse("calls numpy.ndarray"))


def _reconstruct(kind: object, shape: object, code: object) -> Array:
    """How an array begins in a pickle; `__setstate__` brings what is in it."""
    if kind is not _NDARRAY:
        _refuse("has an array of another class")
    return Array()


def _latin1(text: str, encoding: str) -> bytes:
    """How bytes are in a pickle of protocol 2, which has none."""
    if encoding != "latin1":
        _refuse(f"asks for the codec {str(encoding)[:20]}")
    return text.encode("latin1")


def _refuse(what: str) -> Any:
    raise pickle.UnpicklingError(f"a pickle that {what}")


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, file: IO[bytes], names: Names, storage: PersistentLoad | None, encoding: str
    ):
        super().__init__(file, encoding=encoding)
        self._names = names
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        package, _, inner = module.partition(".")
        if package == "numpy":  # NumPy 2 calls numpy.core numpy._core
            module = f"numpy.{inner.removeprefix('_')}".removesuffix(".")
        if (module, name) not in self._names:
            _refuse(f"asks for {module}.{name}")
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None:
            _refuse("asks for numbers that are elsewhere")
        assert self._storage is not None
        return self._storage(pid)


def load(
    file: IO[bytes],
    kinds: str,
    more: Names | None = None,
    storage: PersistentLoad | None = None,
    encoding: str = "ASCII",
) -> Any:
    """The object of the pickle that begins where `file` stands; `file` then stands behind it.

    Args:
        file: can be sought in.
        kinds: which of NumPy's kinds of numbers arrays may have: `iu`, `iuf`; with `O` they may
            hold lists, dicts and what else may be named, too.
        more: what else may be named, beside what arrays need.
        storage: turns a persistent id into an object; without it there may be none.
        encoding: of text that Python 2 wrote.

    Returns:
        Lists, dicts, numbers and text; an `Array` for each array.

    Raises:
        pickle.UnpicklingError: the pickle names anything else, or claims more than there is. A
            damaged one may raise any other exception too.
    """
    _check_sizes(file)
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): Function(lambda code, *flags: _DType(kinds, code)),
        ("numpy.core.multiarray", "_reconstruct"): Function(_reconstruct),
        ("numpy.core.numeric", "_frombuffer"): Function(_from_bytes),
        ("_codecs", "encode"): Function(_latin1),
        ("__builtin__", "bytes"): Function(lambda: b""),  # no bytes at all, in protocol 2
        **(more or {}),
    }
    return _Unpickler(file, names, storage, encoding).load()


def _check_sizes(file: IO[bytes]) -> None:
    """Go through the pickle without building anything; raises UnpicklingError."""
    start = file.tell()
    end = file.seek(0, 2)
    file.seek(start)
    num_tuples = num_placed = 0
    was_tuple, tuples = False, set[int]()  # where in the memo they are
    while code := file.read(1):
        operation = _OPERATIONS.get(code.decode("latin1"))
        if operation is None:
            raise pickle.UnpicklingError("no pickle")
        argument, value = operation.arg, 0
        if argument is not None and (length_bytes := _LENGTH_BYTES.get(argument.n)):
            length = int.from_bytes(file.read(length_bytes), "little")
            if length > end - file.tell():
                _refuse(f"claims {length:,} bytes, {end - start:,} long")
            file.seek(length, 1)
        elif argument is not None:
            value = cast("int", argument.reader(file))  # used where it is one
        if operation.name == "FRAME" and value > end - file.tell():
            _refuse(f"claims {value:,} bytes, {end - start:,} long")
        if operation.name in _PLACES and not 0 <= value <= end - start:
            _refuse(f"claims to hold {value:,} objects, {end - start:,} bytes long")
        if operation.name in (*_PLACES, "MEMOIZE"):
            tuples.update([num_placed if operation.name == "MEMOIZE" else value] * was_tuple)
            num_placed += 1
        was_tuple = operation.name.startswith("TUPLE")
        is_again = operation.name in ("GET", "BINGET", "LONG_BINGET") and value in tuples
        if is_again or operation.name in _UNUSED:  # to hash such tuples may take for ever
            _refuse("uses one tuple several times")
        num_tuples += was_tuple
        if num_tuples > _MOST_TUPLES:
            _refuse(f"has more than {_MOST_TUPLES} tuples")
        if operation.name == "STOP":
            break
    file.seek(start)
