"""Classes out of what is in a column or an array of labels; anything but one class is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from gnn_core.usage import UsageError, printable, shown

_NONE = ("", "-1", "nan", "na", "n/a", "null", "none", "?")
_MOST_NAMED = 1 << 16  # classes whose names are kept
_FEW = 50  # different values are classes, however few nodes there are
_ONE_CLASS = "one class per node: several labels per node are not supported"
_NUMBERS = "classes: numbers to predict (regression) are not supported"

Refuse = Callable[[str, object], UsageError]  # (expected, got)


def classes_of(
    texts: Sequence[str], counts: npt.NDArray[np.int64], refuse: Refuse
) -> tuple[npt.NDArray[np.int32], list[str] | None]:
    """The class of each different label, -1 for none; and the names of the classes.

    Whole numbers from 0 without a gap are the classes themselves, and have no names. Others are
    numbered in order, and text in that of the alphabet.

    Args:
        texts: the different labels.
        counts: how many nodes have each.
        refuse: makes the error out of what was expected and what came.
    """
    has_class = np.array([text.strip().lower() not in _NONE for text in texts], np.bool_)
    names = [text.strip() for text, there in zip(texts, has_class, strict=True) if there]
    numbers = [_whole(name) for name in names]
    if any(number is None for number in numbers):
        fraction = next((name for name in names if _is_fraction(name)), None)
        if fraction is not None:
            raise refuse(_NUMBERS, shown(fraction))
        ordered = sorted(set(names))
    else:
        values = sorted({number for number in numbers if number is not None})
        if values and values[0] < 0:
            raise refuse("classes from 0, or -1 for none,", values[0])
        ordered = [str(value) for value in values]
        names = [str(number) for number in numbers]
    labelled = int(counts[has_class].sum())
    if len(ordered) > max(_FEW, labelled // 2):
        raise refuse(_NUMBERS, f"{len(ordered):,} different values of {labelled:,} nodes")
    place = {name: number for number, name in enumerate(ordered)}
    codes = np.full(len(texts), -1, np.int32)
    codes[has_class] = [place[name] for name in names]
    is_counted = ordered == [str(number) for number in range(len(ordered))]
    if is_counted or len(ordered) > _MOST_NAMED:
        return codes, None
    return codes, [printable(name) for name in ordered]


def classes_of_array(
    values: npt.NDArray, refuse: Refuse
) -> tuple[npt.NDArray[np.int32], list[str] | None]:
    """The class of each node, int32 [N], out of an array of labels; one-hot rows are taken too."""
    labels = np.asarray(values)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.dtype.kind in "iufb":
        if not ((labels == 0) | (labels == 1)).all():
            raise refuse(_NUMBERS, f"numbers of shape {list(labels.shape)}")
        if (np.count_nonzero(labels, axis=1) > 1).any():
            raise refuse(_ONE_CLASS, f"several in a row of shape {list(labels.shape)}")
        labels = np.where(labels.any(axis=1), labels.argmax(axis=1), -1)
    if labels.ndim != 1 or labels.dtype.kind not in "iufbUS":
        raise refuse("one label per node", f"{labels.dtype} of shape {list(labels.shape)}")
    different, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if labels.dtype.kind == "S":
        different = np.char.decode(different, "utf-8", "replace")
    texts = [str(value) for value in different.tolist()]
    codes, names = classes_of(texts, counts, refuse)
    return codes[place], names


def _whole(text: str) -> int | None:
    try:
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < 2**53 else None
    except (ValueError, OverflowError):
        return None


def _is_fraction(text: str) -> bool:
    try:
        return not float(text).is_integer()
    except (ValueError, OverflowError):
        return False
