"""How long work reports where it is: counts go in, a few lines of text come out."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # (what is being done, how much of it, out of how much)
Say = Callable[[str], None]  # takes one line of text


def reporter(say: Say, title: str, every_seconds: float = 5.0) -> Progress:
    """A Progress that says `title: what 40 %, 3 min left`, at most once in `every_seconds`.

    Work that is over within that time is not mentioned at all. What is left is that of this work,
    at the speed it has had, and is told from a minute on.
    """
    due = time.monotonic() + every_seconds
    began: dict[str, tuple[float, int]] = {}  # of each work, when it was first told how far it is

    def progress(what: str, done: int, total: int) -> None:
        nonlocal due
        now = time.monotonic()
        start, before = began.setdefault(what, (now, done))
        if now >= due and done < total:
            due = now + every_seconds
            left = (now - start) * (total - done) / max(done - before, 1) / 60
            rest = f", {left:.0f} min left" if done > before and left >= 1 else ""
            say(f"{title}: {what} {100 * done // max(total, 1)} %{rest}")

    return progress


def silent(what: str, done: int, total: int) -> None:
    """A Progress that says nothing."""
