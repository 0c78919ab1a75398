"""What building Horovod needs of the machine: a C++17 compiler, make, Python's headers, some disk.

Looked at before anything is downloaded: a missing compiler should cost a second, not ten minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gnn_core.env.failures import diagnose
from gnn_core.env.granted import free_bytes

__all__ = [
    "compiler",
    "cuda_home",
    "gpu_driver",
    "missing_to_build",
    "missing_to_install",
    "nccl_home",
]

BUILD_BYTES = 1_000_000_000
"""Disk for the unpacked source and object files of one Horovod build, with some room."""

ENVIRONMENT_BYTES = 6_000_000_000
"""Disk for the environment while it is being filled (3 GB when done with a CPU build of torch)."""

_PROGRAM = """\
#include <Python.h>
#include <optional>
std::optional<int> version() { return PY_MAJOR_VERSION; }
int main() { return version().value_or(0) == 3 ? 0 : 1; }
"""


def compiler(environ: Mapping[str, str]) -> str | None:
    """The C++ compiler that CMake will choose: CXX, else the first of c++ and g++ on PATH."""
    path = environ.get("PATH", os.defpath)
    asked = environ.get("CXX", "").split()
    names = asked[:1] or ["c++", "g++", "clang++"]
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def missing_to_build(include: Path, environ: Mapping[str, str]) -> list[str]:
    """What keeps Horovod from being built here, each in one line; empty when nothing does.

    `include` is the folder of Python's headers.
    """
    missing = []
    found = compiler(environ)
    if found is None:
        asked = environ.get("CXX")
        missing.append(
            f"CXX={asked} is not a program on PATH: correct it or unset CXX"
            if asked
            else str(diagnose(["No CMAKE_CXX_COMPILER could be found"]))
        )
    if shutil.which("make", path=environ.get("PATH", os.defpath)) is None:
        missing.append(str(diagnose(["CMAKE_MAKE_PROGRAM is not set"])))
    if not (include / "Python.h").exists():
        missing.append(str(diagnose(["Python.h: No such file"])) + f" [looked in {include}]")
    elif found is not None:
        missing += _trial(found, include, environ)
    return missing


def missing_to_install(venv: Path, cache: Path) -> list[str]:
    """Folders without the disk space that an installation needs, each in one line."""
    needs = ((venv, ENVIRONMENT_BYTES, "the environment"), (cache, BUILD_BYTES, "the built wheel"))
    lines = []
    for folder, needed, what in needs:
        free = free_bytes(folder)
        if free is not None and free < needed:
            lines.append(
                f"{folder} has {free / 1e9:.1f} GB free, {what} needs {needed / 1e9:.0f} GB: "
                "free some space"
            )
    return lines


def gpu_driver() -> bool:
    """Whether this machine has NVIDIA's driver: without it a GPU build is only larger."""
    return Path("/proc/driver/nvidia/version").exists()


def cuda_home(environ: Mapping[str, str]) -> Path | None:
    """A whole CUDA toolkit, or None."""
    homes = [environ[name] for name in ("HOROVOD_CUDA_HOME", "CUDA_HOME") if environ.get(name)]
    nvcc = shutil.which("nvcc", path=environ.get("PATH"))
    homes += [str(Path(nvcc).resolve().parents[1])] if nvcc else []
    for home in map(Path, [*homes, "/usr/local/cuda"]):
        runtime = [*home.glob("lib*/libcudart*"), *home.glob("lib*/*/libcudart*")]
        if runtime and (home / "bin/nvcc").exists() and (home / "include/cuda_runtime.h").exists():
            return home
    return None


def nccl_home(environ: Mapping[str, str]) -> Path | None:
    """A folder with include/nccl.h, or None."""
    asked = [environ[name] for name in ("HOROVOD_NCCL_HOME", "NCCL_HOME") if environ.get(name)]
    homes = [Path(home) for home in [*asked, "/usr", "/usr/local", "/usr/local/cuda"]]
    return next((home for home in homes if (home / "include" / "nccl.h").exists()), None)


def nccl_of_torch(packages: Path) -> Path | None:
    """The folder of the NCCL that pip has installed for torch, below its site-packages; or None."""
    home = packages / "nvidia" / "nccl"
    whole = (home / "include" / "nccl.h").exists() and (home / "lib" / "libnccl.so.2").exists()
    return home if whole else None


def _trial(found: str, include: Path, environ: Mapping[str, str]) -> list[str]:
    """Compile and link a small C++17 program that includes Python.h."""
    with tempfile.TemporaryDirectory(prefix="ringsage-") as folder:
        source = Path(folder) / "trial.cc"
        source.write_text(_PROGRAM, encoding="utf-8")
        command = [
            found,
            "-std=c++17",
            f"-I{include}",
            "-o",
            str(source.with_suffix("")),
            str(source),
        ]
        try:
            done = subprocess.run(
                command,
                env=dict(environ),
                capture_output=True,
                text=True,
                timeout=120,
                errors="replace",
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            return [f"the C++ compiler {found} does not run: {problem}"]
    if done.returncode == 0:
        return []
    lines = done.stderr.splitlines()
    reason = diagnose(lines) or (lines[0] if lines else f"status {done.returncode}")
    return [f"the C++ compiler {found} cannot build a C++17 program with Python.h: {reason}"]
