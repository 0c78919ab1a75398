"""Runs the long commands of an installation so that a person can see that something moves.

Each step is one line when it starts and one when it ends; in between, a heartbeat shows the last
line of the command's output that means something. Everything the command wrote goes to a log
file.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, TextIO

__all__ = ["StepRunner", "StepFailed", "meaningful"]

_KEPT_LINES = 4000
"""How many of a step's last lines are kept to diagnose a failure from."""

_COMPILING = re.compile(r"(\[ *\d+%\]) (?:Building|Linking|Built)\b.*?([^/\s]+?)(?:\.o)?$")
_OTHERS = (
    re.compile(r"(?:Collecting|Downloading|Using cached|Installing collected|Building wheel)\b.*"),
    re.compile(r"-- (?:Found|Looking|Check|Detecting|Configuring|Generating)\b.*"),
)


_PATIENCE_SECONDS = 10.0
"""How long a command that was told to end may take before it is killed."""


class StepFailed(Exception):
    """A command of a step ended badly.

    Attributes: `title` (the step), `code` (exit status), `lines` (the end of its output), `log`.
    """

    def __init__(self, title: str, code: int, lines: Sequence[str], log: Path | None) -> None:
        super().__init__(f"{title} failed with status {code}")
        self.title, self.code, self.lines, self.log = title, code, list(lines), log


def meaningful(line: str, width: int = 70) -> str | None:
    """What of a line of output is worth showing to a person, cut to `width`, or None."""
    compiling = _COMPILING.search(line)
    if compiling:
        return f"{compiling[1]} {compiling[2]}"
    for pattern in _OTHERS:
        found = pattern.search(line)
        if found:
            text = found[0].strip()
            return text if len(text) <= width else f"{text[: width - 3]}..."
    return None


class StepRunner:
    """Prints the course of an installation and runs its commands.

    `stream` is where lines for people go, `heartbeat_seconds` the longest silence of a step;
    `cancelled` says that the whole was given up.
    """

    def __init__(self, stream: TextIO | None = None, heartbeat_seconds: float = 10.0) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._heartbeat_seconds = heartbeat_seconds
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self.cancelled = False
        self._kill_at = math.inf

    def say(self, text: str) -> None:
        """Print one line with the seconds since the start before it."""
        with self._lock:
            self._stream.write(f"[{time.monotonic() - self._start:5.0f} s] {text}\n")
            self._stream.flush()

    def run(
        self,
        title: str,
        command: Sequence[str],
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> list[str]:
        """Run `command` as the step `title`, appending its output to `log`; return its last lines.

        Raises StepFailed when the command fails, cannot be started, or the whole was cancelled.
        """
        began = time.monotonic()
        self.say(f"{title} ...")
        lines: deque[str] = deque(maxlen=_KEPT_LINES)
        sink = log.open("a", encoding="utf-8", errors="replace") if log else None
        try:
            if sink:
                sink.write(f"\n### {title}\n### {' '.join(command)}\n")
            code = self._follow(title, command, lines, sink, env, cwd)
        finally:
            if sink:
                sink.close()
        if code != 0 or self.cancelled:
            raise StepFailed(title, code, lines, log)
        self.say(f"{title}: done in {time.monotonic() - began:.0f} s")
        return list(lines)

    def lanes(self, tasks: Sequence[Callable[[], object]]) -> None:
        """Run independent tasks side by side; when one fails, end the others and raise that."""
        with ThreadPoolExecutor(max_workers=max(1, len(tasks))) as pool:
            futures = [pool.submit(task) for task in tasks]
            try:
                finished, unfinished = wait(futures, return_when=FIRST_EXCEPTION)
                # The first failure is the cause; those that follow are what cancelling did.
                failed = [f for f in finished if f.exception() is not None]
                if unfinished or failed:
                    self.cancel()
            except BaseException:
                self.cancel()
                raise
        for future in failed:
            future.result()

    def cancel(self) -> None:
        """End every command still running, with all that it started."""
        self.cancelled, self._kill_at = True, time.monotonic() + _PATIENCE_SECONDS
        with self._lock:
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)

    def _follow(
        self,
        title: str,
        command: Sequence[str],
        lines: deque[str],
        sink: IO[str] | None,
        env: Mapping[str, str] | None,
        cwd: Path | None,
    ) -> int:
        """Start the command, copy its output, keep the heartbeat; return its exit status."""
        if self.cancelled:
            return -signal.SIGTERM
        try:
            process = subprocess.Popen(
                list(command),
                env=dict(env) if env is not None else None,
                cwd=cwd,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                errors="replace",
                start_new_session=True,
            )
        except OSError as problem:
            lines.append(f"{command[0]}: {problem.strerror}")
            return 127
        with self._lock:
            self._running.add(process)
        reader = threading.Thread(target=_copy, args=(process, lines, sink), daemon=True)
        reader.start()
        began = last = time.monotonic()
        try:
            while reader.is_alive():
                reader.join(timeout=0.2)
                if time.monotonic() > self._kill_at:
                    _signal(process, signal.SIGKILL)
                if time.monotonic() - last >= self._heartbeat_seconds:
                    last = time.monotonic()
                    self.say(f"{title}: {last - began:.0f} s {_latest(lines)}".rstrip())
            return process.wait()
        except BaseException:
            self.cancel()
            raise
        finally:
            with self._lock:
                self._running.discard(process)


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _copy(process: subprocess.Popen[str], lines: deque[str], sink: IO[str] | None) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if sink:
            sink.write(line)
            sink.flush()


def _latest(lines: deque[str]) -> str:
    """The newest meaningful line, looking back a little way only: older news would mislead."""
    for line in reversed(list(lines)[-2000:]):
        shown = meaningful(line)
        if shown:
            return shown
    return ""
