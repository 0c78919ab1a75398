"""What a process of this host is doing, as the kernel and its own interpreter report it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_ROOT = str(Path(__file__).resolve().parents[2]) + os.sep
# Of a module in which the main thread waits -> what it waits for, which may take any time.
_LONG_WAITS = {
    "pdb": "is in a debugger",
    "bdb": "is in a debugger",
    "pydevd": "is in a debugger",
    "filelock": "waits for a lock that another process holds",
}


@dataclass(frozen=True)
class Stat:
    """A line of /proc/<pid>/stat."""

    state: str  # R, S, D: disk, Z: has ended, T: stopped, t: held by a debugger
    cpu_seconds: float  # of all its threads
    started: int  # ticks since the host's start: tells it from a later process of the same number


def stat(path: Path) -> Stat | None:
    """The state of a process or a thread, given its folder in /proc; None if there is none."""
    try:
        fields = (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return Stat(fields[0], (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[19]))


def stat_of(pid: int) -> Stat | None:
    """The state of a process; None if it has gone, or where there is no /proc."""
    return stat(_PROC / str(pid))


def same_processes() -> str:
    """Equal on all hosts and in all containers that number the same processes alike."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def threads() -> frozenset[int]:
    """The kernel's numbers of all threads of this process; none where there is no /proc."""
    try:
        return frozenset(int(entry.name) for entry in (_PROC / "self/task").iterdir())
    except OSError:
        return frozenset()


def work_done(helpers: Iterable[int]) -> tuple[float, int, bool]:
    """What this process has done so far: CPU seconds, bytes read and written, whether a disk works.

    Args:
        helpers: threads that are left out, since they work while others wait; so is this one, which
            reads what is told here.
    """
    seconds, moved = time.process_time(), _bytes_moved(_PROC / "self")
    for number in (threading.get_native_id(), *helpers):
        folder = _PROC / "self/task" / str(number)
        if found := stat(folder):
            seconds -= found.cpu_seconds
            moved -= _bytes_moved(folder)
    found_states = (stat(_PROC / "self/task" / str(number)) for number in threads())
    return seconds, moved, any(one is not None and one.state == "D" for one in found_states)


def _bytes_moved(folder: Path) -> int:
    try:
        lines = (folder / "io").read_text().split("\n")
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar")))


def place_of_main_thread() -> tuple[str, str]:
    """A wait of the main thread that may take long, or nothing; and where in our code it is."""
    frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)
    long_wait = where = ""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        long_wait = long_wait or _LONG_WAITS.get(module, "")
        file = frame.f_code.co_filename
        if not where and file.startswith(_ROOT) and "site-packages" not in file:
            where = f"{frame.f_code.co_name} ({file.removeprefix(_ROOT)}:{frame.f_lineno})"
        frame = frame.f_back
    return long_wait, where
