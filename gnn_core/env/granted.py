"""What this process may use of the machine: cores, memory, disk. Containers are taken into account.

The limits of a container, or of a job of Slurm or systemd, are those of its control group and of
all groups around it, which the usual counts (`os.cpu_count`, /proc/meminfo) do not show. Both
versions of control groups are read; what cannot be read is no limit.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

__all__ = [
    "available_cores",
    "available_memory_bytes",
    "core_quota",
    "free_bytes",
    "granted_cores",
    "granted_memory_bytes",
    "memory_limit_bytes",
]

_ROOT = Path("/")
_UNLIMITED = 1 << 60  # version 1 writes a number near 2**63 where it means "no limit"


def available_cores(root: Path = _ROOT) -> int:
    """Cores this process may really use: its affinity, cut by the container's quota; at least 1."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    quota = core_quota(root)
    return cores if quota is None else max(1, min(cores, math.floor(quota + 0.5)))


def core_quota(root: Path = _ROOT) -> float | None:
    """Cores' worth of time that this process is granted, or None without a limit."""
    return granted_cores(*_places(root))


def granted_cores(proc: Path, cgroup: Path) -> float | None:
    """The same, with /proc and /sys/fs/cgroup named: the least of our group and all above it."""
    quotas = []
    for group in _groups(proc, cgroup, "cpu"):
        words = _read(group / "cpu.max").split()
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if quota and period and quota > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def memory_limit_bytes(root: Path = _ROOT) -> int | None:
    """How much memory this process is granted, or None without a limit."""
    return granted_memory_bytes(*_places(root))


def granted_memory_bytes(proc: Path, cgroup: Path) -> int | None:
    """The same, with /proc and /sys/fs/cgroup named: the least of our group and all above it."""
    return min((limit for limit, _ in _memory_groups(proc, cgroup)), default=None)


def available_memory_bytes(root: Path = _ROOT) -> int:
    """Memory that can still be had without swapping, within the machine and the container."""
    rooms = [max(0, limit - used) for limit, used in _memory_groups(*_places(root))]
    for line in _read(root / "proc" / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            rooms.append(int(line.split()[1]) * 1024)
    return min(rooms, default=0)


def free_bytes(path: Path) -> int | None:
    """Free space of the file system `path` is, or would be, on; None when it is unknown."""
    for place in (path, *path.parents):
        try:
            return shutil.disk_usage(place).free
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
    return None


def _memory_groups(proc: Path, cgroup: Path) -> list[tuple[int, int]]:
    """(limit, bytes in use that cannot be reclaimed) of every control group that sets a limit."""
    found = []
    for group in _groups(proc, cgroup, "memory"):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
        if limit is None or limit >= _UNLIMITED:
            continue
        for line in _read(group / "memory.stat").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                used = max(0, used - int(value))  # page cache that is given back on demand
                break
        found.append((limit, used))
    return found


def _places(root: Path) -> tuple[Path, Path]:
    return root / "proc", root / "sys" / "fs" / "cgroup"


def _groups(proc: Path, base: Path, controller: str) -> list[Path]:
    """The folders of our control group and of all groups around it, for one controller."""
    folders = [base, base / controller]
    for line in _read(proc / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        mount = base if number == "0" and not controllers else base / controller
        if mount != base and controller not in controllers.split(","):
            continue
        if ".." in inside.split("/"):  # outside of what is mounted here
            continue
        group = mount / inside.lstrip("/")
        while group != mount and mount in group.parents:
            folders.append(group)
            group = group.parent
    return [folder for folder in folders if folder.is_dir()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.lstrip("-").isdecimal() else None
