"""The published source of Horovod, and what has to be corrected in it.

Three of its CMake files are changed, each at a line that must be there exactly once: two ask for
C++14 where torch's headers need C++17; the third would pick up half a CUDA toolkit. WAKE_PATCH
changes its C++: an allreduce begins when a tensor is enqueued, not at the next tick of a clock.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "PATCH_TOOL",
    "RUNPATH",
    "SDIST_SHA256",
    "VERSION",
    "WAKES",
    "WAKE_PATCH",
    "BuildProblem",
    "correct_source",
]

VERSION = "0.28.1"
SDIST_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"

PATCH_TOOL = "patch-ng==1.19.1"
WAKE_PATCH = Path(__file__).with_name("horovod_wake.patch")
"""Applied with `patch -p1`; its head says why."""
WAKES = b"HOROVOD_WAKE_ON_ENQUEUE"
"""A built library that has the patch contains the name of the variable that the patch reads."""

_OLD_STANDARD = "set(CMAKE_CXX_STANDARD 14)"
_NEW_STANDARD = "set(CMAKE_CXX_STANDARD 17)"
RUNPATH = "$ORIGIN/../../../.."
"""From the library's folder to libmpi's: horovod/torch, horovod, site-packages, python3.x, lib."""

_PLACE_AND_FLAGS = (
    "# The wheel is shared by environments elsewhere: find libmpi and torch from where we lie.",
    "set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)",
    f'set(CMAKE_INSTALL_RPATH "{RUNPATH};$ORIGIN/../../torch/lib")',
    "# Without debugging symbols the build is faster and the wheel 1 MB instead of 20.",
    'set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -DNDEBUG")',
)
_CUDA_KNOWN = 'string(TOUPPER "${Pytorch_CUDA}" Pytorch_CUDA)'
_CUDA_HIDDEN = (
    "# torch from PyPI is a CUDA build; without a whole CUDA toolkit Horovod is built for the CPU.",
    "if(DEFINED ENV{RINGSAGE_HIDE_CUDA})",
    '    set(Pytorch_CUDA "FALSE")',
    "endif()",
)
_CORRECTIONS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("CMakeLists.txt", _OLD_STANDARD, _NEW_STANDARD, _PLACE_AND_FLAGS),
    ("horovod/torch/CMakeLists.txt", _OLD_STANDARD, _NEW_STANDARD, ()),
    (
        "horovod/common/ops/cuda/CMakeLists.txt",
        "set(CMAKE_CUDA_STANDARD 11)",
        "set(CMAKE_CUDA_STANDARD 17)",
        (),
    ),
    ("cmake/Modules/FindPytorch.cmake", _CUDA_KNOWN, _CUDA_KNOWN, _CUDA_HIDDEN),
)
"""(file, the line expected in it, the line instead, lines added after that)."""


class BuildProblem(Exception):
    """The wheel cannot be built; the message is one line for the user."""


def correct_source(source: Path) -> None:
    """Make the unpacked source ask for C++17; raises BuildProblem when it is another source."""
    for name, expected, instead, added in _CORRECTIONS:
        path = source / name
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        places = [i for i, line in enumerate(lines) if line.strip() == expected]
        if len(places) != 1:
            raise BuildProblem(
                f"expected the line {expected!r} once in Horovod's {name}, found it {len(places)} "
                "times: this is not the source that the correction was written for"
            )
        place = places[0]
        lines[place] = lines[place].replace(expected, instead)
        lines[place + 1 : place + 1] = added
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
