"""How a user's mistake is told: one line that says what was expected, what came, what to change."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from typing import Any, NoReturn, Self


class UsageError(Exception):
    """A mistake the user can repair. Command lines print `error: <message>` and exit with code 2.

    The message is one line; a traceback beside it would only hide it.
    """


class Lost(Exception):
    """Another process has gone, or shows no sign of life: the run cannot go on.

    Command lines print `rank <n> failed: <message>` and exit with code 1.
    """


class SharedUsageError(UsageError):
    """A mistake that every rank raises with the same words, so that one rank tells it for all."""


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
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""
