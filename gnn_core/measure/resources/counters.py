"""Counters of this process, its cgroup and its network, read from a few small files.

`/proc/self` is described in proc(5), cgroup v2 in the kernel's admin-guide/cgroup-v2, v1 in
admin-guide/cgroup-v1. What a system does not report is None.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gnn_core.measure.machine import host_name
from gnn_core.measure.processes import text_of

V2, V1, HOST = "cgroup v2", "cgroup v1", "host"


@dataclass(frozen=True)
class Reading:
    """All counters at one moment; those of bytes, seconds and events only ever grow."""

    at_seconds: float  # of a clock that never goes back
    cpu_seconds: float | None = None  # user and system, all threads of the process
    rss_bytes: int | None = None
    num_major_faults: int | None = None
    file_read_bytes: int | None = None
    file_written_bytes: int | None = None
    cgroup_cpu_seconds: float | None = None
    num_throttled: int | None = None
    throttled_seconds: float | None = None
    cgroup_memory_bytes: int | None = None
    network_received_bytes: int | None = None
    network_sent_bytes: int | None = None
    loopback_bytes: int | None = None


class Counters:
    """Where the counters of this process lie; found once, so that a reading opens few files.

    Args:
        proc: as /proc.
        cgroup: as /sys/fs/cgroup.
        interfaces: as /sys/class/net.
    """

    def __init__(
        self,
        proc: Path = Path("/proc"),
        cgroup: Path = Path("/sys/fs/cgroup"),
        interfaces: Path = Path("/sys/class/net"),
    ):
        self._proc = proc
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        groups = _groups(proc)
        self.cpu_source, self._cpu = _found(cgroup, groups, "cpuacct", "cpuacct.usage", "cpu.stat")
        quota = _places(cgroup / "cpu", groups.get("cpu"))
        self._quota = next((one for one in quota if (one / "cpu.stat").exists()), cgroup)
        self.memory_source, self._memory = _found(
            cgroup, groups, "memory", "memory.usage_in_bytes", "memory.current"
        )
        self.memory_limit_bytes = self._limit(cgroup)
        self.cgroup_mark = _mark(_inode(self._memory if self.memory_source != HOST else proc))
        self.network_mark = _mark(_inode(proc / "self" / "ns" / "net"))
        self._devices = _devices(interfaces)

    def read(self, at_seconds: float) -> Reading:
        """Return all counters; `at_seconds` is the time that the reading shall bear."""
        cpu_seconds, rss_bytes, num_major_faults = self._of_process()
        io = _pairs(text_of(self._proc / "self" / "io"))
        cgroup_cpu_seconds, num_throttled, throttled_seconds = self._cpu_of_cgroup()
        received, sent, loopback = self._network()
        return Reading(
            at_seconds=at_seconds,
            cpu_seconds=cpu_seconds,
            rss_bytes=rss_bytes,
            num_major_faults=num_major_faults,
            file_read_bytes=io.get("read_bytes"),
            file_written_bytes=io.get("write_bytes"),
            cgroup_cpu_seconds=cgroup_cpu_seconds,
            num_throttled=num_throttled,
            throttled_seconds=throttled_seconds,
            cgroup_memory_bytes=self._memory_of_cgroup(),
            network_received_bytes=received,
            network_sent_bytes=sent,
            loopback_bytes=loopback,
        )

    def _of_process(self) -> tuple[float | None, int | None, int | None]:
        """Return CPU seconds, RSS and major faults; fields 14 + 15, 24 and 12 of stat."""
        # The name of the program, field 2 in parentheses, may hold blanks and parentheses itself.
        words = text_of(self._proc / "self" / "stat").rpartition(")")[2].split()
        if len(words) < 22:
            return None, None, None
        ticks = int(words[11]) + int(words[12])
        return ticks / self._ticks_per_second, int(words[21]) * self._page_bytes, int(words[9])

    def _cpu_of_cgroup(self) -> tuple[float | None, int | None, float | None]:
        """Return CPU seconds, throttled periods and throttled seconds."""
        if self.cpu_source == V2:
            stat = _pairs(text_of(self._cpu / "cpu.stat"))
            throttled = _times(1e-6, stat.get("throttled_usec"))
            return _times(1e-6, stat.get("usage_usec")), stat.get("nr_throttled"), throttled
        if self.cpu_source == V1:
            used = _number(text_of(self._cpu / "cpuacct.usage"))
            stat = _pairs(text_of(self._quota / "cpu.stat"))
            throttled = _times(1e-9, stat.get("throttled_time"))
            return _times(1e-9, used), stat.get("nr_throttled"), throttled
        words = text_of(self._proc / "stat").partition("\n")[0].split()
        if words[:1] != ["cpu"] or len(words) < 8:
            return None, None, None
        user, nice, system, _, _, irq, softirq = map(int, words[1:8])  # guests are in user
        return (user + nice + system + irq + softirq) / self._ticks_per_second, None, None

    def _memory_of_cgroup(self) -> int | None:
        """Return the bytes in use, less the file pages that were not used lately.

        That cache grows until the limit and is given up first; what is left is what brings a pod
        down. Of a host it is all but what it calls available.
        """
        if self.memory_source == HOST:
            known = _pairs(text_of(self._proc / "meminfo"))
            total, available = known.get("MemTotal"), known.get("MemAvailable")
            return None if total is None or available is None else 1024 * (total - available)
        file = "memory.current" if self.memory_source == V2 else "memory.usage_in_bytes"
        used = _number(text_of(self._memory / file))
        stat = _pairs(text_of(self._memory / "memory.stat"))
        cache = "inactive_file" if self.memory_source == V2 else "total_inactive_file"
        return None if used is None else max(0, used - stat.get(cache, 0))

    def _limit(self, cgroup: Path) -> int | None:
        """Return the least of the limits of the cgroup, of those above it, and of the host."""
        kilobytes = _pairs(text_of(self._proc / "meminfo")).get("MemTotal")
        limits = [None if kilobytes is None else 1024 * kilobytes]
        folder = self._memory
        while self.memory_source != HOST and folder.is_relative_to(cgroup):
            for file in ("memory.max", "memory.limit_in_bytes"):
                limits.append(_number(text_of(folder / file)))  # "max" is none
            folder = folder.parent
        return min((limit for limit in limits if limit is not None), default=None)

    def _network(self) -> tuple[int | None, int | None, int | None]:
        """Return the bytes received and sent, and those over loopback.

        Counted are the interfaces that are devices, where there are any: bridges, bonds and the
        near ends of containers would count their bytes once more. What goes past the kernel
        (RDMA, InfiniBand verbs) is in no counter of it.
        """
        table: dict[str, list[int]] = {}
        for line in text_of(self._proc / "self" / "net" / "dev").splitlines()[2:]:
            name, _, words = line.partition(":")
            table[name.strip()] = [int(word) for word in words.split()]
        loopback = table.pop("lo", None)
        outward = [table[name] for name in table if name in self._devices] or list(table.values())
        if not table and loopback is None:
            return None, None, None
        received, sent = (sum(counts[field] for counts in outward) for field in (0, 8))
        return received, sent, None if loopback is None else loopback[8]


def _groups(proc: Path) -> dict[str, str]:
    """Return the path of this process's cgroup by controller; that of version 2 under ""."""
    lines = [line.split(":", 2) for line in text_of(proc / "self" / "cgroup").splitlines()]
    return {
        controller: words[2]
        for words in lines
        if len(words) == 3
        for controller in words[1].split(",")
    }


