"""Output that nobody takes: a run outlives it, a short program ends with a word or a code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELP = f"{sys.executable} -m gnn_core.data.datasets --help"
LIST = f"{sys.executable} -m gnn_core.data.datasets list --cache-dir /tmp"
RUN = """
import sys
from gnn_core.launch import guarded
from gnn_core.streams import optional_output

def main():
    with optional_output():
        for number in range(20_000):
            print("line", number)
            print("line", number, file=sys.stderr)
        open(sys.argv[1], "w").write("done")
    return 0

sys.exit(guarded(main))
"""


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """What a shell says of a command line."""
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


@pytest.mark.parametrize("where", [">/dev/full", ">/dev/full 2>&1", "| true", ">&-", "2>&-", "<&-"])
def test_a_run_outlives_its_output(tmp_path: Path, where: str) -> None:
    program = tmp_path / "run.py"
    program.write_text(RUN)
    command = f"PYTHONPATH={ROOT} {sys.executable} {program} {tmp_path / 'record'}"
    done = shell(f"set -o pipefail; {command} {where}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "record").read_text() == "done"
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("command", [HELP, LIST])
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_full_disk_is_reported_in_a_line(command: str, buffered: str) -> None:
    done = shell(f"PYTHONUNBUFFERED={buffered} {command} >/dev/full")
    if command == HELP and buffered:  # from Python 3.11.3 on argparse keeps it to itself
        if (done.returncode, done.stderr) == (0, ""):
            return
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("command", [HELP, LIST])
def test_a_reader_that_has_gone_is_no_mistake(command: str) -> None:
    done = shell(f"set -o pipefail; {command} | true")
    assert done.returncode in (0, 141)  # as it was quicker or not
    assert done.stderr == ""


@pytest.mark.parametrize("command", [pytest.param(HELP, marks=pytest.mark.long), LIST])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_mistake(command: str, closed: str) -> None:
    done = shell(f"{command} {closed}")
    assert done.returncode == 0
    assert done.stderr == ""


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    done = shell(f"PYTHONIOENCODING=utf-8:strict {LIST}/$'\\xe9'")
    assert done.returncode == 0, done.stderr
    assert "\\udce9" in done.stdout


def test_a_working_folder_that_has_gone_is_reported_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    command = f"{sys.executable} -m gnn_core.data.datasets list --cache-dir rel"
    done = shell(f"cd {tmp_path}/x && rmdir {tmp_path}/x && PYTHONPATH={ROOT} {command}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
