"""Turns the log of a failed installation step into one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["diagnose"]

# The order matters: what is looked for first explains what would be found later.
_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"No space left on device|Disk quota exceeded",
        "the disk is full: free some space (about 6 GB are needed; TMPDIR, RINGSAGE_CACHE and "
        "PIP_CACHE_DIR say where the temporary files, the built wheel and the downloads go)",
    ),
    (
        r"Killed signal terminated program|virtual memory exhausted|[Cc]annot allocate memory"
        r"|internal compiler error: Killed|std::bad_alloc|MemoryError",
        "the machine ran out of memory: close other programs, or build with fewer compilers at "
        "once: "
        "RINGSAGE_BUILD_JOBS=1 make install",
    ),
    (
        r"DO NOT MATCH THE HASHES",
        "a download does not have the expected sha256: the package index or a proxy served "
        "another file",
    ),
    (
        r"Temporary failure in name resolution|Name or service not known|Connection refused"
        r"|Connection timed out|Read timed out|Network is unreachable|Max retries exceeded"
        r"|NewConnectionError"
        r"|ConnectTimeoutError|ConnectionResetError|IncompleteRead",
        "the package index could not be reached: check the network and pip's settings "
        "(`pip config list`, PIP_INDEX_URL, HTTPS_PROXY), then run the same command again",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "the package index's certificate was refused: give pip the right one with PIP_CERT",
    ),
    (
        r"ensurepip is not available|No module named '?ensurepip|No module named '?venv",
        "this Python cannot make virtual environments: install its venv package "
        "(Debian, Ubuntu: apt install python3-venv)",
    ),
    (
        r"Python\.h: No such file|Python\.h' file not found",
        "the headers of Python are missing: install them (Debian, Ubuntu: apt install python3-dev; "
        "Fedora, Rocky: dnf install python3-devel)",
    ),
    (
        r"No CMAKE_CXX_COMPILER could be found|is not a full path to an existing compiler"
        r"|(?:g\+\+|c\+\+): (?:not found|command not found|No such file)"
        r"|command 'g\+\+' failed: No such",
        "no C++ compiler was found: install g++ (Debian, Ubuntu: apt install g++), or name one "
        "with CXX",
    ),
    (
        r"CMAKE_MAKE_PROGRAM is not set|unable to find a build program",
        "make was not found: install it (Debian, Ubuntu: apt install make)",
    ),
    (
        r"C\+\+17 or later compatible compiler is required"
        r"|unrecognized command.line option .-std=c\+\+17",
        "the C++ compiler is too old: g++ 9 or newer is needed; name another one with CXX",
    ),
    (
        r"Could NOT find MPI",
        "CMake did not accept the MPI of this environment: remove .venv and run make install again",
    ),
    (
        r"Could NOT find CUDAToolkit|Could NOT find NCCL|CMAKE_CUDA_COMPILER",
        "the CUDA toolkit was found only in part: set HOROVOD_CUDA_HOME and HOROVOD_NCCL_HOME, "
        "or hide "
        "it (unset CUDA_HOME, take nvcc off PATH) to build for the CPU",
    ),
    (
        r"No matching distribution found for (?P<what>\S+)|satisfies the requirement (?P<name>\S+)",
        "the package index has no {what} for this Python and machine: try another Python "
        "(make install PYTHON=python3.11) or add an index that carries it (PIP_EXTRA_INDEX_URL)",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies",
        "pip found the pins of requirements.txt to contradict each other: undo local changes "
        "to that file",
    ),
    (
        r"Permission denied|Read-only file system",
        "a file could not be written: check who owns .venv and the cache folder",
    ),
    (r"CMake Error at (?P<what>\S+)", "CMake stopped at {what}"),
    (r"(?P<what>\S+:\d+:\d+: (?:fatal )?error: .{1,120})", "the compiler stopped: {what}"),
    (r"ERROR: (?P<what>.{1,160})", "{what}"),
)


def diagnose(lines: Sequence[str]) -> str | None:
    """Say in one line why a step with this output failed, or None when nothing is recognised."""
    text = "\n".join(lines)
    for pattern, advice in _CAUSES:
        found = re.search(pattern, text)
        if found:
            named = [value for value in found.groupdict().values() if value]
            return advice.replace("{what}", named[0].rstrip(";:,") if named else "such package")
    return None
