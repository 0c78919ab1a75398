"""Compiled functions where nothing can be written, and where the cache holds what is no cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.somebody import open_folder, somebody_else

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from gnn_core.compiled import njit

@njit(cache=True, nogil=True)
def double(x):
    return 2 * x

print(double(21), sum(double.stats.cache_hits.values()))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can look into."""
    with open_folder() as made:
        yield made


@pytest.fixture
def compile_in(folder: Path) -> Callable[..., str]:
    """Run a program with a compiled function in a folder of its own; what it printed."""
    (folder / "source").mkdir()
    program = folder / "source" / "program.py"
    program.write_text(PROGRAM)

    def run(*before: str, **env: str) -> str:
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*before, sys.executable, str(program)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=folder,
            env={**base, **env},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.strip()

    return run


def test_a_cut_file_of_the_cache_is_made_anew(compile_in: Callable[..., str], folder: Path) -> None:
    """Each cut file belongs to a module of its own, and all of them to one process."""
    cuts = {
        f"cut_{ending[1:]}_{keep}": (ending, keep)
        for ending in (".nbi", ".nbc")
        for keep in (0, 7, 40)
    }
    source = folder / "source"
    for name in cuts:
        (source / f"{name}.py").write_text(PROGRAM)
    (source / "program.py").write_text("".join(f"import {name}\n" for name in cuts))
    assert compile_in().splitlines() == ["42 0"] * len(cuts)
    assert compile_in().splitlines() == ["42 1"] * len(cuts)
    for name, (ending, keep) in cuts.items():
        (file,) = (source / "__pycache__").glob(f"{name}.*{ending}")
        file.write_bytes(file.read_bytes()[:keep])
    assert compile_in().splitlines() == ["42 0"] * len(cuts)
    assert compile_in().splitlines() == ["42 1"] * len(cuts)


def test_without_a_place_beside_the_source_it_is_kept_with_the_user(
    compile_in: Callable[..., str], folder: Path
) -> None:
    become = somebody_else()
    (folder / "temporary").mkdir()
    (folder / "temporary").chmod(0o777)
    for hits in "01":
        reported = compile_in(*become, HOME="/", TMPDIR=str(folder / "temporary"))
        assert reported == f"42 {hits}"
    (kept,) = (folder / "temporary").iterdir()
    assert kept.name == "ringsage-numba-12345" and kept.stat().st_mode & 0o777 == 0o700
    kept.chmod(0o777)  # so that anybody could have put something there to be executed
    assert compile_in(*become, HOME="/", TMPDIR=str(folder / "temporary")) == "42 0"


@pytest.mark.long
def test_without_any_place_it_is_compiled_each_time(
    compile_in: Callable[..., str], folder: Path
) -> None:
    become = somebody_else()
    files = "import tempfile; tempfile.tempdir = '/nowhere'\n"
    program = folder / "source" / "program.py"
    program.write_text(files + program.read_text())
    assert compile_in(*become) == "42 0"
    assert compile_in(*become) == "42 0"
