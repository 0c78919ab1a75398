"""How features are stored: as float32, float16 or bfloat16, dense, or float32 in sparse rows.

`store` writes and opens them; the trainers read their rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FEATURE_DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),  # NumPy has no bfloat16: its bits are kept in a uint16
}
SPARSE_PARTS = ("features_indptr", "features_columns", "features_values")
_LEAST_BYTES = 1 << 20  # a smaller dense table is not worth another format
_LEAST_GAIN = 4  # times smaller; a little sparse, dense rows are read faster


@dataclass(frozen=True, eq=False)
class SparseFeatures:
    """A float32 table `[N, F]` in CSR form, such as bags of words. It stands for the dense one.

    `table[rows]`, with a slice or an array of row numbers, gives those rows dense;
    `np.asarray(table)` all of them.
    """

    indptr: npt.NDArray[np.int64]  # [N + 1]
    columns: npt.NDArray[np.int32]  # [K], ascending within a row
    values: npt.NDArray[np.float32]  # [K]
    num_columns: int  # F

    dtype, itemsize, ndim = np.dtype(np.float32), 4, 2

    @classmethod
    def of(cls, dense: npt.NDArray[np.float32]) -> SparseFeatures:
        """The same table as a dense one, to the bit: a number is left out if its bits are 0."""
        stored = dense.view(np.uint32) != 0
        indptr = np.zeros(len(dense) + 1, np.int64)
        np.cumsum(np.count_nonzero(stored, axis=1), out=indptr[1:])
        return cls(indptr, np.nonzero(stored)[1].astype(np.int32), dense[stored], dense.shape[1])

    @classmethod
    def of_scipy(cls, matrix: Any) -> SparseFeatures:
        """The same table as a SciPy sparse matrix of any format and number type."""
        rows = matrix.tocsr(copy=True)
        rows.sum_duplicates()  # and sorts the columns of each row
        indptr, columns = rows.indptr.astype(np.int64), rows.indices.astype(np.int32)
        return cls(indptr, columns, rows.data.astype(np.float32), rows.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(N, F)."""
        return len(self), self.num_columns

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.indptr.nbytes + self.columns.nbytes + self.values.nbytes

    def parts(self) -> dict[str, npt.NDArray]:
        """Its arrays by the names of their files."""
        return dict(zip(SPARSE_PARTS, (self.indptr, self.columns, self.values), strict=True))

    def __len__(self) -> int:
        """N."""
        return len(self.indptr) - 1

    def __getitem__(self, rows: Any) -> npt.NDArray[np.float32]:
        """Some rows, dense: `[k, F]`."""
        rows = np.arange(len(self))[rows]
        starts, lengths = self.indptr[rows], np.diff(self.indptr)[rows]
        # Where each number of these rows lies: counted from the start of its row.
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        positions = np.repeat(starts, lengths) + within
        dense = np.zeros((len(rows), self.num_columns), np.float32)
        dense[np.repeat(np.arange(len(rows)), lengths), self.columns[positions]] = self.values[
            positions
        ]
        return dense

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray:
        """The whole table, dense."""
        return self[:].astype(dtype or self.dtype, copy=False)


Features = npt.NDArray | SparseFeatures


def compact(features: Features) -> Features:
    """The form in which features take little room on disk: sparse where that is far smaller."""
    is_dense = isinstance(features, np.ndarray) and features.dtype == np.float32
    if not is_dense or features.ndim != 2 or features.nbytes < _LEAST_BYTES:
        return features
    per_number, per_row = 8, 8
    size = per_number * np.count_nonzero(features) + per_row * (len(features) + 1)
    if size * _LEAST_GAIN > features.nbytes:
        return features
    return SparseFeatures.of(np.ascontiguousarray(features))


def feature_dtype_name(features: Features | None) -> str | None:
    """`float32`, `float16` or `bfloat16` (which NumPy lacks: it is stored as uint16)."""
    for name, dtype in FEATURE_DTYPES.items():
        if features is not None and features.dtype == dtype:
            return name
    return None


def encode_features(values: npt.NDArray, dtype: str) -> npt.NDArray:
    """float32 `values` in the stored form of `dtype`; bfloat16 rounds to nearest even."""
    if dtype != "bfloat16":
        return values.astype(FEATURE_DTYPES[dtype], copy=False)
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounding = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    return ((bits + rounding) >> np.uint32(16)).astype(np.uint16)


def decode_features(stored: npt.NDArray) -> npt.NDArray[np.float32]:
    """Stored features (float32, float16, or uint16 holding bfloat16) as float32."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float32, copy=False)
