"""How long work reports where it is: counts go in, a few lines of text come out."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # (what is being done, how much of it, out of how much)
Say = Callable[[str], None]  # takes one line of text


def reporter(say: Say, title: str, every_seconds: float = 5.0) -> Progress:
    """A Progress that says `title: what 40 %`, at most once in `every_seconds`.

    Work that is over within that time is not mentioned at all.
    """
    due = time.monotonic() + every_seconds

    def progress(what: str, done: int, total: int) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due and done < total:
            due = now + every_seconds
            say(f"{title}: {what} {100 * done // max(total, 1)} %")

    return progress


def silent(what: str, done: int, total: int) -> None:
    """A Progress that says nothing."""
