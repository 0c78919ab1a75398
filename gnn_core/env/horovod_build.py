"""Builds the Horovod wheel that fits this environment's torch and MPI, once per user, and keeps it.

The last published Horovod (0.28.1) does not compile against a torch newer than 2.0: two of its
CMake files ask for C++14 where torch's headers need C++17. The published source is fetched, its
checksum verified, corrected (see `horovod_source`), and the wheel built against the Open MPI that
pip put into the environment. The wheel looks for libmpi relative to itself, so it serves every
clone of this user.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn_core.env.granted import available_cores, available_memory_bytes
from gnn_core.env.horovod_source import (
    PATCH_TOOL,
    RUNPATH,
    SDIST_SHA256,
    VERSION,
    WAKE_PATCH,
    WAKES,
    BuildProblem,
    correct_source,
)
from gnn_core.env.locks import hold
from gnn_core.env.mpi_settings import site_packages
from gnn_core.env.step_runner import StepRunner
from gnn_core.env.toolchain import cuda_home, gpu_driver, nccl_home, nccl_of_torch
from gnn_core.env.virtual_environment import VirtualEnvironment, clean_environment, pip_command

__all__ = ["Recipe", "cached_wheel", "ensure_wheel", "recipe_for"]

CMAKE = "cmake==3.31.10"  # CMake 4 refuses the minimum version that the bundled Gloo declares.
REVISION = 2
"""Raise it when the way of building changes: wheels built the old way are not used again."""

_BYTES_PER_COMPILER = 1_500_000_000  # one compiler with torch's headers needs 1.0 - 1.3 GB
_GPU_SETTINGS = frozenset(
    "HOROVOD_CUDA_HOME HOROVOD_NCCL_HOME HOROVOD_NCCL_INCLUDE HOROVOD_NCCL_LIB HOROVOD_NCCL_LINK "
    "HOROVOD_BUILD_CUDA_CC_LIST HOROVOD_BUILD_ARCH_FLAGS".split()
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the built wheel is like.

    `gpu` is "cpu", "cuda" (tensors on a GPU travel through the CPU), "nccl" or "mpi".
    """

    torch: str
    openmpi: str
    python_tag: str
    platform: str
    libc: str
    gpu: str

    @property
    def key(self) -> str:
        """The name of the wheel's folder in the cache."""
        return (
            f"horovod-{VERSION}_torch-{self.torch}_openmpi-{self.openmpi}_{self.python_tag}"
            f"_{self.platform}_{self.libc}_{self.gpu}_r{REVISION}"
        )


def recipe_for(target: VirtualEnvironment, openmpi: str, environ: Mapping[str, str]) -> Recipe:
    """The recipe for the torch installed in `target`; raises BuildProblem when there is none."""
    torch, cuda = target.torch_version()
    if torch is None:
        raise BuildProblem("torch is not installed in the environment: Horovod is built against it")
    gpu = environ.get("HOROVOD_GPU_OPERATIONS", "").lower()
    if gpu and not cuda:
        raise BuildProblem(
            f"HOROVOD_GPU_OPERATIONS={gpu.upper()}: expected torch's CUDA build, got {torch}: "
            "let it find that build (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL), or unset the variable"
        )
    if not gpu:
        gpu = "cuda" if cuda and gpu_driver() and cuda_home(environ) else "cpu"
        if gpu == "cuda" and (nccl_home(environ) or nccl_of_torch(site_packages(target.venv))):
            gpu = "nccl"
    return Recipe(torch, openmpi, target.python_tag, target.platform, target.libc, gpu)


def cached_wheel(cache: Path, recipe: Recipe) -> Path | None:
    """The wheel built earlier by this recipe, if it is there and undamaged."""
    folder = cache / "wheels" / recipe.key
    for wheel in folder.glob("*.whl"):
        with contextlib.suppress(OSError):
            if _sha256(wheel) == (folder / "SHA256").read_text(encoding="utf-8").strip():
                return wheel
    return None


