"""How a user's mistake is reported: one line: what was expected, what came, what to change.

Here are also the guards of numbers that a person types: every parser of flags, files and plans uses
them, so that a value is refused in the same words everywhere. Those of paths are in `files`.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:  # the doctor runs on any Python
    from typing import Self

MOST_WHOLE = 2**31 - 1
"""The largest count that a setting may have unless it says otherwise: what int32 can hold."""

Value = TypeVar("Value")
_WHOLE = re.compile(r"\s*[+-]?[0-9]+(_[0-9]+)*\s*")
_SIZE = re.compile(
    r"\s*(?P<number>[0-9]+(\.[0-9]+)?)\s*((?P<unit>[KMGT])((?P<binary>i)B?|B)|B)?\s*", re.IGNORECASE
)
_MOST_DIGITS = 100
_MOST_SHOWN = 60


class UsageError(Exception):
    """A mistake the user can repair. Command lines print `error: <message>` and exit with code 2.

    The message is one line; a traceback beside it would only hide it.
    """


class Lost(Exception):
    """Another process has gone, or shows no sign of life: the run cannot go on.

    Command lines print `rank <n> failed: <message>` and exit with code 1.
    """


class SharedUsageError(UsageError):
    """A mistake that every rank raises with the same words, so that one rank prints it for all."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UsageErrors: the caller decides how to leave."""

    @classmethod
    def of(cls, doc: str | None, **options: Any) -> Self:
        """A parser whose help is a program's docstring, as it is: first line, flags, the rest."""
        summary, _, rest = (doc or "").partition("\n\n")
        formatter = argparse.RawDescriptionHelpFormatter
        return cls(description=summary, epilog=rest, formatter_class=formatter, **options)

    def error(self, message: str) -> NoReturn:
        """Raise the complaint."""
        raise UsageError(f"{message} (see --help)")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Name the nearest of `known` as `, did you mean X?`; an empty string when nothing is near."""
    near = difflib.get_close_matches(word[:_MOST_DIGITS], list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""


# Control characters, those that change the direction of text, line and paragraph separators,
# halves of surrogate pairs. Joiners and variation selectors are part of ordinary words.
_CONTROL = ("Cc", "Cs", "Zl", "Zp")
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Text from a file as one line that a terminal shows and does not obey, with ESC spelt out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        repr(sign)[1:-1] if unicodedata.category(sign) in _CONTROL or sign in _DIRECTION else sign
        for sign in text
    )


def one_line(message: object) -> str:
    """The message on one line, `printable`."""
    return printable(" ".join(str(message).split()))


def shown(value: object) -> str:
    """A value as a message shows it: on one line, as Python spells it, at most 60 characters."""
    try:
        text = one_line(repr(value))
    except ValueError:  # Python spells no number of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def read_whole(text: str) -> int:
    """Read a whole number, such as `4096` or `1_000_000`. Raises ValueError saying what came."""
    if len(text) > _MOST_DIGITS or not _WHOLE.fullmatch(text):
        raise ValueError(f"expected a whole number, got {shown(text)}")
    return int(text)


def read_number(text: str) -> float:
    """Read a number, such as `0.1` or `1e-3`; nan and inf too. Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number, got {shown(text)}") from None


def read_size(text: str) -> int:
    """Read a number of bytes, such as `8GiB`, `500MB` or `0`. Raises ValueError saying what came.

    KiB to TiB are powers of 1024, as are Ki to Ti; KB to TB are powers of 1000.
    """
    found = _SIZE.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    if found is None:
        raise ValueError(f"expected a size such as 8GiB or 500MB, got {shown(text)}")
    base = 1024 if found["binary"] else 1000
    number = float(found["number"]) * base ** (" KMGT".index((found["unit"] or " ").upper()))
    if number >= 2**60:
        raise ValueError(f"expected a size below 1048576TiB, got {shown(text)}")
    return int(number)


def whole(low: int = 1, high: int = MOST_WHOLE) -> Callable[[str], int]:
    """A `type` of argparse: whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        value = _or_refuse(read_whole, text)
        if not low <= value <= high:
            wanted = f"from {low}" if value < low else f"of at most {high}"
            raise argparse.ArgumentTypeError(
                f"expected a whole number {wanted}, got {shown(value)}"
            )
        return value

    return read


def finite(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """A `type` of argparse: finite numbers from `low` to `high`."""

    def read(text: str) -> float:
        value = _or_refuse(read_number, text)
        if not math.isfinite(value) or not low <= value <= high:
            limits = [f"at least {low:g}"] * (low > -math.inf)
            limits += [f"at most {high:g}"] * (high < math.inf)
            wanted = " ".join(["expected a finite number", " and ".join(limits)]).rstrip()
            raise argparse.ArgumentTypeError(f"{wanted}, got {shown(text)}")
        return value

    return read


def wholes(text: str) -> tuple[int, ...]:
    """A `type` of argparse: whole numbers with commas between, such as 15,10,5."""
    try:
        return tuple(read_whole(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers with commas between, such as 15,10,5, got {shown(text)}"
        ) from None


def _or_refuse(read: Callable[[str], Value], text: str) -> Value:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
