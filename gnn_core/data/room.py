"""Whether what is about to be made fits: checked before the first byte is written.

A disk that fills up after an hour, or a process that the kernel ends for its memory, says less.
"""

from __future__ import annotations

from pathlib import Path

from gnn_core.env.granted import available_memory_bytes, free_bytes
from gnn_core.usage import UsageError


def require_room(
    what: str,
    folder: Path | None = None,
    disk_bytes: float = 0,
    memory_bytes: float = 0,
    flag: str = "--cache-dir",
) -> None:
    """Raise UsageError unless there is so much room, on the disk and in memory.

    Args:
        what: needs it; the message begins with that.
        folder: where files will be written, which need not exist; a disk that does not report how
            much of it is free is let be.
        disk_bytes: of files below `folder`.
        memory_bytes: that are to be had without swapping.
        flag: that gives another folder.
    """
    disk = None if folder is None else free_bytes(folder.absolute())
    memory = available_memory_bytes()
    if memory_bytes <= memory and (disk is None or disk_bytes <= disk):
        return
    wanted = [f"{size_text(memory_bytes)} of memory"] * bool(memory_bytes)
    got = [f"{size_text(memory)} of memory"] * bool(memory_bytes)
    if disk is not None and disk_bytes:
        wanted.append(f"{size_text(disk_bytes)} of disk")
        got.append(f"{size_text(disk)} of disk free for {folder}")
    raise UsageError(
        f"{what}: expected {' and '.join(wanted)}, got {' and '.join(got)}; take a smaller graph, "
        f"a larger machine{'' if folder is None else f' or another {flag}'}"
    )


def size_text(num_bytes: float) -> str:
    """Bytes with a unit that leaves few digits: `1.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} PB"
