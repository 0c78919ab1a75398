"""One run at a time saves to a folder of checkpoints, so that none overwrites what another saved.

A run holds the lock of a file there. The kernel releases it when the process ends, however it ends,
so that a lock is never stale; the file says for others whose it is. Where the file
system has no locks, that text decides: of a process of this host that has ended it is stale.
A rank of an elastic run that stands still keeps its lock: the same run may save there without it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from gnn_core.files import reason
from gnn_core.measure.machine import host_name
from gnn_core.usage import UsageError

FILE = ".in-use"


@contextlib.contextmanager
def claimed(folder: Path, run_id: str, unfinished: str) -> Iterator[None]:
    """Keep other runs from saving to the folder meanwhile, and remove what killed ones have left.

    Args:
        folder: made if it is not there.
        run_id: for others to read; two claims of one run are the same claim.
        unfinished: pattern of the names of files that are not whole yet.

    Raises:
        UsageError: another run saves there; it is named.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / FILE).open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(
            f"--checkpoint-dir: cannot write to {folder}: {reason(error)}; give another one"
        ) from None
    with stream:
        if not _locked(stream) and _read_owner(stream).get("run") != run_id:
            raise UsageError(
                f"--checkpoint-dir: {folder} is in use by {_owner(stream)}: wait for its end, give "
                f"another folder, or remove {folder / FILE} if that run has ended"
            )
        mine = {"host": host_name(), "pid": os.getpid(), "run": run_id}
        _write(stream, json.dumps(mine) + "\n")
        for leftover in folder.glob(unfinished):
            with contextlib.suppress(OSError):
                leftover.unlink()
        try:
            yield
        finally:
            _write(stream, "")


def _locked(stream: TextIO) -> bool:
    """Lock the file; False when another process has it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        owner = _read_owner(stream)
        return owner.get("host") != host_name() or not _is_alive(owner.get("pid"))
    return True


def _write(stream: TextIO, text: str) -> None:
    with contextlib.suppress(OSError):  # only for others to read
        stream.truncate(0)
        stream.write(text)
        stream.flush()


def _read_owner(stream: TextIO) -> dict[str, Any]:
    try:
        stream.seek(0)
        owner = json.loads(stream.read(4096))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _owner(stream: TextIO) -> str:
    owner = _read_owner(stream)
    if not {"host", "pid", "run"} <= owner.keys():  # it has only just locked it
        return "another run"
    return f"run {str(owner['run'])[:8]} (host {owner['host']}, process {owner['pid']})"


def _is_alive(pid: Any) -> bool:
    return type(pid) is int and pid != os.getpid() and Path("/proc", str(pid)).exists()
