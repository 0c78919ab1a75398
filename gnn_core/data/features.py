"""The number formats that features are stored in: float32, float16 and bfloat16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FEATURE_DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),  # NumPy has no bfloat16: its bits are kept in a uint16
}


def feature_dtype_name(features: npt.NDArray | None) -> str | None:
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
