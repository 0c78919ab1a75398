"""The arrays of a graph folder, memory-mapped; `store` opens and checks a folder with it."""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.checks import ARRAY_NAMES, Subject, check_sparse_parts
from gnn_core.data.features import SPARSE_PARTS, SparseFeatures
from gnn_core.data.pieces import read_header
from gnn_core.files import is_file


def map_arrays(files: dict[str, Path], subject: Subject, num_features: int) -> dict[str, Any]:
    """The arrays of ARRAY_NAMES, None for those without a file; sparse features put together."""
    mapped = {name: map_array(path, subject) for name, path in files.items()}
    arrays: dict[str, Any] = {name: mapped.get(name) for name in ARRAY_NAMES}
    if any(mapped.get(name) is not None for name in SPARSE_PARTS):
        check_sparse_parts(subject, mapped)
        indptr, columns, values = (mapped[name] for name in SPARSE_PARTS)
        assert indptr is not None and columns is not None and values is not None
        arrays["features"] = SparseFeatures(indptr, columns, values, num_features)
    return arrays


def map_array(path: Path, subject: Subject) -> npt.NDArray | None:
    """The array in a file, read-only; None where there is no file. UsageError."""
    if not path.exists():
        return None
    expected = "a whole .npy file of numbers in C order"
    if not is_file(path):  # the opening of a pipe would wait for ever
        raise subject.error(path.stem, expected, "a folder, a pipe or a device")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header, offset = read_header(file), file.tell()
    except (OSError, ValueError, EOFError) as error:
        raise subject.error(path.stem, expected, f"{error}".splitlines()[0]) from None
    shape, dtype = header.shape, header.dtype
    claimed = offset + math.prod(shape) * dtype.itemsize
    if dtype.kind not in "iuf" or not dtype.isnative:
        raise subject.error(path.stem, expected, f"values of type {dtype}"[:200])
    if not shape:
        raise subject.error(path.stem, expected, "a single number")
    if header.fortran_order and len(shape) > 1 and min(shape) > 1:
        raise subject.error(path.stem, expected, "Fortran order")
    if claimed != size:
        got = f"{size:,} bytes for shape {list(shape)} of {dtype}, which takes {claimed:,}"
        raise subject.error(path.stem, expected, got)
    if 0 in shape:  # nothing to map, and nothing to read
        return np.empty(shape, dtype)
    try:
        return np.memmap(path, dtype, "r", offset, shape)
    except (OSError, ValueError) as error:
        raise subject.error(path.stem, expected, f"{error}".splitlines()[0]) from None


def expect_random_reads(array: npt.NDArray) -> None:
    """Tell the system not to read around what is touched of a memory-mapped array.

    By default it reads megabytes around each page, which is most of what is read then where the
    file does not fit into memory.
    """
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_RANDOM)