def _places(root: Path, path: str | None) -> Iterator[Path]:
    """Yield the folders that may be that of a cgroup: in a container its own stands at the root."""
    if path is not None and ".." not in path:
        yield root / path.strip("/")
    yield root


def _found(
    cgroup: Path, groups: dict[str, str], controller: str, file_v1: str, file_v2: str
) -> tuple[str, Path]:
    """Return whose counters are read, and the folder of them (of a host: of no use)."""
    for folder in _places(cgroup, groups.get("")):
        # The root of version 2 on a host of its own limits nothing and has no such file.
        if (folder / file_v2).exists() and (folder / "cgroup.type").exists():
            return V2, folder
    for folder in _places(cgroup / controller, groups.get(controller)):
        if (folder / file_v1).exists():
            return V1, folder
    return HOST, cgroup


def _devices(interfaces: Path) -> frozenset[str]:
    try:
        return frozenset(one.name for one in interfaces.iterdir() if (one / "device").exists())
    except OSError:
        return frozenset()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _mark(inode: int | None) -> str | None:
    """Return a word that is equal for ranks with the same file of the same host."""
    if inode is None:
        return None
    return hashlib.sha256(f"{host_name()} {inode}".encode()).hexdigest()[:8]


def _pairs(text: str) -> dict[str, int]:
    """Return lines such as `name 1`, `name: 1` and `name: 1 kB` as numbers by name."""
    lines = (line.replace(":", " ").split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _times(unit: float, count: int | None) -> float | None:
    return None if count is None else unit * count
