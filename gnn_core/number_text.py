"""Numbers as text, for tables, figures and messages."""

from __future__ import annotations

NOTHING = "-"
"""Where a number is not known."""


def counted(number: int, noun: str) -> str:
    """Return `1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def three_digits(value: float | None) -> str:
    """Return a number with three digits that count, so that a small one does not read 0.00."""
    if value is None:
        return NOTHING
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """Return a share of 1 in whole percent."""
    return NOTHING if share is None else f"{100 * share:.0f} %"


def size(count: float) -> str:
    """Return a number of bytes in words, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
