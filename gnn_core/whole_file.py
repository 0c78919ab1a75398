"""A file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gnn_core.usage import UsageError


def write_whole(file: Path, content: str | bytes) -> None:
    """Write text, as UTF-8, or bytes, making its folder; raises UsageError where that cannot be."""
    try:
        replace_file(file, content)
    except OSError as problem:
        raise UsageError(f"cannot write {file}: {problem.strerror or problem}") from None


def replace_file(file: Path, content: str | bytes, mark: str | None = None) -> None:
    """`write_whole`, with OSError for a caller that has more to say of it.

    Args:
        file: to be written, or replaced.
        content: text, which is encoded as UTF-8, or bytes. It is on the disk before the name is.
        mark: how the name of the unfinished file ends; None: as nobody else's does.
    """
    unfinished = file.parent / f".{file.name}.{mark or f'{os.getpid()}.tmp'}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as stream:
            stream.write(_encoded(content))
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _encoded(content: str | bytes) -> bytes:
    # Half of a surrogate pair, as in the name of a file that is no UTF-8, becomes an escape.
    return content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
