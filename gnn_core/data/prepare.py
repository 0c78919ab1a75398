"""Prepare a graph folder once, whatever happens: several processes at once, a kill half-way.

One process holds the lock and prepares; the others wait for it and then find the folder. What a
killed process leaves is a temporary folder and a lock that the system has released: the next one
removes the folder and starts again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gnn_core.data.meta import META, read_meta
from gnn_core.data.progress import Progress, Say, reporter
from gnn_core.files import is_file, reason, remedy
from gnn_core.usage import UsageError

_CACHE_FLAG = "--cache-dir (or RINGSAGE_CACHE)"
_FIRST_WORD_SECONDS, _NEXT_WORD_SECONDS = 3.0, 30.0


def is_prepared(folder: Path, is_current: Callable[[dict[str, Any]], bool] | None = None) -> bool:
    """Whether the folder holds a whole graph of today's schema that `is_current` accepts."""
    try:
        if not is_file(folder / META):
            return False
        meta = read_meta(folder)
        return is_current is None or is_current(meta)
    except (UsageError, LookupError, TypeError, AttributeError):  # not ours, or older: make it anew
        return False


def prepare(
    folder: Path,
    title: str,
    is_current: Callable[[dict[str, Any]], bool],
    make: Callable[[Progress], None],
    say: Say | None = None,
) -> None:
    """Have `make` write `folder`, unless a current one is there. Raises UsageError.

    `is_current` judges the meta.json of a folder found: a graph whose source files have changed is
    made again. `say` gets in single lines what takes time.
    """
    if is_prepared(folder, is_current):
        return
    say = say or _silence
    with locked(folder, title, say):
        if is_prepared(folder, is_current):
            return
        remove_leftovers(folder)
        again = " again: its sources or the format changed" if folder.exists() else ", once"
        say(f"{title}: preparing it in {folder}{again}")
        try:
            make(reporter(say, title))
        except OSError as error:
            raise _cannot_write(folder, error, "a graph", _CACHE_FLAG) from None


def _silence(line: str) -> None:
    pass


@contextmanager
def locked(
    folder: Path, title: str, say: Say, what: str = "a graph", flag: str = _CACHE_FLAG
) -> Iterator[None]:
    """Hold the lock of a folder that is about to be written; `say` who waits. Raises UsageError.

    Its message names `what` is written there, and the `flag` that gives another place.
    """
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    patience = _FIRST_WORD_SECONDS
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=patience)
            except Timeout:
                say(f"{title}: waiting for another process, which is preparing it")
                patience = _NEXT_WORD_SECONDS
    except OSError as error:
        raise _cannot_write(folder, error, what, flag) from None
    try:
        yield
    finally:
        lock.release()


def _cannot_write(folder: Path, error: OSError, what: str, flag: str) -> UsageError:
    return UsageError(
        f"{folder.parent}: expected to write {what} there, got {reason(error)}; "
        f"{remedy(error, flag)}"
    )


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders of processes that are no more (the lock is ours)."""
    for leftover in folder.parent.glob(f"{folder.name}.tmp-*"):
        pid = leftover.name.rpartition("-")[2]
        if not pid.isdecimal() or not _is_alive(int(pid)) or int(pid) == os.getpid():
            shutil.rmtree(leftover, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waits for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1]
    except OSError:  # it has just ended, or this is no Linux
        return True
    return state not in ([b"Z"], [b"X"])
