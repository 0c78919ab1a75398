"""The arrays of a graph folder, memory-mapped; `store` opens and checks a folder with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.checks import ARRAY_NAMES, Subject, check_sparse_parts
from gnn_core.data.features import SPARSE_PARTS, SparseFeatures


def map_arrays(files: dict[str, Path], subject: Subject, num_features: int) -> dict[str, Any]:
    """The arrays of ARRAY_NAMES, None for those without a file; sparse features put together."""
    mapped = {name: _map_array(path, subject) for name, path in files.items()}
    arrays: dict[str, Any] = {name: mapped.get(name) for name in ARRAY_NAMES}
    if any(mapped.get(name) is not None for name in SPARSE_PARTS):
        check_sparse_parts(subject, mapped)
        indptr, columns, values = (mapped[name] for name in SPARSE_PARTS)
        assert indptr is not None and columns is not None and values is not None
        arrays["features"] = SparseFeatures(indptr, columns, values, num_features)
    return arrays


def _map_array(path: Path, subject: Subject) -> npt.NDArray | None:
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, _ = np.lib.format.read_array_header_1_0(file)
        if 0 in shape:  # nothing to map, and nothing to read
            array: npt.NDArray = np.load(path, allow_pickle=False)
        else:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except (OSError, ValueError, EOFError) as error:
        raise subject.error(path.stem, "a whole .npy file", f"{error}".splitlines()[0]) from None
