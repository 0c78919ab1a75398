"""A file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gnn_core.usage import UsageError


def write_whole(file: Path, content: str | bytes) -> None:
    """Write text, as UTF-8, or bytes, making its folder; raises UsageError where that cannot be."""
    unfinished = file.parent / f".{file.name}.{os.getpid()}.tmp"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(_encoded(content))
        unfinished.replace(file)
    except OSError as problem:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise UsageError(f"cannot write {file}: {problem.strerror or problem}") from None


def _encoded(content: str | bytes) -> bytes:
    # Half of a surrogate pair, as in the name of a file that is no UTF-8, becomes an escape.
    return content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
