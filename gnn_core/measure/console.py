"""The output of a run while it trains: a bar on a terminal, plain lines anywhere else.

Under a launcher or in a pipe a bar turns into thousands of lines, so there lines are printed: of at
most twenty epochs, and, where epochs are long, at least every ten seconds.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from gnn_core.config import RunConfig
from gnn_core.launch import under_launcher

_SECONDS_BETWEEN_LINES = 10.0
_MOST_EPOCHS_PRINTED = 20
_FIRST_EPOCHS = 5  # are printed one by one
_ROUND = (1, 2, 5, 10, 25, 50)


class Console:
    """Prints for rank 0 and keeps silent for the others.

    Args:
        speaks: whether this is the rank that prints.
        mode: `bar`, `lines` (one for each epoch), `auto` (a bar on a terminal, elsewhere lines of
            some epochs), `off` (results only, no progress) or `quiet` (nothing).
        stream: where to print.
    """

    def __init__(self, speaks: bool, mode: str = "auto", stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._speaks = speaks
        self._prints_each_epoch = mode == "lines"
        if mode == "auto":
            is_terminal = self._stream.isatty() and not under_launcher()
            mode = "bar" if is_terminal else "lines"
        self._mode = mode if speaks else "quiet"
        self._epoch_written: float | None = None  # when the last epoch's line was printed

    @classmethod
    def of(cls, config: RunConfig, rank: int) -> Console:
        """The console of a rank: as --progress and --quiet say."""
        is_quiet = config.quiet and not config.dry_run
        return cls(rank == 0, "quiet" if is_quiet else config.progress)

    def say(self, line: str) -> None:
        """Print one line of a result."""
        if self._mode == "bar":
            tqdm.write(line, file=self._stream)
        elif self._mode != "quiet":
            # In one piece: mpirun tags every write, and a line end of its own becomes a line.
            self._stream.write(line + "\n")
        self._stream.flush()

    def progress(self, line: str) -> None:
        """Print one line of what goes on meanwhile, which `off` leaves out."""
        if self._mode != "off":
            self.say(line)

    def epoch(self, line: str, number: int, epochs: int, is_last: bool) -> None:
        """Print the line of epoch `number` (from 1) of `epochs`, or leave it out.

        Of many epochs the first five and the last are printed, multiples of a round number, and
        one that ends ten seconds or more after the last that was printed.
        """
        now = time.monotonic()
        since = None if self._epoch_written is None else now - self._epoch_written
        is_due = since is None or since >= _SECONDS_BETWEEN_LINES or number <= _FIRST_EPOCHS
        is_round = self._prints_each_epoch or number % epochs_between_lines(epochs) == 0
        if is_due or is_round or is_last:
            self._epoch_written = now
            self.progress(line)

    def steps(self, title: str, done: int, total: int) -> Steps:
        """Show the progress of `total` steps, of which `done` lie behind us (a context manager)."""
        return Steps(self, title, done, total)


def epochs_between_lines(epochs: int) -> int:
    """From one printed epoch to the next: a round number, so that at most twenty are printed."""
    if epochs <= _MOST_EPOCHS_PRINTED:
        return 1
    least = epochs / (_MOST_EPOCHS_PRINTED - _FIRST_EPOCHS)
    power = 1
    while power * _ROUND[-1] < least:
        power *= 10
    return next(power * number for number in _ROUND if power * number >= least)


class Steps:
    """Progress through one epoch."""

    def __init__(self, console: Console, title: str, done: int, total: int):
        self._console = console
        self._title = title
        self._first = self._done = done
        self._total = total
        self._bar: tqdm | None = None
        self._started = self._spoken = time.monotonic()

    def __enter__(self) -> Steps:
        """Show the bar, if there is to be one."""
        if self._console._mode == "bar":
            self._bar = tqdm(
                desc=self._title,
                initial=self._done,
                total=self._total,
                unit="step",
                leave=False,
                dynamic_ncols=True,
                file=self._console._stream,
            )
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
        if self._console._mode == "lines" and now - self._spoken >= _SECONDS_BETWEEN_LINES:
            self._spoken = now
            left = (now - self._started) / (self._done - self._first) * (self._total - self._done)
            self._console.progress(
                f"{self._title}  step {self._done}/{self._total}  loss {loss:.4f}  "
                f"{left:.0f} s to go"
            )
