"""A trace of a run: what each rank did when, for Perfetto (ui.perfetto.dev) or chrome://tracing.

An observer of a run; see `gnn_core.training.observers`. The file is an object of Chrome's trace
event format. Times are those of the host's clock in microseconds, so that traces of several ranks
can be laid over each other.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from gnn_core.measure.machine import host_name
from gnn_core.measure.run_record import EpochRecord, RunRecord
from gnn_core.measure.timing import Stopwatch
from gnn_core.usage import UsageError, one_line
from gnn_core.whole_file import replace_file

_MOST_EVENTS = 200_000  # some 20 MB in the file
_LOOP, _LOADER = 1, 2  # threads, in the file


class Trace:
    """Epochs, steps and sections of a rank, kept in memory until the run ends.

    Args:
        file: to be written.
        run_id: of the run's record.
        rank: of this process.
        watch: whose sections are traced.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, file: Path, run_id: str, rank: int, watch: Stopwatch):
        self._file, self._rank, self._run_id = file, rank, run_id
        self._to_clock = time.time() - time.perf_counter()
        self._events: list[dict[str, Any]] = []
        self._num_left_out = 0
        try:
            self._write()
        except OSError as error:
            raise UsageError(
                f"--trace: cannot write {file} ({one_line(error)}); give a name in another folder"
            ) from None
        watch.traced = self._section
        self._watch = watch
        self._epoch_began = self._step_began = math.inf  # by the first section in them

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Add a step: from the end of the one before, or the first section of the epoch."""
        now = time.perf_counter()
        about = {
            "epoch": epoch + 1,
            "step": step + 1,
            "loss": loss if math.isfinite(loss) else None,
        }
        self._add("step", min(self._step_began, now), now, _LOOP, about)
        self._step_began = now

    def epoch(self, record: EpochRecord) -> None:
        """Add an epoch with its evaluation."""
        now = time.perf_counter()
        self._add(f"epoch {record.epoch + 1}", min(self._epoch_began, now), now, _LOOP)
        self._epoch_began = self._step_began = math.inf

    def finished(self, record: RunRecord) -> None:
        """Nothing: `close` writes."""

    def close(self) -> None:
        """Write the file."""
        self._watch.traced = None
        try:
            self._write()
        except OSError as error:
            print(f"the trace {self._file} is lost: {one_line(error)}", file=sys.stderr, flush=True)

    def _section(self, name: str, began: float, ended: float, beside: bool = False) -> None:
        if not beside:
            self._epoch_began = min(self._epoch_began, began)
            self._step_began = min(self._step_began, began)
        self._add(name, began, ended, _LOADER if beside else _LOOP)

    def _add(
        self,
        name: str,
        began: float,
        ended: float,
        thread: int,
        about: dict[str, Any] | None = None,
    ) -> None:
        if len(self._events) >= _MOST_EVENTS:
            self._num_left_out += 1
            return
        event: dict[str, Any] = {"ph": "X", "name": name, "pid": self._rank, "tid": thread}
        event["ts"] = round(1e6 * (began + self._to_clock), 1)
        event["dur"] = round(1e6 * (ended - began), 1)
        self._events.append(event if about is None else {**event, "args": about})

    def _write(self) -> None:
        named = [
            ("process_name", _LOOP, f"rank {self._rank} on {host_name()}"),
            ("thread_name", _LOOP, "training"),
            ("thread_name", _LOADER, "loader"),
        ]
        names = [
            {"ph": "M", "name": what, "pid": self._rank, "tid": thread, "args": {"name": text}}
            for what, thread, text in named
        ]
        about = {"run_id": self._run_id, "events_left_out": self._num_left_out}
        trace = {"traceEvents": [*names, *self._events], "otherData": about}
        replace_file(self._file, json.dumps(trace))
