"""Published files: where they are, whether they changed since they were read, how they are fetched.

A prepared graph remembers of each source file its size, time and SHA-256. Size and time are looked
at whenever the graph is opened; a file with another time is hashed again, unless it is huge.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gnn_core.data.progress import Progress
from gnn_core.data.store import file_sha256
from gnn_core.usage import UsageError
from gnn_core.whole_file import write_whole

_TIMEOUT_SECONDS = 30.0
_PIECE_BYTES = 1 << 20
_HASH_AGAIN_BYTES = 1 << 30  # a larger file of the same size is taken for the same


class NotHere(UsageError):
    """Published files are neither on this machine nor to be had from it."""


def find_folder(root: Path, places: Sequence[str], files: Iterable[str]) -> Path | None:
    """The first of `places` under `root` that holds all `files`."""
    wanted = list(files)
    for place in places:
        folder = root / place
        if all((folder / name).is_file() for name in wanted):
            return folder
    return None


def stamp(folder: Path, files: Iterable[str], progress: Progress) -> dict[str, dict[str, Any]]:
    """Size, modification time and SHA-256 of each file, by its name in `folder`."""
    names = sorted(files)
    stamps: dict[str, dict[str, Any]] = {}
    for done, name in enumerate(names):
        progress("checksums of the source files", done, len(names))
        facts = (folder / name).stat()
        stamps[name] = {
            "bytes": facts.st_size,
            "modified_ns": facts.st_mtime_ns,
            "sha256": file_sha256(folder / name),
        }
    return stamps


def changed_file(folder: Path, stamps: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The first file whose content is no longer what was stamped; None when all are as before."""
    for name, old in stamps.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != old["bytes"]:
            return name
        trusted = path.stat().st_mtime_ns == old["modified_ns"] or old["bytes"] > _HASH_AGAIN_BYTES
        if not trusted and file_sha256(path) != old["sha256"]:
            return name
    return None


def download(url: str, path: Path, hint: str, most_bytes: int = 1 << 30) -> None:
    """Fetch `url` into `path`, whole or not at all. NotHere ending in `hint` when it fails.

    What is larger than `most_bytes` is not what was published there, and is refused.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as reply:  # noqa: S310
            with partial.open("wb") as file:
                while piece := reply.read(_PIECE_BYTES):
                    file.write(piece)
                    if file.tell() > most_bytes:
                        raise ValueError(f"more than {most_bytes:,} bytes")
        partial.replace(path)
    except (OSError, urllib.error.URLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NotHere(f"{url}: expected to download it, got {reason}; {hint}") from None
    finally:
        partial.unlink(missing_ok=True)


def unpack(archive: Path, parts: Mapping[str, bytes]) -> None:
    """Write `parts` (name -> content) into the folder of `archive`, each whole; then remove it."""
    for name, content in parts.items():
        write_whole(archive.parent / name, content)
    archive.unlink()
