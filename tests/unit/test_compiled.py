"""Compiled functions where nothing can be written, and where the cache holds what is no cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.somebody import opened, somebody_else

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from gnn_core.compiled import njit

@njit(cache=True, nogil=True)
def double(x):
    return 2 * x

print(double(21), sum(double.stats.cache_hits.values()))
"""


@pytest.fixture
def compile_in(tmp_path: Path) -> Callable[..., str]:
    """Run a program with a compiled function in a folder of its own; what it printed."""
    (tmp_path / "source").mkdir()
    program = tmp_path / "source" / "program.py"
    program.write_text(PROGRAM)

    def run(*before: str, **env: str) -> str:
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*before, sys.executable, str(program)],
            capture_output=True, text=True, timeout=120, cwd=tmp_path, env={**base, **env},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.strip()

    return run


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
@pytest.mark.parametrize("keep", [0, 7, 40])
def test_a_cut_file_of_the_cache_is_made_anew(
    compile_in: Callable[..., str], tmp_path: Path, ending: str, keep: int
) -> None:
    assert compile_in() == "42 0"
    assert compile_in() == "42 1"
    (file,) = (tmp_path / "source" / "__pycache__").glob(f"*{ending}")
    file.write_bytes(file.read_bytes()[:keep])
    assert compile_in() == "42 0"
    assert compile_in() == "42 1"


def test_without_a_place_beside_the_source_it_is_kept_with_the_user(
    compile_in: Callable[..., str], tmp_path: Path
) -> None:
    become = somebody_else()
    opened(tmp_path / "source")
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary").chmod(0o777)
    for hits in "01":
        told = compile_in(*become, HOME="/", TMPDIR=str(tmp_path / "temporary"))
        assert told == f"42 {hits}"
    (folder,) = (tmp_path / "temporary").iterdir()
    assert folder.name == "ringsage-numba-12345" and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)  # so that anybody could have put something there to be executed
    assert compile_in(*become, HOME="/", TMPDIR=str(tmp_path / "temporary")) == "42 0"


def test_without_any_place_it_is_compiled_each_time(
    compile_in: Callable[..., str], tmp_path: Path
) -> None:
    become = somebody_else()
    opened(tmp_path / "source")
    files = "import tempfile; tempfile.tempdir = '/nowhere'\n"
    program = tmp_path / "source" / "program.py"
    program.write_text(files + program.read_text())
    assert compile_in(*become) == "42 0"
    assert compile_in(*become) == "42 0"
