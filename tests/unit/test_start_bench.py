"""`python -m baselines.start_bench`: each way starts warm and cold, and the file says when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.report.tables.benches import read_benches

pytestmark = pytest.mark.needs_torch
BENCH = ("python", "-m", "baselines.start_bench")


@pytest.mark.long
def test_starts_are_timed_and_kept(tmp_path: Path, run_cli: Callable) -> None:
    made = tmp_path / "start.json"
    small = ("--dataset", "synthetic:papers=2000", "--rounds", "1", "--only", "single")
    done = run_cli([*BENCH, *small, "--json", str(made)], timeout=300)
    assert done.returncode == 0, done.stderr
    (bench,), problems = read_benches(made)
    assert not problems
    ((name, warm, cold),) = bench.rows
    assert name == "python baselines/single.py"
    assert all(float(text.split(" ")[0]) > 0 for text in (warm, cold))
    assert warm in done.stdout


def test_a_wrong_flag_is_one_line(run_cli: Callable) -> None:
    done = run_cli([*BENCH, "--rounds", "0"])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--rounds: expected a whole number from 1, got 0" in done.stderr
