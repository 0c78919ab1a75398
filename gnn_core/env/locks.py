"""Lets one installation at a time do what two must not do at once, and tells the others to wait."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from gnn_core.env.step_runner import StepRunner

__all__ = ["hold"]


@contextlib.contextmanager
def hold(path: Path, waiting: str, runner: StepRunner) -> Iterator[None]:
    """Hold the lock of `path`, a folder or a file made for it; say `waiting` while another has it.

    The lock ends with the process. On a file system without locks nothing is held: what is done
    under one is written so that doing it twice is a waste and not a danger.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o644)
    try:
        last = -60.0
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - last >= 30:
                    last = time.monotonic()
                    runner.say(waiting)
                time.sleep(0.5)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)
