"""Standard output and error as JSON objects, one a line, for collectors of logs."""

from __future__ import annotations

import json
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from gnn_core.measure.machine import host_name

_ERRORS = ("error:", "rank ")


class JsonLines:
    """A text stream that writes each line as an object: time, level, rank, host, run_id, message.

    Args:
        stream: where the objects go.
        is_error: whether it is standard error: its level is warning, or error.
        facts: that stand in every object; others may be added later.
    """

    def __init__(self, stream: TextIO, is_error: bool, facts: dict[str, Any]):
        self._stream, self._is_error, self._facts = stream, is_error, facts
        self._lock = threading.Lock()
        self._begun = ""  # of a line without its end

    def write(self, text: str) -> int:
        """Write the lines that are whole, and keep the rest."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
            for line in lines:
                if line.strip():
                    self._emit(self._level(line), line)
        return len(text)

    def report(self, message: str) -> None:
        """Write an error of several lines as one object."""
        with self._lock:
            self._emit("error", message)

    def isatty(self) -> bool:
        """No: a bar, which is drawn over and over, would be many lines."""
        return False

    def _level(self, line: str) -> str:
        if line.startswith("failed:") or (self._is_error and line.startswith(_ERRORS)):
            return "error"
        return "warning" if self._is_error else "info"

    def _emit(self, level: str, message: str) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        values = {"time": time, "level": level, **self._facts, "message": message}
        self._stream.write(json.dumps(values) + "\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_facts: dict[str, Any] = {}


def log_as_json(rank: int) -> None:
    """Write what Python prints, and tracebacks, as JSON from now on, until the process ends."""
    if isinstance(sys.stderr, JsonLines):
        return
    _facts.update(rank=rank, host=host_name(), run_id=None)
    errors: Any = JsonLines(sys.stderr, True, _facts)
    lines: Any = JsonLines(sys.stdout, False, _facts)
    sys.stdout, sys.stderr = lines, errors

    def report(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
        errors.report("".join(traceback.format_exception(kind, error, at)).rstrip())

    sys.excepthook = report


def name_run(run_id: str) -> None:
    """Let further objects have the id of the run, as it stands in its record."""
    _facts["run_id"] = run_id
