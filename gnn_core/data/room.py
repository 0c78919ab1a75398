"""Whether what is about to be made fits: asked before the first byte is written, told in one line.

A disk that fills up after an hour, or a process that the kernel ends for its memory, says less.
"""

from __future__ import annotations

from pathlib import Path

from gnn_core.env.machine import available_memory_bytes, free_bytes
from gnn_core.usage import UsageError


def require_disk(folder: Path, num_bytes: float, what: str) -> None:
    """Raise UsageError where the disk of `folder`, which need not exist, has less than that free.

    `what` begins the message: what needs the room. A disk that does not tell is let be.
    """
    free = free_bytes(folder.absolute())
    if free is not None and num_bytes > free:
        raise UsageError(
            f"{what}: expected {size_text(num_bytes)} of free disk for {folder}, got "
            f"{size_text(free)}; free some space, choose another --cache-dir or a smaller graph"
        )


def require_memory(num_bytes: float, what: str) -> None:
    """Raise UsageError where less memory than that can be had without swapping."""
    free = available_memory_bytes()
    if num_bytes > free:
        raise UsageError(
            f"{what}: expected {size_text(num_bytes)} of memory, got {size_text(free)} available; "
            "use a machine with more memory or a smaller graph"
        )


def size_text(num_bytes: float) -> str:
    """Bytes with a unit that leaves few digits: `1.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} PB"
