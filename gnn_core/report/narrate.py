"""What a run says while it runs: one voice, a bar on a terminal, plain lines anywhere else.

Under `mpirun` or in a pipe a bar turns into thousands of lines, so there a line is printed per
epoch and, in a long epoch, every ten seconds.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class Narrator:
    """Prints for rank 0 and keeps silent for the others.

    Args:
        speaks: whether this is the rank that prints.
        mode: `auto`, `bar`, `lines` or `off` (results only, no progress).
        stream: where to print.
    """

    def __init__(self, speaks: bool, mode: str = "auto", stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._speaks = speaks
        if mode == "auto":
            mode = "bar" if self._stream.isatty() else "lines"
        self._mode = mode if speaks else "off"

    def say(self, line: str) -> None:
        """Print one line."""
        if self._mode == "bar":
            tqdm.write(line, file=self._stream)
        elif self._speaks:
            # In one piece: mpirun tags every write, and a line end of its own becomes a line.
            self._stream.write(line + "\n")
        self._stream.flush()

    def steps(self, title: str, done: int, total: int) -> Steps:
        """Show the progress of `total` steps, of which `done` lie behind us (a context manager)."""
        return Steps(self, title, done, total)


class Steps:
    """Progress through one epoch."""

    def __init__(self, narrator: Narrator, title: str, done: int, total: int):
        self._narrator = narrator
        self._title = title
        self._first = self._done = done
        self._total = total
        self._bar: tqdm | None = None
        self._started = self._spoken = time.monotonic()

    def __enter__(self) -> Steps:
        """Show the bar, if there is to be one."""
        if self._narrator._mode == "bar":
            self._bar = tqdm(
                desc=self._title, initial=self._done, total=self._total, unit="step",
                leave=False, dynamic_ncols=True, file=self._narrator._stream,
            )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def advance(self, loss: float) -> None:
        """One more step is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if self._narrator._mode == "lines" and now - self._spoken >= _SECONDS_BETWEEN_LINES:
            self._spoken = now
            left = (now - self._started) / (self._done - self._first) * (self._total - self._done)
            self._narrator.say(
                f"{self._title}  step {self._done}/{self._total}  loss {loss:.4f}  "
                f"{left:.0f} s to go"
            )
