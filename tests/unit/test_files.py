"""Paths and files that users name: refused in a line, read whole or not at all, none missed."""

from __future__ import annotations

import argparse
import gzip
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core import files
from gnn_core.usage import UsageError
from tests.somebody import open_folder, somebody_else

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a\0b", "zero byte"),
        ("\ud800", "no file name can have"),
        ("a" * 256, "names have at most 255"),
        ("é" * 128, "names have at most 255"),
        ("a/" * 2100, "at most 4095 bytes"),
        ("~nosuchuser/x", "a user called 'nosuchuser'"),
    ],
)
def test_what_no_file_can_be_called_is_refused(path: str, why: str) -> None:
    assert why in str(files.path_problem(path))
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        files.path_argument(path)
    with pytest.raises(UsageError, match=f"^--data-root: .*{why}"):
        files.expanded(path, "--data-root")


@pytest.mark.parametrize("path", ["a" * 255, "~/x", "\udce9", "a b", "/", "", "~", "x~y"])
def test_whatever_can_be_a_path_is_one(path: str) -> None:
    """Also one whose bytes are no UTF-8."""
    assert files.path_problem(path) is None


def test_without_a_home_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 3_999_999)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert "HOME to be set" in str(files.path_problem("~/x"))


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Path]:
    """Files that never end, or are none."""
    os.mkfifo(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.close()
    (tmp_path / "folder").mkdir()
    return {
        "a pipe": tmp_path / "pipe",
        "a folder": tmp_path / "folder",
        "a device": Path("/dev/zero"),
        "cannot read": tmp_path / "socket",  # to open one is an error by itself
        "No such file": tmp_path / "none",
    }


def test_what_is_no_regular_file_is_not_read(odd: dict[str, Path]) -> None:
    for what, path in odd.items():
        with pytest.raises(UsageError, match=what):
            files.read_regular(path, 100)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read_regular(tmp_path / "a", 5) == b"12345"
    with pytest.raises(UsageError, match="at most 4 bytes"):
        files.read_regular(tmp_path / "a", 4)


def test_a_gzipped_file_is_read_up_to_the_bound_of_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(bytes(5000)))
    assert files.read_regular(file, 5000) == bytes(5000)
    with pytest.raises(UsageError, match="expected at most 4999 bytes, got more"):
        files.read_regular(file, 4999)
    for damaged in (b"no gzip", gzip.compress(b"12345")[:-9], gzip.compress(b"12345")[:-1] + b"x"):
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"a\.gz: expected a gzipped file, which ends well: "):
            files.read_regular(file, 100)


def test_linked_folders_are_entered_once_and_no_circle_is_walked(tmp_path: Path) -> None:
    (tmp_path / "results" / "own").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("results/own/a.jsonl", "elsewhere/b.jsonl", "elsewhere/.c.jsonl", "elsewhere/d"):
        (tmp_path / name).touch()
    (tmp_path / "results" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "results" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "results" / "own" / "circle").symlink_to(tmp_path / "results")
    found, problems = files.files_below(tmp_path / "results", ".jsonl")
    assert [file.name for file in found] == ["b.jsonl", "a.jsonl"]
    assert problems == []


def test_what_is_among_the_files_and_is_none_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a.jsonl").touch()
    found, problems = files.files_among([tmp_path], ".jsonl", "run records")
    assert found == [tmp_path / "a.jsonl"]
    assert len(problems) == 2
    assert "gone.jsonl: cannot be read: No such file" in "\n".join(problems)
    assert "pipe.jsonl: expected a file, got a pipe" in "\n".join(problems)


CLOSED = """
import sys
from pathlib import Path
from gnn_core.measure.records import read_records
records, problems = read_records(Path(sys.argv[1]))
print(len(records), problems)
"""


def test_a_closed_folder_is_named_and_the_rest_is_found(
    run_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Nobody is refused as root, so somebody else looks."""
    become = somebody_else()
    with open_folder() as folder:
        (folder / "closed").mkdir(mode=0o000)
        (folder / "closed.jsonl").touch(mode=0o000)
        (folder / "open.jsonl").touch()
        command = [*become, "python", "-c", CLOSED, str(folder)]
        done = run_cli(command, env={"PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
        assert "closed: cannot be read: Permission denied" in done.stdout
        assert "closed.jsonl: Permission denied" in done.stdout
        command = [*become, "python", "-m", "gnn_core.report.analysis", f"{folder}/closed/x"]
        done = run_cli(command)
        assert done.returncode == 2
        assert "Permission denied" in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("synthetic:papers=1e6", "synthetic-papers-1e6"),
        ("/data/my graph/", "my-graph"),
        ("..", ".."),
        ("²:", "-"),
        ("a" * 300, "a" * 80),
        ("", "graph"),
    ],
)
def test_a_name_becomes_the_beginning_of_a_file_name(name: str, stem: str) -> None:
    assert files.file_stem(name) == stem
