"""Who else computes beside a job: read from made-up /proc trees and from this very machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gnn_core.measure import machine
from gnn_core.measure.processes import others_running

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc of Linux")


def process(proc: Path, pid: int, parent: int, state: str, *words: str) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "status").write_text(f"Name:\tx\nState:\t{state} (x)\nPPid:\t{parent}\n")
    (folder / "cmdline").write_text("".join(f"{word}\0" for word in words))


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Make a sweep (20) that has started horovodrun (30) with two ranks, all of them running."""
    process(tmp_path, 1, 0, "R", "/sbin/init")
    process(tmp_path, 20, 1, "R", "python", "-m", "sweep")
    process(tmp_path, 30, 20, "R", "horovodrun", "-np", "2", "python", "train.py")
    process(tmp_path, 40, 30, "R", "mpirun", "-np", "2", "python", "train.py")
    process(tmp_path, 50, 40, "R", "python", "train.py")
    process(tmp_path, 51, 40, "D", "python", "train.py")
    return tmp_path


def test_a_job_is_no_stranger_to_itself(proc: Path) -> None:
    assert others_running(proc, 50) == 0


def test_strangers_count_when_they_run_or_wait_for_a_disk(proc: Path) -> None:
    process(proc, 60, 1, "R", "burn")
    process(proc, 61, 1, "D", "copy")
    process(proc, 62, 1, "S", "sleep")
    process(proc, 63, 1, "Z", "gone")
    process(proc, 64, 20, "R", "the same parent, but nothing that the launcher has started")
    assert others_running(proc, 50) == 3


def test_without_a_launcher_the_job_is_the_process_and_its_children(proc: Path) -> None:
    """Its own parents still are no strangers; ranks of another job are."""
    process(proc, 70, 20, "R", "python", "single.py")
    process(proc, 71, 70, "R", "nvidia-smi")
    assert others_running(proc, 70) == 4  # 30, 40, 50 and 51


def test_a_pool_that_computes_while_its_main_thread_waits_counts_once(proc: Path) -> None:
    process(proc, 60, 1, "S", "pool")
    process(proc / "60" / "task", 60, 1, "S")
    process(proc / "60" / "task", 61, 1, "R")
    process(proc / "60" / "task", 62, 1, "R")
    assert others_running(proc, 50) == 1


def test_where_other_users_processes_are_hidden_nobody_knows(tmp_path: Path) -> None:
    process(tmp_path, 50, 1, "R", "python", "train.py")
    assert others_running(tmp_path, 50) is None
    assert others_running(tmp_path / "no-proc", 50) is None


@LINUX
def test_a_real_stranger_is_seen() -> None:
    """A child of this process is of this job; seen from that child's sleeping sister it is not."""
    burn = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    )
    sister = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert burn.stdout is not None and burn.stdout.read(1)
        assert others_running(Path("/proc"), os.getpid()) is not None
        seen = others_running(Path("/proc"), sister.pid)
        assert seen is not None and seen >= 1
    finally:
        for child in (burn, sister):
            child.kill()
            child.communicate()


def test_the_machine_tells_both_and_the_present_clock(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 2000.000\nx: y\ncpu MHz\t\t: 3000.500\n")
    process(tmp_path, 1, 0, "S", "/sbin/init")
    process(tmp_path, 2, 1, "R", "burn")
    facts = machine.hardware(tmp_path, tmp_path)
    assert (facts["cpu_mhz"], facts["others_running"]) == (2500.2, 1)


def test_what_is_not_reported_is_none(tmp_path: Path) -> None:
    facts = machine.hardware(tmp_path, tmp_path)
    assert (facts["cpu_mhz"], facts["others_running"]) == (None, None)
