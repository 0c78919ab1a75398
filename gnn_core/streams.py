"""Standard streams as they may be: closed, full, or with a reader that has gone away.

A program needs all three to be there, and a run outlives them: it has a record to write.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


def open_what_is_closed() -> None:
    """Give a program that was started with closed streams (`>&-`) ones that lead nowhere.

    Python has None for them, and the next file that is opened would be what libraries write their
    messages to. Characters that the terminal does not know are written as escapes from now on.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def optional_output() -> Iterator[None]:
    """Within it, whatever can no longer be written to stdout or stderr is dropped."""
    out, err = _Optional(sys.stdout), _Optional(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


def fails(stream: TextIO) -> bool:
    """Whether what was written to the stream cannot be passed on."""
    try:
        stream.flush()
    except (OSError, ValueError):
        return True
    return False


def drop_from_now_on(stream: TextIO) -> None:
    """Let the stream lead nowhere, with what it still holds: flushing it fails no more."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Optional:
    """A text stream that leads nowhere as soon as it cannot be written to."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            drop_from_now_on(self._stream)
        return len(text)

    def flush(self) -> None:
        if fails(self._stream):
            drop_from_now_on(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
