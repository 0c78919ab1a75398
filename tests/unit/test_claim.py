"""One run at a time saves to a folder of checkpoints; a run that was killed keeps nobody out."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gnn_core.training import claim
from gnn_core.training.claim import FILE, claimed
from gnn_core.usage import UsageError

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from gnn_core.training.claim import claimed
with claimed(Path(sys.argv[1]), "run-of-another", ".*.unfinished"):
    print("held", flush=True)
    sys.stdin.read()
"""


def held_by_another(folder: Path) -> subprocess.Popen[str]:
    """A process that has claimed the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_and_names_the_first(tmp_path: Path) -> None:
    other = held_by_another(tmp_path / "saved")
    with pytest.raises(UsageError, match=f"in use by run run-of-a .*process {other.pid}"):
        with claimed(tmp_path / "saved", "mine", ".*.unfinished"):
            pass
    with claimed(tmp_path / "saved", "run-of-another", ".*.unfinished"):
        pass  # the run itself, whose former first rank stands still
    other.communicate("")
    with claimed(tmp_path / "saved", "mine", ".*.unfinished"):
        pass
    assert (tmp_path / "saved" / FILE).read_text() == ""


def test_a_killed_run_keeps_nobody_out_and_what_it_left_is_removed(tmp_path: Path) -> None:
    other = held_by_another(tmp_path)
    other.kill()
    other.communicate()
    (tmp_path / ".last.safetensors.abc.unfinished").touch()
    (tmp_path / "last.safetensors").touch()
    assert json.loads((tmp_path / FILE).read_text())["pid"] == other.pid
    with claimed(tmp_path, "mine", ".*.unfinished"):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == [FILE, "last.safetensors"]


def test_without_locks_it_is_what_the_file_says_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    reported = {"host": claim.host_name(), "pid": other.pid, "run": "r" * 32}
    (tmp_path / FILE).write_text(json.dumps(reported))
    with pytest.raises(UsageError, match=f"process {other.pid}"), claimed(tmp_path, "mine", "x"):
        pass
    other.communicate(b"\n")
    with claimed(tmp_path, "mine", "x"):
        pass
    (tmp_path / FILE).write_text("no JSON")
    with claimed(tmp_path, "mine", "x"):
        pass


def test_a_folder_that_cannot_be_is_a_mistake_reported_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--checkpoint-dir: cannot write to"):
        with claimed(tmp_path / "file" / "x", "mine", "x"):
            pass
