"""A text file that appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from gnn_core.usage import UsageError


def write_whole(file: Path, text: str) -> None:
    """Write it, making its folder; raises UsageError where that cannot be."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    except OSError as problem:
        raise UsageError(f"cannot write {file}: {problem.strerror or problem}") from None
