"""A command under a limit of memory, and what it used: seconds, memory, bytes read and written.

The limit is that of a memory control group, of either version, without swap. Page cache counts, as
in a container. Making a group needs root, or a delegated one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from gnn_core.files import reason as reason_of
from gnn_core.number_text import size
from gnn_core.sweep.child import reason, run_to_end
from gnn_core.usage import UsageError

_POLL_SECONDS = 0.2
_BLOCK = 512  # bytes, in which the kernel counts what a process reads and writes


@dataclass(frozen=True)
class Used:
    """What a command and all processes below it used."""

    seconds: float
    cpu_seconds: float
    rss_bytes: int  # of its largest process, at most; shared pages included
    anonymous_bytes: int | None  # of all its processes, at most; None without a group
    group_peak_bytes: int | None  # page cache included; None without a group
    read_bytes: int  # from disk
    written_bytes: int
    major_faults: int


class MemoryGroup:
    """A control group of this process's own, removed in the end. UsageError where none can be made.

    Args:
        limit_bytes: of memory, for all processes in it together.
    """

    def __init__(self, limit_bytes: int):
        self._limit = limit_bytes
        parent, self._is_first_version = _parent()
        self.folder = parent / f"ringsage-bench-{os.getpid()}"

    def __enter__(self) -> MemoryGroup:
        names = ("memory.max", "memory.swap.max")
        values = (self._limit, 0)
        if self._is_first_version:
            names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
            values = (self._limit, self._limit)
        try:
            self.folder.mkdir()
            for name, value in zip(names, values, strict=True):
                if name == names[0] or (self.folder / name).exists():  # else there is no swap
                    (self.folder / name).write_text(str(value))
        except OSError as error:
            self._remove()
            raise UsageError(
                f"--memory: expected to make a memory control group in {self.folder.parent}, got "
                f"{reason_of(error)}; run this as root, or with --memory 0 for no limit"
            ) from None
        return self

    def __exit__(self, *about: object) -> None:
        self._remove()

    def joined(self, command: Sequence[str]) -> list[str]:
        """The command, started within the group."""
        script = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
        return ["sh", "-c", script, str(self.folder), *command]

    def anonymous_bytes(self) -> int:
        """Memory in use that is no page cache."""
        wanted = "total_rss" if self._is_first_version else "anon"
        for line in (self.folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == wanted:
                return int(value)
        return 0

    def ran_out(self) -> bool:
        """Whether the kernel ended a process of the group because of its limit."""
        name = "memory.oom_control" if self._is_first_version else "memory.events"
        with contextlib.suppress(OSError):
            for line in (self.folder / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1]) > 0
        return False

    def peak_bytes(self) -> int | None:
        """The most that was in use at once; None where the kernel does not tell."""
        name = "memory.max_usage_in_bytes" if self._is_first_version else "memory.peak"
        try:
            return int((self.folder / name).read_text())
        except OSError:
            return None

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def run_measured(command: Sequence[str], log: Path, limit_bytes: int = 0) -> Used:
    """Run the command with all that it says in `log`, under a limit unless that is 0.

    Raises UsageError when it fails, or where no control group can be made.
    """
    with MemoryGroup(limit_bytes) if limit_bytes else contextlib.nullcontext() as group:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        with _polled(group) as peaks:
            code = run_to_end(command if group is None else group.joined(command), log)
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if code:
            why = reason(log, code)
            if group is not None and group.ran_out():
                why = f"expected to need at most {size(limit_bytes)} of memory, got {why}; raise it"
            raise UsageError(f"{why}; see {log}")
        return Used(
            seconds=seconds,
            cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            rss_bytes=peaks.rss,
            anonymous_bytes=None if group is None else peaks.anonymous,
            group_peak_bytes=None if group is None else group.peak_bytes(),
            read_bytes=_BLOCK * (after.ru_inblock - before.ru_inblock),
            written_bytes=_BLOCK * (after.ru_oublock - before.ru_oublock),
            major_faults=after.ru_majflt - before.ru_majflt,
        )


def forget_pages(folder: Path) -> None:
    """Take the files of a folder out of the page cache: what a stage reads is charged to it."""
    os.sync()
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass
class _Peaks:
    rss: int = 0
    anonymous: int = 0


@contextlib.contextmanager
def _polled(group: MemoryGroup | None) -> Iterator[_Peaks]:
    """The most memory that the processes below this one have had so far."""
    peaks, over = _Peaks(), threading.Event()

    def poll() -> None:
        while not over.wait(_POLL_SECONDS):
            for child in psutil.Process().children(recursive=True):
                peaks.rss = max(peaks.rss, _highest_rss(child.pid))
            if group is not None:
                peaks.anonymous = max(peaks.anonymous, group.anonymous_bytes())

    thread = threading.Thread(target=poll, name="memory", daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def _highest_rss(pid: int) -> int:
    """The peak of a process so far; 0 for one that has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _parent() -> tuple[Path, bool]:
    """The folder in which to make a group, and whether it is of version 1. UsageError."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if "memory" in controllers.split(","):
            mount = Path("/sys/fs/cgroup/memory")
            own = mount / inside.lstrip("/")
            return (own if own.is_dir() else mount), True
    mount = Path("/sys/fs/cgroup")
    own = mount / inside.lstrip("/")
    # Beside this process's group: one that has processes cannot have groups with limits in it.
    return (own.parent if own != mount and own.is_dir() else mount), False
