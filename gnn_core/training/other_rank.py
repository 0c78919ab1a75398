"""OtherRank: what a rank that waits has seen of another one, and what it makes of it."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from gnn_core.training.process_state import stat_of

_BUSY_SHARE = 0.05  # of a core, from which on a process computes
_BUSY_BYTES = 1024  # read or written, from which on it works on files
_LEAST_SECONDS = 2.0  # between two answers that are compared
_FRESH_SECONDS = 4.0  # the age up to which an answer counts as current
# mpirun notices in 40 s that a host is cut off (gnn_core/env/mpi_settings.py), unless a rank that
# ends before makes it speak to that host: it then waits for the answer instead.
_FAR_SECONDS = 60.0


class OtherRank:
    """Another rank of the job.

    Args:
        rank: its number.
        card: what it sent about itself (`RankMonitor.card`).
        at: where its monitor answers.
        is_local: whether its process can be looked at from here.
    """

    def __init__(self, rank: int, card: dict[str, Any], at: Any, is_local: bool):
        self.rank, self.at = rank, at
        self.begun = -1  # collectives, as far as it has reported
        self._card, self._is_local = card, is_local
        self._answered_at: float | None = None
        self._answer: dict[str, Any] = {}
        self._busy_at = 0.0
        self._gone_since: float | None = None
        self._state = ""  # of its process, if that can be seen
        self._heard_since: float | None = None  # without it nothing can be said of idleness
        self._compared: dict[str, tuple[float, float, int]] = {}  # when, CPU seconds, bytes

    def __str__(self) -> str:
        return f"rank {self.rank} ({self._card['host']}, pid {self._card['pid']})"

    def hear(self, answer: dict[str, Any], now: float) -> None:
        """Take in an answer. Raises KeyError or TypeError if it is none."""
        self._heard_since = self._heard_since or now
        if not answer["waits"]:  # which takes a little time of the CPU by itself
            self._note_work("reported", answer["cpu_seconds"], answer["bytes"], now)
        if answer["disk"] or answer["long_wait"]:
            self._busy_at = now
        self.begun, self._answer, self._answered_at = int(answer["begun"]), answer, now

    def look(self, now: float) -> None:
        """Look at its process, where that can be seen."""
        if not self._is_local:
            return
        found = stat_of(self._card["pid"])
        if found is None or found.started != self._card["started"] or found.state in "ZX":
            self._gone_since = self._gone_since or now
            return
        self._state = found.state
        if not self.answers(now):  # such as while it holds the interpreter's lock
            self._note_work("seen", found.cpu_seconds, 0, now)
        if found.state == "t":
            self._busy_at = now

    def end_if_stopped(self) -> bool:
        """Kill its process if that is stopped (SIGSTOP) on this host; whether it was."""
        if self._state != "T" or not self._is_local:
            return False
        with contextlib.suppress(OSError):
            os.kill(self._card["pid"], signal.SIGKILL)
        return True

    @property
    def is_known(self) -> bool:
        """Whether it has ever answered."""
        return self._answered_at is not None

    def gone_for(self, now: float) -> float:
        """Seconds since its process was first missed; 0 while it is there."""
        return 0.0 if self._gone_since is None else now - self._gone_since

    def lost_for(self, since: float, now: float) -> float:
        """Seconds without any sign of life, from `since` at the earliest."""
        return now - max(since, self._answered_at or 0.0, self._busy_at)

    def idle_for(self, since: float, now: float) -> float:
        """Seconds in which it did nothing, from `since` at the earliest."""
        return now - max(since, self._busy_at, self._heard_since or now)

    def patience(self, limit: float) -> float:
        """How long it may be silent, in seconds, where `limit` is the timeout."""
        if self._state == "T" or self._is_local:
            return limit
        return max(limit, _FAR_SECONDS)

    def doing(self, now: float) -> str:
        """What it does, in words."""
        if self._gone_since is not None:
            return "has ended"
        if self._state == "T":
            return "is stopped (SIGSTOP)"
        if self._state == "t":
            return "is held by a debugger"
        if not self.answers(now) and now - self._busy_at > _FRESH_SECONDS:
            if self._answered_at is None:
                firewall = "" if self._is_local else " (does a firewall stop UDP?)"
                return f"has never answered{firewall}"
            return f"has not answered for {now - self._answered_at:.0f} s"
        where = f", in {self._answer['where']}" if self._answer.get("where") else ""
        if long_wait := self._answer.get("long_wait"):
            return f"{long_wait}{where}"
        if self._answer.get("waits"):
            return f"waits for others itself{where}"
        idle = now - self._busy_at
        return f"is busy{where}" if idle < _FRESH_SECONDS else f"does nothing{where}"

    def answers(self, now: float) -> bool:
        """Whether it answers at present: otherwise nothing is known of what it does."""
        return self._answered_at is not None and now - self._answered_at < _FRESH_SECONDS

    def _note_work(self, source: str, cpu_seconds: float, moved: int, now: float) -> None:
        before, seconds, others = self._compared.setdefault(source, (now, cpu_seconds, moved))
        if now - before < _LEAST_SECONDS:
            return
        computes = cpu_seconds - seconds > _BUSY_SHARE * (now - before)
        if computes or moved - others > _BUSY_BYTES:
            self._busy_at = now
        self._compared[source] = now, cpu_seconds, moved
