"""Numbers go into another dtype unchanged, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gnn_core.data.casts import cast
from gnn_core.usage import UsageError


def error(expected: str, got: object) -> UsageError:
    return UsageError(f"f: expected {expected}, got {got}")


LOST: list[tuple[Any, Any, str]] = [
    (np.array([0.0, np.nan]), np.int32, "ids from 0 to 9, got NaN"),
    (np.array([0.5]), np.int64, "got 0.5, which is not whole"),
    (np.array([np.inf]), np.int32, "got inf"),
    (np.array([1e20]), np.int32, "ids from 0 to 9, got 100000000000000000000"),
    (np.array([2.0**63]), np.int64, "ids from 0 to 9"),
    (np.array([10], np.uint64), np.int32, "got 10"),
    (np.array([-1], np.int8), np.int32, "got -1"),
    (np.array([1 + 2j]), np.int32, "values of type complex128"),
    (np.array(["1"]), np.int32, "values of type <U1"),
    (np.array([None]), np.float32, "values of type object"),
    (np.array([1 + 0j]), np.float32, "values of type complex128"),
    (np.array([(1, 2)], "i4,i4"), np.int32, "values of type"),
    (np.array(["2020-01-01"], "M8[D]"), np.int32, "values of type datetime64"),
    (np.array([1e39]), np.float32, "that fit float32, got 1e.39"),
]


@pytest.mark.parametrize(("values", "dtype", "message"), LOST, ids=map(str, range(len(LOST))))
def test_what_would_be_lost_is_refused(values: Any, dtype: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cast(values, dtype, "ids", error, 0, 9)


@pytest.mark.parametrize("kind", ["int8", "uint64", "float16", "float32", "float64", ">i4", "bool"])
def test_what_fits_is_taken(kind: str) -> None:
    values = np.array([[0, 1], [1, 0]]).astype(kind)
    for dtype in (np.int32, np.int64, np.float32):
        found = cast(values, dtype, "ids", error)
        assert found.dtype == dtype and found.tolist() == [[0, 1], [1, 0]]
    assert cast(np.empty(0), np.int32, "ids", error).dtype == np.int32


def test_a_number_beyond_what_the_dtype_holds_is_refused_without_bounds() -> None:
    for values in (np.array([2**31]), np.array([2.0**31]), np.array([-(2.0**40)])):
        with pytest.raises(UsageError, match="ids from -2147483648 to 2147483647"):
            cast(values, np.int32, "ids", error)