def ensure_wheel(
    runner: StepRunner, target: VirtualEnvironment, cache: Path, recipe: Recipe
) -> Path:
    """Return the wheel of `recipe`, building it when the cache has none.

    Raises BuildProblem or StepFailed; the log of a failed build stays beside the cache's wheels.
    """
    wheels = cache / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    found = cached_wheel(cache, recipe)
    if found:
        return found
    waiting = "another installation is building this Horovod; waiting for it"
    with hold(wheels / f"{recipe.key}.lock", waiting, runner):
        found = cached_wheel(cache, recipe)  # built by another installation while this one waited
        if found:
            return found
        mark = hashlib.sha256(recipe.key.encode()).hexdigest()[:12]
        for stale in wheels.glob(f".building-{mark}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        log = wheels / f"{recipe.key}.log"
        log.unlink(missing_ok=True)
        # Horovod's CMake files use the path of the source as a regular expression: a `+` in it puts
        # the built library into a wrong place.
        plain = re.fullmatch(r"[\w./-]+", str(wheels), re.ASCII)
        work = Path(tempfile.mkdtemp(prefix=f".building-{mark}-", dir=wheels if plain else None))
        staged = Path(tempfile.mkdtemp(prefix=f".building-{mark}-", dir=wheels))
        try:
            wheel = _build(runner, target, recipe, work, log)
            return _publish(wheel, staged, wheels / recipe.key, recipe, log)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(staged, ignore_errors=True)


def _build(
    runner: StepRunner, target: VirtualEnvironment, recipe: Recipe, work: Path, log: Path
) -> Path:
    """Fetch, correct and compile; return the wheel under `work`/out."""
    env = _build_environment(target, recipe, work)
    wanted = work / "sdist.txt"
    wanted.write_text(f"horovod=={VERSION} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    pip = pip_command(target)

    def step(what: str, *arguments: str) -> None:
        runner.run(f"Horovod {VERSION}: {what}", [*pip, *arguments], log, env)

    alone = ("--no-deps", "--no-build-isolation")
    fetched = ("-r", str(wanted), "-d", str(work))
    step("its source", "download", *alone, "--no-binary", "horovod", *fetched)
    tools = ("--no-deps", "--target", str(work / "tools"))
    step("what builds it", "install", *tools, CMAKE, PATCH_TOOL)
    with tarfile.open(work / f"horovod-{VERSION}.tar.gz") as archive:
        # Python 3.11.0 - 3.11.3 have no filters; the checksum has already said which this is.
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(work, **safely)
    source = work / f"horovod-{VERSION}"
    correct_source(source)
    patch = [str(target.python), "-I", str(work / "tools" / "patch_ng.py"), "-d", str(source)]
    runner.run(f"Horovod {VERSION}: patch", [*patch, str(WAKE_PATCH)], log, env)
    runner.say(
        f"Horovod is compiled once for torch {recipe.torch} and kept in {log.parent}; this takes "
        f"2 - 5 minutes ({env['MAKEFLAGS'].removeprefix('-j')} compilers at a time)"
    )
    step("compile", "wheel", "-v", *alone, "-w", str(work / "out"), str(source))
    wheel = next((work / "out").glob("horovod-*.whl"), None)
    if wheel is None:
        raise BuildProblem(f"the build ended well but left no wheel; its log: {log}")
    _inspect(wheel, log)
    return wheel


def _build_environment(target: VirtualEnvironment, recipe: Recipe, work: Path) -> dict[str, str]:
    env = clean_environment(target)
    mpi = _plain_mpi(target, work)
    env["PATH"] = f"{mpi / 'bin'}{os.pathsep}{env['PATH']}"
    # Whatever a user's shell says about Horovod's frameworks must not change a wheel that is
    # shared.
    for name in [name for name in env if name.startswith("HOROVOD_") and name not in _GPU_SETTINGS]:
        del env[name]
    # Nor may the make we run under, or a preferred generator: setup.py passes flags of make.
    for name in ("MAKELEVEL", "MFLAGS", "CMAKE_GENERATOR", "CMAKE_ARGS"):
        env.pop(name, None)
    env.update(
        HOROVOD_WITH_MPI="1",
        HOROVOD_WITH_GLOO="1",
        HOROVOD_WITH_PYTORCH="1",
        HOROVOD_WITHOUT_TENSORFLOW="1",
        HOROVOD_WITHOUT_MXNET="1",
        HOROVOD_CMAKE=str(work / "tools" / "cmake" / "data" / "bin" / "cmake"),
        MPI_HOME=str(mpi),  # CMake looks here before it looks for a system MPI
        MAKEFLAGS=f"-j{_jobs(env)}",
        TMPDIR=str(work),
    )
    if recipe.gpu == "cpu":
        env["RINGSAGE_HIDE_CUDA"] = "1"
        env["CUDACXX"] = shutil.which("false") or "/bin/false"  # CMake tries any nvcc on PATH
        return env
    toolkit, nccl = cuda_home(env), nccl_home(env) or _linkable_nccl(target, work)
    if toolkit:
        for name, value in (("CUDA_HOME", toolkit), ("CUDACXX", toolkit / "bin" / "nvcc")):
            env.setdefault(name, str(value))
        env.setdefault("HOROVOD_CUDA_HOME", str(toolkit))
    if recipe.gpu != "cuda":
        env["HOROVOD_GPU_OPERATIONS"] = recipe.gpu.upper()
        if nccl:
            env.setdefault("HOROVOD_NCCL_HOME", str(nccl))
    return env


def _linkable_nccl(target: VirtualEnvironment, work: Path) -> Path | None:
    """Torch's own NCCL as a linker looks for it: pip's package has no plain `libnccl.so`."""
    home = nccl_of_torch(site_packages(target.venv))
    if home is None:
        return None
    nccl = work / "nccl"
    (nccl / "lib").mkdir(parents=True)
    (nccl / "include").symlink_to(home / "include")
    (nccl / "lib" / "libnccl.so").symlink_to(home / "lib" / "libnccl.so.2")
    return nccl


def _plain_mpi(target: VirtualEnvironment, work: Path) -> Path:
    """The environment's Open MPI seen at a path without spaces: its compilers do not quote."""
    mpi = work / "mpi"
    for name in ("etc", "include", "lib", "share"):
        (mpi / name).parent.mkdir(exist_ok=True)
        (mpi / name).symlink_to(target.venv / name)
    (mpi / "bin").mkdir()
    (mpi / "links").mkdir()
    (mpi / "bin" / "mpiexec").symlink_to(target.venv / "bin" / "mpiexec")  # CMake looks beside it
    for name in ("mpicc", "mpicxx"):
        # opal_wrapper is what the wheel's mpicxx starts: told by its own name which compiler to be,
        # and by OPAL_PREFIX where it is. The script sets that last of all, as our .pth sets it too.
        (mpi / "links" / name).symlink_to(target.venv / "bin" / "opal_wrapper")
        script = mpi / "bin" / name
        script.write_text(f'#!/bin/sh\nOPAL_PREFIX={mpi} exec {mpi}/links/{name} "$@"\n', "utf-8")
        script.chmod(0o755)
    return mpi


def _jobs(env: Mapping[str, str]) -> int:
    asked = env.get("RINGSAGE_BUILD_JOBS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return max(1, min(available_cores(), available_memory_bytes() // _BYTES_PER_COMPILER))


def _inspect(wheel: Path, log: Path) -> None:
    """Refuse a wheel that would not find the environment's MPI when another clone uses it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        libraries = [
            n for n in names if n.startswith("horovod/torch/mpi_lib") and n.endswith(".so")
        ]
        binary = archive.read(libraries[0]) if libraries else b""
    for needed in (b"libmpi.so.40", RUNPATH.encode(), WAKES):
        if needed not in binary:
            raise BuildProblem(f"the built library lacks {needed.decode()!r}; its log: {log}")


def _publish(wheel: Path, staged: Path, folder: Path, recipe: Recipe, log: Path) -> Path:
    """Fill the staged folder and put it into the cache with one rename."""
    shutil.copy2(wheel, staged)
    facts = {"recipe": vars(recipe), "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    (staged / "SHA256").write_text(_sha256(wheel) + "\n", encoding="utf-8")
    (staged / "build.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    shutil.move(log, staged / "build.log")
    if folder.exists():  # damaged, or it would have been used
        shutil.rmtree(folder)
    staged.chmod(0o755)
    staged.replace(folder)
    return folder / wheel.name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
