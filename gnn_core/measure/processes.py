"""The processes of this host: who started this one, and who else computes beside it.

Read from /proc, or from a made-up tree of the same kind. What cannot be read is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

LAUNCHERS = ("horovodrun", "mpirun", "mpiexec", "orterun", "torchrun", "srun")
DAEMONS = ("orted", "prted", "hydra_pmi_proxy")  # start ranks on behalf of a launcher
_BUSY = re.compile(r"^State:\s+[RD]", re.MULTILINE)


def text_of(file: Path) -> str:
    """Return what a file holds; empty when it cannot be read, or is gone."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def ancestors(proc: Path, pid: int) -> list[tuple[int, list[str]]]:
    """Return (pid, command line) of the parents of a process, nearest first."""
    found: list[tuple[int, list[str]]] = []
    while len(found) < 64:
        pid = _parent(text_of(proc / str(pid) / "status"))
        if pid <= 0:
            break
        words = text_of(proc / str(pid) / "cmdline").rstrip("\0").split("\0")
        found.append((pid, words))
    return found


def launcher_at(command: list[str], names: tuple[str, ...]) -> int | None:
    """Return where in a command line the launcher's name stands; it may follow an interpreter."""
    for position, word in enumerate(command[:2]):
        if Path(word).name in names:
            return position
    if command[1:3] == ["-m", "torch.distributed.run"]:
        return 0
    return None


def others_running(proc: Path, pid: int) -> int | None:
    """Return how many processes that are not of this job run, or wait for a disk, right now.

    The job is the outermost launcher above process `pid` (that process itself without one), with
    all that it started and all that started it. A process counts when one of its threads does: a
    pool computes while the main thread waits. None where /proc does not show all processes.
    """
    if not text_of(proc / "1" / "status"):
        return None  # no /proc, or one that shows a user its own processes alone
    parents = {one: _parent(text_of(proc / str(one) / "status")) for one in _pids(proc)}
    above = ancestors(proc, pid)
    outermost = pid
    for one, command in above:
        if launcher_at(command, (*LAUNCHERS, *DAEMONS)) is not None:
            outermost = one
    job = {outermost, *(one for one, _ in ancestors(proc, outermost))}
    job |= {one for one in parents if _descends(one, outermost, parents)}
    return sum(_is_busy(proc / str(one)) for one in parents if one not in job)


def _pids(proc: Path) -> Iterator[int]:
    return (int(folder.name) for folder in proc.iterdir() if folder.name.isdecimal())


def _parent(status: str) -> int:
    found = re.search(r"^PPid:\s+(\d+)$", status, re.MULTILINE)
    return int(found[1]) if found else 0


def _descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    seen = set()
    while pid in parents and pid not in seen:
        if pid == root:
            return True
        seen.add(pid)
        pid = parents[pid]
    return False


def _is_busy(process: Path) -> bool:
    try:
        threads = [text_of(thread / "status") for thread in (process / "task").iterdir()]
    except OSError:  # it has ended meanwhile
        threads = []
    return any(_BUSY.search(text) for text in (text_of(process / "status"), *threads))
