"""The one way from the numbers of a file to the dtype that a graph keeps them in.

NumPy's `astype` turns NaN into some integer, cuts 0.5 to 0 and drops imaginary parts, all without a
word. Readers call `cast`, which changes no number or raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gnn_core.usage import UsageError

Error = Callable[[str, object], UsageError]  # (expected, got) -> what to raise
_LARGEST_EXACT = 2**53  # up to here float64 holds every whole number


def cast(
    values: npt.ArrayLike,
    dtype: npt.DTypeLike,
    what: str,
    error: Error,
    low: int | None = None,
    high: int | None = None,
) -> npt.NDArray:
    """`values` in another dtype, no number changed by more than the rounding of a float.

    Args:
        values: integers, floating-point numbers or booleans, of any shape.
        dtype: an integer or floating-point type.
        what: what the numbers are, for the message: `node ids`.
        error: makes the error out of what was expected and what came.
        low: least value allowed, for an integer `dtype`; otherwise that of the dtype.
        high: largest value allowed.

    Raises:
        UsageError: made by `error`, for values of another kind (text, complex, objects), for a NaN
            or a fraction where integers are wanted, and for what is out of range.
    """
    array, wanted = np.asarray(values), np.dtype(dtype)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise error(what, f"values of type {array.dtype}")
    if wanted.kind == "f":
        return _rounded(array, wanted, what, error)
    bounds = np.iinfo(wanted)
    low, high = (bounds.min if low is None else low), (bounds.max if high is None else high)
    if not array.size:
        return array.astype(wanted)
    expected = f"{what} from {low} to {high}"
    if array.dtype.kind == "f":
        low, high = max(low, -_LARGEST_EXACT), min(high, _LARGEST_EXACT)
        odd = array[array != np.rint(array)]  # a NaN is unequal to itself
        if len(odd):
            got = "NaN" if np.isnan(odd[0]) else f"{odd[0]:g}, which is not whole"
            raise error(expected, got)
    least, most = array.min().item(), array.max().item()
    if least < low or most > high:
        wrong = least if least < low else most
        raise error(expected, int(wrong) if math.isfinite(wrong) else wrong)
    return array.astype(wanted, copy=False)


def _rounded(array: npt.NDArray, dtype: np.dtype, what: str, error: Error) -> npt.NDArray:
    with np.errstate(over="ignore"):
        result = array.astype(dtype, copy=False)
    if result is not array:
        lost = array[np.isinf(result) & np.isfinite(array)]
        if len(lost):
            raise error(f"{what} that fit {dtype.name}", f"{lost[0]:g}")
    return result
