"""A run as a child process: start it, wait for it, end it with all processes that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from gnn_core.launch import stop_signals
from gnn_core.sweep.launches import ROOT
from gnn_core.usage import printable

_PATIENCE_SECONDS = 20.0  # in which ranks stop at their next step and write their record


def run_to_end(command: Sequence[str], log: Path) -> int:
    """Run the command with all that it says in `log`; its exit code.

    Ctrl-C, SIGTERM and what batch systems send end the run and raise KeyboardInterrupt; a second
    one does not wait for it.
    """
    with log.open("wb") as stream, stoppable():
        with _deferred() as came:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C comes here alone, its processes can be found
            )
        try:
            if came:
                raise KeyboardInterrupt
            return child.wait()
        except KeyboardInterrupt:
            _stop(child)
            raise
        finally:
            _kill(child)


def reason(log: Path, code: int) -> str:
    """Why a run failed, in a few words: its own error line, else its exit code."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        _, found, message = line.partition("error: ")
        if found:
            return printable(" ".join(message.split())[:300])
    return f"ended by signal {-code}" if code < 0 else f"exit code {code}"


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let what ends a run do what Ctrl-C does."""
    numbers = stop_signals()
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _deferred() -> Iterator[list[int]]:
    """Hold signals back while a process starts: it would be nobody's. Gives those that came."""
    came: list[int] = []
    numbers = stop_signals()
    before = [signal.signal(number, lambda one, frame: came.append(one)) for number in numbers]
    try:
        yield came
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask for the end, as a launcher expects it, and wait a while for it."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        child.wait(_PATIENCE_SECONDS)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End whatever is left: ranks have process groups of their own, torchrun's even sessions."""
    ranks = []
    if child.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            ranks = psutil.Process(child.pid).children(recursive=True)
    for rank in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.kill()
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == child.pid:
                os.kill(pid, signal.SIGKILL)
    child.wait()
