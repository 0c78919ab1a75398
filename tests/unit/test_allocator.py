"""The allocator's settings, seen from a process of its own, since they last as long as it does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

PROGRAM = """
import resource
from gnn_core.training.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

assert keep_freed_memory()
size = 64 << 20
data = b"x" * size  # not of NumPy, which asks for huge pages itself
del data
before = faults()
b"x" * size
print("faults", faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone has mallopt")
def test_freed_memory_is_used_again(run_cli: Callable[..., Any]) -> None:
    done = run_cli([sys.executable, "-c", PROGRAM])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) < 1000  # 16384 pages of 4 KiB otherwise
