"""The output of a run while it trains: a bar on a terminal, plain lines anywhere else.

Under a launcher or in a pipe a bar turns into thousands of lines, so there lines are printed: of at
most twenty epochs, and, where epochs are long, at least every ten seconds; where steps take
longer, every thirty.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from gnn_core.config import RunConfig
from gnn_core.launch import under_launcher

_SECONDS_BETWEEN_LINES = 10.0
_SILENT_SECONDS = 30.0  # at most
_SECONDS_BETWEEN_LOOKS = 5.0
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
        self._spoken = time.monotonic()  # when anything was printed
        self._line: Callable[[], str] | None = None  # see `telling`
        self._teller: threading.Thread | None = None

    @classmethod
    def of(cls, config: RunConfig, rank: int) -> Console:
        """The console of a rank: as --progress and --quiet say."""
        is_quiet = config.quiet and not config.dry_run
        return cls(rank == 0, "quiet" if is_quiet else config.progress)

    def say(self, line: str) -> None:
        """Print one line of a result."""
        self._spoken = time.monotonic()
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

    @contextlib.contextmanager
    def telling(self, line: Callable[[], str]) -> Iterator[None]:
        """In here, if it prints lines, print this one after every 30 s in which it printed none."""
        if self._mode == "lines":
            self._spoken, self._line = time.monotonic(), line
            if self._teller is None:
                self._teller = threading.Thread(target=self._tell, name="progress", daemon=True)
                self._teller.start()
        try:
            yield
        finally:
            self._line = None

    def _tell(self) -> None:
        never = threading.Event()
        while not never.wait(_SECONDS_BETWEEN_LOOKS):
            self.tell_if_silent()

    def tell_if_silent(self) -> None:
        """Print the line of `telling` if nothing has been printed for long."""
        line = self._line
        if line is not None and time.monotonic() - self._spoken >= _SILENT_SECONDS:
            self.progress(line())

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
        self._started = self._spoken = self._stepped = time.monotonic()
        self._telling = console.telling(self._line)

    def __enter__(self) -> Steps:
        """Show the bar, if there is to be one."""
        self._telling.__enter__()
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
        self._telling.__exit__(None, None, None)
        if self._bar is not None:
            self._bar.close()

    def _line(self) -> str:
        taken = time.monotonic() - self._stepped
        return f"{self._title}  step {self._done}/{self._total}  {taken:.0f} s in the next so far"

    def advance(self, loss: float) -> None:
        """One more step is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update()
            return
        now = self._stepped = time.monotonic()
        if self._console._mode == "lines" and now - self._spoken >= _SECONDS_BETWEEN_LINES:
            self._spoken = now
            left = (now - self._started) / (self._done - self._first) * (self._total - self._done)
            self._console.progress(
                f"{self._title}  step {self._done}/{self._total}  loss {loss:.4f}  "
                f"{left:.0f} s to go"
            )
