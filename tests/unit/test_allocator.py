"""The allocator's settings, seen from a process of its own, since they last as long as it does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import resource
from gnn_core.training.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

assert keep_freed_memory()
size = 64 << 20
data = b"x" * size  # not of NumPy, which asks for huge pages itself
middle = id(data) + size // 2
del data
before = faults()
b"x" * size
print("faults", faults() - before)
for line in open("/proc/self/smaps"):
    first, dash, rest = line.partition(" ")[0].partition("-")
    if dash:
        holds_it = int(first, 16) <= middle < int(rest, 16)
    elif line.startswith("VmFlags") and holds_it:
        print(line)
"""


@pytest.mark.skipif(not THP.exists(), reason="needs a Linux with transparent huge pages")
def test_freed_memory_is_used_again_and_lies_on_huge_pages(run_cli: Callable[..., Any]) -> None:
    done = run_cli([sys.executable, "-c", PROGRAM])
    assert done.returncode == 0, done.stderr
    faults, flags = done.stdout.splitlines()[:2]
    assert int(faults.split()[1]) < 1000  # 16384 pages of 4 KiB otherwise
    assert "hg" in flags.split()
